"""Own images: what Pillow alone would make of each, the odd files skipped and said, the same order every time."""

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageOps

from unweave.config import DataConfig
from unweave.data import open_dataset
from unweave.data.pictures import FolderSource, fitted, read_picture, resized
from unweave.errors import UserError

SIZE = 16


def colours(seed=0, height=SIZE, width=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def opened(path, cache, said=None, **options):
    config = DataConfig(folder=str(path), cache=str(cache), **options)
    return open_dataset(config, SIZE, (said if said is not None else []).append)


@pytest.fixture
def folder(tmp_path):
    """Five pictures that are read and everything that is not one."""
    path = tmp_path / "photos"
    (path / "b").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b/c.PNG", "b/d.bmp", "z.png", "b.png")):
        Image.fromarray(colours(seed)).save(path / name)
    whole = (path / "z.png").read_bytes()
    (path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (path / "empty.jpg").write_bytes(b"")
    (path / "text.jpg").write_text("not a picture")
    (path / "notes.txt").write_text("nor this")
    (path / ".hidden.png").write_bytes(whole)
    return path


def test_every_picture_of_a_folder_in_one_order(folder, tmp_path):
    said = []
    dataset = opened(folder, tmp_path / "cache", said)
    assert len(dataset) == 5
    for row, seed in enumerate((0, 4, 1, 2, 3)):  # a.png, b.png, b/c.PNG, b/d.bmp, z.png
        np.testing.assert_array_equal(dataset.images([row])[0], colours(seed))
    listed = next((tmp_path / "cache").glob("*.skipped.csv")).read_text().splitlines()
    assert listed[0] == "place,name,reason"
    assert [line.split(",")[1] for line in listed[1:]] == ["cut.png", "empty.jpg", "text.jpg"]
    assert any("skipped 3 of 8: cut.png (" in line for line in said)
    again = []
    np.testing.assert_array_equal(opened(folder, tmp_path / "cache", again).images(range(5)), dataset.images(range(5)))
    assert not any("converting" in line for line in again)


def test_a_changed_folder_is_read_again(folder, tmp_path):
    opened(folder, tmp_path / "cache")
    Image.fromarray(colours(9)).save(folder / "new.png")
    assert len(opened(folder, tmp_path / "cache")) == 6


def test_strict_names_the_first_picture_that_is_none(folder, tmp_path):
    with pytest.raises(UserError, match=r"cut\.png: .*Repair or remove it"):
        opened(folder, tmp_path / "cache", strict=True)
    opened(folder, tmp_path / "cache")
    with pytest.raises(UserError, match=r"cut\.png"):  # also where it was converted before
        opened(folder, tmp_path / "cache", strict=True)


def test_links_to_folders_above_end(tmp_path):
    path = tmp_path / "photos"
    path.mkdir()
    Image.fromarray(colours()).save(path / "a.png")
    (path / "loop").symlink_to(path)
    (path / "nowhere.png").symlink_to(tmp_path / "missing")
    dataset = opened(path, tmp_path / "cache")
    assert len(dataset) == 1


def test_zip_gives_what_the_folder_gave_and_unpacks_nothing(folder, tmp_path):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(folder).as_posix())
        file.writestr("../outside.png", (folder / "a.png").read_bytes())
        file.writestr("__MACOSX/a.png", b"resource fork")
        file.writestr("bomb.png", bytes(300 * 2**20))  # small in the zip
    dataset = opened(archive, tmp_path / "cache")
    np.testing.assert_array_equal(dataset.images([0])[0], colours(0))  # ../outside.png, read where it is
    np.testing.assert_array_equal(dataset.images(range(1, 6)), opened(folder, tmp_path / "other").images(range(5)))
    assert not (tmp_path / "outside.png").exists()
    assert 'bomb.png,"314,572,800 bytes unpacked' in next((tmp_path / "cache").glob("*.skipped.csv")).read_text()


def test_damaged_member_of_a_zip_is_skipped(tmp_path):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("a.bmp", "b.bmp"):
            file.writestr(name, as_file(Image.new("RGB", (64, 64), "red"), "bmp").getvalue())
        place = file.getinfo("a.bmp").header_offset + 30 + len("a.bmp")
    content = bytearray(archive.read_bytes())
    content[place : place + 12] = b"\xff" * 12  # no deflate stream begins so
    archive.write_bytes(content)
    assert len(opened(archive, tmp_path / "cache")) == 1
    assert "a.bmp" in next((tmp_path / "cache").glob("*.skipped.csv")).read_text()


def test_arrays(tmp_path):
    images = np.stack([colours(seed, 32, 32) for seed in range(3)])
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "b.npz", images=images, other=np.zeros(3))
    np.save(tmp_path / "grey.npy", images[..., 0])
    means = images.reshape(3, SIZE, 2, SIZE, 2, 3).mean(axis=(2, 4))
    for name in ("a.npy", "b.npz"):
        assert np.abs(opened(tmp_path / name, tmp_path / "cache").images(range(3)) - means).max() <= 0.5
    grey = opened(tmp_path / "grey.npy", tmp_path / "cache").images(range(3))
    assert np.abs(grey - means[..., :1]).max() <= 0.5


def test_three_ways_to_a_square():
    picture = Image.fromarray(colours(0, 20, 60))
    middle = picture.crop((20, 0, 40, 20)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    found = fitted(picture, SIZE, "center").astype(int)
    assert np.abs(found - np.asarray(middle))[:, 4:-4].max() <= 1  # at the edges it sees beyond the square
    np.testing.assert_array_equal(fitted(picture, SIZE, "stretch"), picture.resize((SIZE, SIZE), 1))
    padded = fitted(picture, SIZE, "pad")
    assert not padded[:5].any()
    assert not padded[-5:].any()
    assert padded[6:10].any()


PLACES = np.dstack([*np.meshgrid(np.arange(178), np.arange(218)), np.zeros((218, 178))]).astype(np.uint8)


@pytest.mark.parametrize(
    ("crop", "left", "top", "width", "height"),
    [("celeba_128", 89 - 64, 121 - 64, 128, 128), ("celeba_96", 29.667, 48.444, 118.667, 119.248)],
)
@pytest.mark.parametrize("size", [32, 64])
def test_rectangles_of_celeba(crop, left, top, width, height, size):
    """In pictures whose red is the column and green the row, colours tell where each pixel comes from."""
    found = fitted(Image.fromarray(PLACES), size, crop).astype(float)
    centres = (np.arange(size) + 0.5) / size
    assert np.abs(found[..., 0] - (left + centres * width - 0.5)).max() <= 0.6
    assert np.abs(found[..., 1] - (top + centres * height - 0.5)[:, None]).max() <= 0.6


def test_rectangles_of_celeba_are_those_of_the_published_loaders():
    picture = Image.fromarray(colours(0, 218, 178))
    np.testing.assert_array_equal(fitted(picture, 128, "celeba_128"), colours(0, 218, 178)[57:185, 25:153])
    shorter_96 = picture.resize((96, int(96 * 218 / 178)), Image.Resampling.LANCZOS)
    middle_64 = np.asarray(shorter_96)[26:90, 16:80].astype(int)
    assert np.abs(fitted(picture, 64, "celeba_96") - middle_64).max() <= 1


def test_faces_of_another_size_are_skipped(tmp_path):
    folder = tmp_path / "img_align_celeba"
    folder.mkdir()
    Image.fromarray(PLACES).save(folder / "000001.png")
    Image.fromarray(colours(0, 178, 178)).save(folder / "000002.png")
    Image.fromarray(PLACES).save(folder / "000003.png")
    labels = tmp_path / "list_attr_celeba.txt"
    labels.write_text("3\nBald Young\n000001.png -1 1\n000002.png 1 1\n000003.png 1 -1\n")
    said = []
    dataset = opened(folder, tmp_path / "cache", said, crop="celeba_128", labels=str(labels))
    assert dataset.factors(range(2)).tolist() == [[-1, 1], [1, -1]]
    np.testing.assert_array_equal(dataset.images([1])[0], fitted(Image.fromarray(PLACES), SIZE, "celeba_128"))
    assert any("000002.png (178 x 178 pixels, but data.crop celeba_128 takes 178 x 218)" in line for line in said)


def test_arrays_of_faces(tmp_path):
    np.save(tmp_path / "faces.npy", np.stack([PLACES] * 2))
    found = opened(tmp_path / "faces.npy", tmp_path / "cache", crop="celeba_96").images([1])[0]
    np.testing.assert_array_equal(found, fitted(Image.fromarray(PLACES), SIZE, "celeba_96"))
    np.save(tmp_path / "square.npy", np.zeros((2, 178, 178, 3), np.uint8))
    with pytest.raises(UserError, match=r"shape \(2, 178, 178, 3\): data.crop celeba_96 takes images of 178 x 218"):
        opened(tmp_path / "square.npy", tmp_path / "cache", crop="celeba_96")


def as_file(picture, kind="png", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def test_odd_but_whole_pictures():
    base = Image.fromarray(colours())
    grey = np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) * 257  # 0 to 255, in 16 bits
    found = read_picture(as_file(Image.fromarray(grey)), SIZE, "center")
    np.testing.assert_array_equal(found, np.repeat((grey // 257).astype(np.uint8)[..., None], 3, axis=2))

    cmyk = Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0))
    assert read_picture(as_file(cmyk, "tiff"), SIZE, "center")[0, 0].tolist() == [255, 0, 0]

    palette = base.quantize(8)
    np.testing.assert_array_equal(read_picture(as_file(palette), SIZE, "center"), np.asarray(palette.convert("RGB")))

    clear = base.convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.array([0, 255], np.uint8), (SIZE, SIZE // 2))))
    found = read_picture(as_file(clear), SIZE, "center")
    assert (found[:, ::2] == 255).all()  # white where nothing is
    np.testing.assert_array_equal(found[:, 1::2], colours()[:, 1::2])

    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "blue")]
    animated = as_file(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert read_picture(animated, SIZE, "center")[0, 0].tolist() == [255, 0, 0]

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = read_picture(as_file(base, exif=exif), SIZE, "center")
    np.testing.assert_array_equal(turned, np.rot90(colours(), -1))
    assert (ImageOps.exif_transpose(Image.open(as_file(base, exif=exif))).size) == (SIZE, SIZE)

    assert (read_picture(as_file(Image.new("RGB", (1, 1), "red")), SIZE, "center") == [255, 0, 0]).all()


def announced(width, height):
    """A picture that announces a size and has few pixels."""
    return f"P6 {width} {height} 255\n".encode() + bytes(64)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a picture"),
        (b"<html>moved</html>", "not a picture"),
        (announced(30_000, 30_000), "more than 134,217,728 pixels"),
        (announced(12_000, 12_000), "12000 x 12000 pixels"),
        (as_file(Image.fromarray(colours())).getvalue()[:200], "truncated|Truncated|damaged"),
    ],
)
def test_what_is_no_picture_says_why(content, reason):
    with pytest.raises(ValueError, match=reason):
        read_picture(io.BytesIO(content), SIZE, "center")


def test_pictures_that_may_not_be_read_are_skipped(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(colours()).save(tmp_path / name)
    (tmp_path / "b.png").chmod(0)
    source = FolderSource(tmp_path, SIZE, "center")
    images, skipped = source.read(0, 2)
    if os.geteuid() != 0:  # the superuser may read everything
        assert [(item.place, item.reason) for item in skipped] == [(1, "Permission denied")]
    assert len(images) + len(skipped) == 2


def test_folders_that_may_not_be_read_are_counted(folder, tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("photos/b"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # the superuser, who may run this, may read everything
    said = []
    dataset = opened(folder, tmp_path / "cache", said)
    assert len(dataset) == 3  # without the two pictures in b
    assert any("skipped 4 of 7: b (a folder: Permission denied); cut.png" in line for line in said)
    with pytest.raises(UserError, match=r"^b: a folder: Permission denied\. Repair or remove it"):
        opened(folder, tmp_path / "other", strict=True)
    monkeypatch.undo()
    assert len(opened(folder, tmp_path / "cache")) == 5


def test_halving_is_the_mean():
    images = np.stack([colours(seed, 64, 64) for seed in range(2)])
    found = resized(images, 32)
    assert np.abs(found - images.reshape(2, 32, 2, 32, 2, 3).mean(axis=(2, 4))).max() <= 0.5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "does not exist"),
        ("empty", "has no pictures"),
        ("bad.zip", "no zip that can be read"),
        ("bad.npy", "cannot be read as an array"),
        ("pickled.npy", "cannot be read as an array"),
        ("floats.npy", "images are uint8"),
        ("flat.npy", "array of shape"),
        ("two.npz", "call the images `images`"),
        ("movie.mp4", "choose a folder or .zip"),
    ],
)
def test_places_without_images_are_named(tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    for broken in ("bad.zip", "bad.npy", "movie.mp4"):
        (tmp_path / broken).write_bytes(b"PK nothing")
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "floats.npy", np.zeros((2, 8, 8, 3)))
    np.save(tmp_path / "flat.npy", np.zeros((2, 8), np.uint8))
    np.savez(tmp_path / "two.npz", a=np.zeros(2), b=np.zeros(2))
    with pytest.raises(UserError, match=words):
        opened(tmp_path / name, tmp_path / "cache")


def test_no_picture_that_can_be_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"no image that can be read: a\.png \(not a picture\)"):
        opened(tmp_path, tmp_path / "cache")


def test_fixed_factors_do_not_apply(folder, tmp_path):
    said = []
    opened(folder, tmp_path / "cache", said, fixed=("floor_hue=0",))
    assert any("floor_hue=0 of data.fixed does not apply" in line for line in said)
