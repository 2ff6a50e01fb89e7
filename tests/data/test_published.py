"""Small files in each published layout, with the real frames inside, and what goes wrong with such files."""

import io
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from unweave.config import DataConfig
from unweave.data import Rooms, open_dataset
from unweave.data.base import StateSpace
from unweave.data.sets import mpi3d, open_published
from unweave.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures"


def frames(name, array):
    """Published frames."""
    return np.load(FIXTURES / f"{name}_frames.npz", allow_pickle=False)[array]


def opened(path, cache, size=64, **options):
    return open_dataset(DataConfig(folder=str(path), cache=str(cache), **options), size, [].append)


def noise(num, seed=0, size=64):
    return np.random.default_rng(seed).integers(0, 256, (num, size, size, 3), dtype=np.uint8)


def write_shapes3d(path, images, labels):
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = images, labels


def shapes_labels(sizes):
    """Labels as published: floats, in the order of the grid."""
    factors = StateSpace(tuple("abcdef"), sizes).factors(np.arange(np.prod(sizes)))
    return factors / 10 + np.array([0, 0, 0, 0.75, 0, -30.0])


def test_shapes3d(tmp_path):
    sizes = (2, 1, 2, 3, 1, 2)
    images = frames("shapes3d", "gif_frames")[:24]
    write_shapes3d(tmp_path / "3dshapes.h5", images, shapes_labels(sizes))
    dataset = opened(tmp_path / "3dshapes.h5", tmp_path / "cache")
    assert dataset.factor_names == ("floor_hue", "object_hue", "scale", "orientation")
    assert dataset.factor_sizes == (2, 2, 3, 2)
    np.testing.assert_array_equal(dataset.images(range(24)), images)
    half = opened(tmp_path / "3dshapes.h5", tmp_path / "cache", 32).images([5])
    assert np.abs(half - images[5].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))).max() <= 0.5
    part = opened(tmp_path / "3dshapes.h5", tmp_path / "cache", fixed=("scale=1",))
    assert part.factor_names == ("floor_hue", "object_hue", "orientation")
    np.testing.assert_array_equal(part.images([3]), images[[0 * 12 + 1 * 6 + 1 * 2 + 1]])


def test_rooms_have_the_layout_of_shapes3d(tmp_path):
    """The drawn rooms, written as the published file, come back with the names, sizes and order of the drawn ones."""
    rooms = Rooms(64)
    held = {"floor_hue": 3, "wall_hue": 1}
    factors = StateSpace(rooms.factor_names[2:], (10, 8, 4, 15)).factors(np.arange(4800))
    whole = np.concatenate([np.tile([held["floor_hue"], held["wall_hue"]], (4800, 1)), factors], axis=1)
    write_shapes3d(tmp_path / "3dshapes.h5", rooms.images(rooms.index(whole)), whole / 7)
    dataset = opened(tmp_path / "3dshapes.h5", tmp_path / "cache")
    assert dataset.factor_names == rooms.factor_names[2:]
    assert dataset.factor_sizes == rooms.factor_sizes[2:]
    np.testing.assert_array_equal(dataset.images([7, 4000]), rooms.images(rooms.index(whole[[7, 4000]])))


def test_dsprites(tmp_path):
    sizes = (1, 3, 2, 2, 2, 2)
    labels = StateSpace(tuple("abcdef"), sizes).factors(np.arange(48))
    sprites = frames("dsprites", "frames")[:48]
    np.savez_compressed(tmp_path / "dsprites.npz", imgs=sprites, latents_classes=labels, metadata=np.zeros(3))
    dataset = opened(tmp_path / "dsprites.npz", tmp_path / "cache")
    assert dataset.factor_names == ("shape", "scale", "orientation", "pos_x", "pos_y")
    np.testing.assert_array_equal(dataset.images(range(48)), np.repeat(sprites[..., None] * 255, 3, axis=3))


def test_mpi3d_is_read_as_a_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(mpi3d, "SIZES", {600: (5, 2, 2, 1, 3, 5, 2)})
    images = noise(600, size=16)
    np.savez_compressed(tmp_path / "mpi3d_toy.npz", images=images)
    dataset = opened(tmp_path / "mpi3d_toy.npz", tmp_path / "cache", 16)
    assert dataset.name == "mpi3d"
    np.testing.assert_array_equal(dataset.images(range(600)), images)
    source = open_published(tmp_path / "mpi3d_toy.npz", 16)
    np.testing.assert_array_equal(source.read(530, 540)[0], images[530:540])  # as after a cut: what is before is passed


def test_mpi3d_is_told_by_its_number_of_images(tmp_path, monkeypatch):
    monkeypatch.setattr(mpi3d, "SIZES", {120: (5, 2, 2, 1, 3, 2, 1)})
    tiles = frames("mpi3d", "real").reshape(-1, 64, 64, 3)
    np.savez_compressed(tmp_path / "real.npz", images=tiles[:120])
    dataset = opened(tmp_path / "real.npz", tmp_path / "cache")
    index = dataset.index([[4, 1, 0, 0, 2, 1, 0]])
    np.testing.assert_array_equal(dataset.images(index)[0], tiles[4 * 24 + 1 * 12 + 0 + 0 + 2 * 2 + 1])
    np.savez_compressed(tmp_path / "other.npz", images=tiles)  # as many as no grid has: pictures without factors
    assert opened(tmp_path / "other.npz", tmp_path / "cache").factor_names == ()


def car(seed):
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3, 4, 2), dtype=np.uint8)


def mat(array):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"im": array}, do_compression=True)
    return buffer.getvalue()


def test_cars3d_from_tar_and_from_folder(tmp_path):
    folder = tmp_path / "cars"
    folder.mkdir()
    with tarfile.open(tmp_path / "cars.tar.gz", "w:gz") as archive:
        for seed in (1, 0, 2):
            (folder / f"car_{seed}.mat").write_bytes(mat(car(seed)))
            archive.add(folder / f"car_{seed}.mat", f"data/cars/car_{seed}.mat")
    for path in (folder, tmp_path / "cars.tar.gz"):
        dataset = opened(path, tmp_path / "cache", 32)
        assert dataset.factor_names == ("elevation", "azimuth", "object_type")
        assert dataset.factor_sizes == (2, 4, 3)
        for elevation, azimuth, which in ((0, 0, 0), (1, 2, 1), (0, 3, 2)):
            row = dataset.index([[elevation, azimuth, which]])
            np.testing.assert_array_equal(dataset.images(row)[0], car(which)[..., azimuth, elevation])


def test_the_cars_of_the_published_archive_are_those_in_its_folder_cars(tmp_path):
    """Beside them it has sprites and shapes, in .mat files of another kind."""
    with tarfile.open(tmp_path / "nips2015-analogy-data.tar.gz", "w:gz") as archive:
        for name, content in (("cars/car_007_mesh", mat(car(7))), ("sprites/sprites_1", b"MATLAB"), ("shapes48", b"")):
            member = tarfile.TarInfo(f"data/{name}.mat")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    dataset = opened(tmp_path / "nips2015-analogy-data.tar.gz", tmp_path / "cache", 32)
    assert dataset.factor_sizes == (2, 4, 1)
    np.testing.assert_array_equal(dataset.images(dataset.index([[1, 2, 0]]))[0], car(7)[..., 2, 1])


def test_cars_are_decoded_once_and_a_changed_one_is_seen(tmp_path, monkeypatch):
    folder = tmp_path / "cars"
    folder.mkdir()
    for seed in range(4):
        (folder / f"car_{seed}.mat").write_bytes(mat(car(seed)))
    calls, decode = [], scipy.io.loadmat
    monkeypatch.setattr(scipy.io, "loadmat", lambda *words, **more: calls.append(1) or decode(*words, **more))
    opened(folder, tmp_path / "cache", 32)
    calls.clear()
    opened(folder, tmp_path / "cache", 32)
    assert len(calls) == 1  # the first car, for the numbers of views
    (folder / "car_2.mat").write_bytes(mat(car(9)))
    dataset = opened(folder, tmp_path / "cache", 32)
    np.testing.assert_array_equal(dataset.images(dataset.index([[1, 3, 2]]))[0], car(9)[..., 3, 1])


def test_cars_with_other_views_are_named(tmp_path):
    folder = tmp_path / "cars"
    folder.mkdir()
    (folder / "a.mat").write_bytes(mat(car(0)))
    (folder / "b.mat").write_bytes(mat(car(1)[..., :1]))
    with pytest.raises(UserError, match=r"car 1 has \(1, 4\) views, the first \(2, 4\)"):
        opened(folder, tmp_path / "cache", 32)


class Shout:
    """A pickle of this would run code."""

    def __reduce__(self):
        return (print, ("hostile code ran",))


def bad_files(folder):
    labels = StateSpace(tuple("abcdef"), (1, 3, 2, 1, 1, 1)).factors(np.arange(6))
    imgs = np.zeros((6, 8, 8), np.uint8)
    np.savez_compressed(folder / "whole.npz", imgs=np.random.default_rng(0).integers(0, 2, (6, 64, 64), np.uint8))
    whole = (folder / "whole.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("page.h5", "page.npz", "page.tar.gz"):
        (folder / name).write_bytes(b"\n<!DOCTYPE html><html>Quota exceeded</html>")
    (folder / "noise.h5").write_bytes(bytes(500))
    with h5py.File(folder / "other.h5", "w") as file:
        file["pixels"] = imgs
    write_shapes3d(folder / "floats.h5", np.zeros((6, 8, 8, 3)), labels)
    write_shapes3d(folder / "order.h5", np.zeros((6, 8, 8, 3), np.uint8), labels[::-1])
    write_shapes3d(folder / "columns.h5", np.zeros((6, 8, 8, 3), np.uint8), labels[:, :4])
    np.savez(folder / "short.npz", imgs=imgs[:5], latents_classes=labels)
    np.savez(folder / "objects.npz", imgs=imgs, latents_classes=np.array([Shout()] * 6, object))
    with tarfile.open(folder / "empty.tar.gz", "w:gz"):
        pass
    with tarfile.open(folder / "text.tar.gz", "w:gz") as archive:
        (folder / "car.mat").write_bytes(b"no matlab here, only words that go on for a while" * 9)
        archive.add(folder / "car.mat", "../../car.mat")
    (folder / "car.mat").unlink()
    (folder / "cut.tar.gz").write_bytes((folder / "text.tar.gz").read_bytes()[:60])
    with zipfile.ZipFile(folder / "damaged.npz", "w") as archive:
        archive.writestr("imgs.npy", b"no array")
        archive.writestr("latents_classes.npy", b"no array")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut.npz", "cannot be read as .npz"),
        ("page.h5", r"page\.h5 \(43 bytes\) is a web page, not data"),
        ("page.npz", "is a web page"),
        ("page.tar.gz", "is a web page"),
        ("noise.h5", "cannot be read as HDF5"),
        ("other.h5", r"has \['pixels'\]: Shapes3D has `images` and `labels`"),
        ("floats.h5", r"`images` float64 \(6, 8, 8, 3\): should be uint8"),
        ("order.h5", "not the grid 1 x 3 x 2 x 1 x 1 x 1 in order"),
        ("columns.h5", r"labels of shape \(6, 4\): should be \(images, 6\)"),
        ("short.npz", "one image per row of labels"),
        ("objects.npz", "cannot be read as .npz .*allow_pickle"),
        ("damaged.npz", "cannot be read as .npz"),
        ("empty.tar.gz", r"has no \.mat files"),
        ("text.tar.gz", r"car\.mat is no car"),
        ("cut.tar.gz", "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path, name, words, capsys):
    bad_files(tmp_path)
    with pytest.raises(UserError, match=words):
        opened(tmp_path / name, tmp_path / "cache", 32)
    assert "hostile code ran" not in capsys.readouterr().out
    assert not list((tmp_path / "cache").glob("*.npy"))


def test_pixels_cut_short_are_said_while_converting(tmp_path):
    labels = StateSpace(tuple("abcdef"), (1, 3, 2, 1, 1, 1)).factors(np.arange(6))
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (6, 8, 8)})
    table = io.BytesIO()
    np.lib.format.write_array(table, labels)
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("imgs.npy", buffer.getvalue() + bytes(8 * 8 * 4))
        archive.writestr("latents_classes.npy", table.getvalue())
    with pytest.raises(UserError, match="is damaged .it ends too early.: get it again"):
        opened(tmp_path / "short.npz", tmp_path / "cache", 8)
    assert not list((tmp_path / "cache").glob("*.npy"))
