"""From a folder of pictures to a trained model, its units and its pictures; and a trained model on a published file."""

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from PIL import Image
from sklearn.decomposition import PCA

import unweave
from unweave.cli import main
from unweave.commands.data import _walk
from unweave.data import Rooms
from unweave.data.base import StateSpace
from unweave.data.pictures import fitted
from unweave.metrics import tad

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Forty rooms as pictures of another size and aspect, and one file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    rooms = Rooms(64).images(np.random.default_rng(0).integers(480_000, size=40))
    for number, image in enumerate(rooms):
        Image.fromarray(image).resize((96, 80)).save(folder / f"{number:02}.jpg")
    (folder / "99.jpg").write_bytes(b"")
    rows = [f"{number:02}.jpg,{number % 2}" for number in range(40)]
    (folder / "labels.csv").write_text("\n".join(["file,odd", *rows, "99.jpg,0"]) + "\n")
    return folder


def training(run, photos, cache):
    """The words of a command that trains on pictures."""
    options = ["--data.cache", str(cache), "--data.labels", str(photos / "labels.csv"), "--train.images", "640"]
    return ["train", "tiny", "--run", str(run), "--data.folder", str(photos), *options]


@pytest.fixture(scope="module")
def run(photos, cache, tmp_path_factory):
    """A run on them, whose options name them from the working folder that they lie in."""
    folder = tmp_path_factory.mktemp("own") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(photos.parent)
        assert main(training(folder, Path(photos.name), cache)) == 0
    return folder


def test_units_of_every_picture_and_what_can_be_said_of_them(run, photos, tmp_path, capsys):
    codes = tmp_path / "codes.parquet"
    assert main(["encode", str(run), "--out", str(codes), "--device", "cpu"]) == 0
    table = pq.read_table(codes)
    assert table["index"].to_pylist() == list(range(40))
    assert table["odd"].to_pylist() == [number % 2 for number in range(40)]
    assert main(["score", str(codes), "--metrics", "mig,tad"]) == 0
    assert main(["evaluate", str(run), "--data", str(photos)]) == 2  # no labels there
    assert "is no grid of known factors" in capsys.readouterr().err
    assert main(["swap", str(run), "--out", str(tmp_path), "--pairs", "2", "--steps", "2", "--device", "cpu"]) == 0
    assert (tmp_path / "swap.png").stat().st_size > 1_000


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """CelebA's layout: pictures of 178 x 218 in a zip, attributes -1 or 1 in list_attr_celeba.txt."""
    folder = tmp_path_factory.mktemp("celeba")
    attributes = StateSpace(("Bright", "Red", "Lucky"), (2, 2, 2)).factors(np.arange(48) % 8)
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for number, (bright, red, _) in enumerate(attributes):
            pixels = np.full((218, 178, 3), 60 + 120 * bright + number % 5, np.uint8)
            pixels[90:150, 60:120] = (220, 30, 30) if red else (30, 30, 220)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "png")
            archive.writestr(f"img_align_celeba/{number + 1:06}.jpg", file.getvalue())
    rows = [
        f"{number + 1:06}.jpg {' '.join(f'{2 * value - 1:2}' for value in row)}"
        for number, row in enumerate(attributes)
    ]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["48", "Bright Red Lucky ", *rows]) + "\n")
    return folder, attributes


def test_attributes_in_the_layout_of_celeba_are_scored_by_both_definitions(faces, cache, tmp_path, capsys):
    folder, attributes = faces
    run, zipped, labels = tmp_path / "run", folder / "img_align_celeba.zip", folder / "list_attr_celeba.txt"
    options = ["--data.folder", str(zipped), "--data.labels", str(labels), "--data.crop", "celeba_128"]
    more = ["--data.cache", str(cache), "--train.images", "640"]
    assert main(["train", "tiny", "--run", str(run), *options, *more]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    found = json.loads((run / "attributes.json").read_text())

    with zipfile.ZipFile(zipped) as archive:
        pictures = [Image.open(io.BytesIO(archive.read(name))) for name in sorted(archive.namelist())]
    codes = unweave.load(run).encode(np.stack([fitted(picture, 32, "celeba_128") for picture in pictures]))
    exact = tad(codes.scalars, attributes)
    first = [PCA(1, svd_solver="full").fit_transform(unit)[:, 0] for unit in codes.tokens.astype(float).swapaxes(0, 1)]
    published = tad(np.stack(first, axis=1), attributes, method="grid")
    assert found["scores"]["exact"]["tad"] == pytest.approx(exact.score, abs=1e-6)
    np.testing.assert_allclose(found["scores"]["exact"]["auroc"], exact.auroc, atol=1e-6)
    np.testing.assert_allclose(found["scores"]["published"]["auroc"], published.auroc, atol=0.05)  # either direction
    assert "Bright" in found["scores"]["exact"]["captured"]
    assert "Lucky" not in found["scores"]["exact"]["captured"]
    assert found["untrained"]["exact"]["auroc"] != found["scores"]["exact"]["auroc"]
    assert f"{exact.score:.3f}" in said
    assert "Bright: unit" in said
    leads = {one["attribute"]: one for one in found["scores"]["exact"]["leads"]}
    assert list(leads) == found["scores"]["exact"]["captured"]
    areas = np.sort(exact.auroc[0])[::-1]
    assert leads["Bright"]["unit"] == exact.auroc[0].argmax()
    np.testing.assert_allclose([leads["Bright"]["area"], leads["Bright"]["next"]], areas[:2], atol=1e-6)

    card = ModelCard.load(run / "model" / "README.md")
    assert [(one.metric_type, one.metric_value) for one in card.data.eval_results] == [("tad", round(exact.score, 4))]
    captured, untrained = len(leads), found["untrained"]["exact"]["tad"]
    assert f"| exact | {exact.score:.3f} | {captured} of 3 | {untrained:.3f} |" in card.text
    assert main(["report", str(run), "--device", "cpu"]) == 0
    page = (run / "report" / "report.html").read_text()
    assert f"<strong>{exact.score:.3f}</strong>" in page
    assert f'<td class="number">{areas[0]:.2f}</td><td class="number">{areas[1]:.2f}</td>' in page
    assert "unweave evaluate" not in page

    assert main(["encode", str(run), "--out", str(tmp_path / "codes.parquet"), "--device", "cpu"]) == 0
    assert (
        main(["score", str(tmp_path / "codes.parquet"), "--metrics", "tad", "--json", str(tmp_path / "tad.json")]) == 0
    )
    scored = json.loads((tmp_path / "tad.json").read_text())
    assert scored["factors"] == ["Bright", "Red", "Lucky"]


def test_pictures_elsewhere_are_encoded_by_path(run, photos, tmp_path):
    codes = tmp_path / "codes.npz"
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "one.jpg").write_bytes((photos / "07.jpg").read_bytes())
    assert main(["encode", str(run), "--data", str(tmp_path / "more"), "--out", str(codes), "--device", "cpu"]) == 0
    assert main(["encode", str(run), "--out", str(tmp_path / "all.npz"), "--device", "cpu"]) == 0
    one, every = (np.load(path)["scalars"] for path in (codes, tmp_path / "all.npz"))
    assert one.shape == (1, every.shape[1])
    np.testing.assert_allclose(one[0], every[7], atol=1e-5)


@pytest.mark.slow
def test_a_run_on_rooms_is_scored_on_a_file_in_the_layout_of_shapes3d(tiny_run, tmp_path):
    """Its fixed factors choose the same part of the file; with the same pixels there the scores are the same."""
    rooms, sizes = Rooms(32), (2, 6, 10, 5, 4, 8)
    space = StateSpace(rooms.factor_names, sizes)
    factors = space.factors(np.arange(len(space)))
    images = np.zeros((len(space), 32, 32, 3), np.uint8)
    frozen = (factors[:, [0, 1, 3, 5]] == [0, 5, 4, 7]).all(axis=1)
    images[frozen] = rooms.images(rooms.index(factors[frozen]))
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file.create_dataset("images", data=images, compression="gzip", compression_opts=1, chunks=(256, 32, 32, 3))
        file["labels"] = factors.astype(float)
    found = []
    for data in ([], ["--data", str(tmp_path / "3dshapes.h5")]):
        out = tmp_path / f"out{len(found)}"
        assert main(["evaluate", str(tiny_run), "--out", str(out), "--device", "cpu", *data]) == 0
        found.append(json.loads((out / "results.json").read_text()))
    assert found[1]["data"]["name"] == "shapes3d"
    assert found[1]["scores"] == found[0]["scores"]


def test_a_run_on_rooms_is_scored_on_real_frames_of_shapes3d(tiny_run, tmp_path):
    """A file in the published layout with published frames inside: no option changes, and its frames are what is seen.

    The frames stand at cells of the grid in a made up order, as those that are at hand are no whole grid.
    """
    frames = np.load(FIXTURES / "shapes3d_frames.npz", allow_pickle=False)["gif_frames"]
    space = StateSpace(Rooms().factor_names, (2, 6, 3, 5, 3, 8))
    factors, shown = space.factors(np.arange(len(space))), np.arange(len(space)) % len(frames)
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file["images"], file["labels"] = frames[shown], factors / 3
    where = ["--device", "cpu", "--data", str(tmp_path / "3dshapes.h5")]
    assert main(["evaluate", str(tiny_run), "--out", str(tmp_path), *where]) == 0
    data = json.loads((tmp_path / "results.json").read_text())["data"]
    assert (data["name"], data["factor_names"], data["factor_sizes"]) == ("shapes3d", ["object_hue", "shape"], [3, 3])
    assert main(["encode", str(tiny_run), "--out", str(tmp_path / "codes.npz"), *where]) == 0
    seen = frames[shown[(factors[:, [0, 1, 3, 5]] == [0, 5, 4, 7]).all(axis=1)]].astype(float)
    halved = np.floor(seen.reshape(9, 32, 2, 32, 2, 3).mean(axis=(2, 4)) + 0.5).astype(np.uint8)
    codes = unweave.load(tiny_run).encode(halved)
    np.testing.assert_allclose(np.load(tmp_path / "codes.npz")["scalars"], codes.scalars, atol=1e-5)


def test_what_a_model_of_own_pictures_says_it_was_trained_on(run, photos):
    trained_on = unweave.load(run).trained_on
    assert trained_on.folder == str(photos)
    assert trained_on.labels == str(photos / "labels.csv")


def test_a_run_goes_on_from_any_working_folder(run, photos, cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(photos.parent)
    before = (run / "config.json").read_text()
    assert main(training(run, Path(photos.name), cache)) == 0
    written = json.loads(before)
    written["data"] |= {"folder": photos.name, "labels": f"{photos.name}/labels.csv"}  # as runs were written once
    (run / "config.json").write_text(json.dumps(written))
    assert main(training(run, Path("..") / photos.parent.name / photos.name, cache)) == 0
    monkeypatch.chdir(tmp_path)
    assert main(training(run, photos, cache)) == 0
    assert (run / "config.json").read_text() == before
    (tmp_path / photos.name).mkdir()  # another folder of that name
    assert main(training(run, Path(photos.name), cache)) == 2
    assert f"data.folder: '{photos}' -> '{tmp_path / photos.name}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode", "RUN", "--data", "none.zip", "--out", "codes.npz"], "data is 'none.zip': choose rooms, dsprites"),
        (["train", "tiny", "--run", "NEW", "--data.folder", "nowhere"], "data.folder is nowhere, which does not exist"),
        (["train", "tiny", "--run", "NEW", "--data.labels", "a.csv"], "labels belong to your own images"),
    ],
)
def test_mistakes_are_named(run, tmp_path, arguments, words, capsys):
    places = {"RUN": str(run), "NEW": str(tmp_path / "new"), "codes.npz": str(tmp_path / "codes.npz")}
    assert main([places.get(word, word) for word in arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_data_set_is_checked_and_shown(photos, cache, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    arguments = ["data", "check", str(photos), "--size", "32", "--cache", str(cache), "--sheet", str(sheet)]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "40 images of 32 px" in said
    assert "none known" in said
    assert np.asarray(Image.open(sheet).convert("L")).std() > 20
    assert main(["data", "list"]) == 0
    listed = capsys.readouterr().err
    assert all(name in listed for name in ("rooms", "dsprites", "Shapes3D", "MPI3D", "Cars3D"))


def test_a_grid_is_shown_factor_by_factor():
    """Each row of a factor goes from its first to its last value, the others held."""
    space = StateSpace(("a", "b"), (4, 15))
    rows = _walk(space, [2, 7], 1)
    assert space.factors(rows)[[0, -1]].tolist() == [[2, 0], [2, 14]]
    assert (space.factors(rows)[:, 0] == 2).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name what to check"),
        (["nowhere"], "'nowhere' is no generated set and no path: choose rooms, dsprites"),
        (["shapes3d"], "unweave data get shapes3d downloads it"),
    ],
)
def test_what_cannot_be_checked(arguments, words, capsys):
    assert main(["data", "check", *arguments]) == 2
    assert words in capsys.readouterr().err
