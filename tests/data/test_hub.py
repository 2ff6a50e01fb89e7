"""Hugging Face data sets, made and saved by the library itself: the pixels of a folder; what cannot be used is said."""

import io
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from unweave.config import DataConfig
from unweave.data import open_dataset
from unweave.data.hub import Name, parse
from unweave.errors import UserError

SIZE, NUM = 16, 6


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No request leaves the machine, and what the library keeps goes into the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def png(seed, height=20, width=28):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    for seed in range(NUM):
        (path / f"{seed}.png").write_bytes(png(seed))
    return path


def made(**columns):
    """A data set of six pictures, the given columns in the place of its own."""
    features = datasets.Features(
        {
            "caption": datasets.Value("string"),
            "picture": datasets.Image(),
            "kind": datasets.ClassLabel(names=["cat", "dog"]),
            "age": datasets.Value("float32"),
            "box": datasets.List(datasets.Value("int64")),
        }
    )
    rows = {
        "caption": ["words"] * NUM,
        "picture": [{"bytes": png(seed), "path": None} for seed in range(NUM)],
        "kind": [seed % 2 for seed in range(NUM)],
        "age": [seed / 2 for seed in range(NUM)],
        "box": [[seed, 1] for seed in range(NUM)],
    }
    return datasets.Dataset.from_dict({**rows, **columns}, features=features)


def opened(what, cache, said=None, **options):
    config = DataConfig(folder=str(what), cache=str(cache), **options)
    return open_dataset(config, SIZE, (said if said is not None else []).append)


def saved(tmp_path, dataset, name="saved"):
    dataset.save_to_disk(tmp_path / name)
    return tmp_path / name


def written_as_parquet(tmp_path):
    (tmp_path / "repository" / "data").mkdir(parents=True)
    made().to_parquet(tmp_path / "repository" / "data" / "train-00000-of-00001.parquet")
    return tmp_path / "repository"


@pytest.mark.parametrize("layout", ["saved", "splits", "parquet", "file", "of files"])
def test_pixels_are_those_of_a_folder_of_the_same_pictures(folder, tmp_path, layout):
    if layout == "saved":
        what = saved(tmp_path, made().with_format("torch"))
    elif layout == "splits":
        both = datasets.DatasetDict(train=made(), test=made().select([0]))
        what = f"hf://{saved(tmp_path, both)}:train"
    elif layout == "of files":
        paths = [{"bytes": None, "path": str(folder / f"{seed}.png")} for seed in range(NUM)]
        what = saved(tmp_path, made(picture=paths))
    else:
        what = written_as_parquet(tmp_path)
        what = what / "data" / "train-00000-of-00001.parquet" if layout == "file" else what
    said = []
    for crop in ("center", "pad"):
        dataset = opened(what, tmp_path / "cache", said, crop=crop)
        expected = opened(folder, tmp_path / "cache", crop=crop)
        np.testing.assert_array_equal(dataset.images(range(NUM)), expected.images(range(NUM)))
    assert dataset.factor_names == ("kind", "age")
    np.testing.assert_array_equal(dataset.factors(range(NUM)), [[seed % 2, seed / 2] for seed in range(NUM)])
    assert any("not every image has a number there: caption, box" in line for line in said)


def test_folders_of_classes_are_labels_where_the_library_reads_them(tmp_path):
    for seed in range(NUM):
        kind = tmp_path / "animals" / ("dog" if seed % 2 else "cat")
        kind.mkdir(parents=True, exist_ok=True)
        (kind / f"{seed}.png").write_bytes(png(seed))
    ours = opened(tmp_path / "animals", tmp_path / "cache")
    theirs = opened(f"hf://{tmp_path}/animals", tmp_path / "cache")
    np.testing.assert_array_equal(theirs.images(range(NUM)), ours.images(range(NUM)))  # cat/0, cat/2, ..., dog/5
    assert ours.factor_names == ()
    assert theirs.factors(range(NUM))[:, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_rows_without_a_picture_are_skipped_with_their_labels(tmp_path, monkeypatch):
    rows = [{"bytes": png(seed), "path": None} for seed in range(NUM)]
    rows[1] = {"bytes": png(1)[:60], "path": None}
    rows[2] = None
    rows[4] = {"bytes": None, "path": "https://example.org/never-fetched.png"}
    rows = made(picture=rows, age=[0.0, None, 1.0, 1.5, 2.0, 2.5])  # saving would look at the address
    monkeypatch.setattr("unweave.data.hub._load", lambda _: rows)
    what = "hf://own/set"
    dataset = opened(what, tmp_path / "cache")
    assert dataset.factors(range(3)).tolist() == [[0, 0.0], [1, 1.5], [1, 2.5]]
    expected = np.asarray(Image.open(io.BytesIO(png(5))).crop((4, 0, 24, 20)).resize((SIZE, SIZE), 1))
    assert np.abs(dataset.images([2])[0].astype(int) - expected)[:, 4:-4].max() <= 1
    listed = next((tmp_path / "cache").glob("*.skipped.csv")).read_text()
    assert "1,row 1," in listed
    assert "2,row 2,empty" in listed
    assert "4,row 4,No such file" in listed
    with pytest.raises(UserError, match="row 1: .*Repair or remove it"):
        opened(what, tmp_path / "cache", strict=True)


def test_a_table_of_labels_has_a_row_for_each(tmp_path):
    rows = [{"bytes": png(seed) if seed else b"", "path": None} for seed in range(NUM)]
    (tmp_path / "labels.csv").write_text("size\n" + "\n".join(str(seed * 10) for seed in range(NUM)))
    what = saved(tmp_path, made(picture=rows))
    dataset = opened(what, tmp_path / "cache", labels=str(tmp_path / "labels.csv"))
    assert dataset.factor_names == ("size",)
    assert dataset.factors([0, 4])[:, 0].tolist() == [10, 50]


def test_another_content_is_converted_again(tmp_path):
    first = opened(saved(tmp_path, made(), "one"), tmp_path / "cache")
    again = opened(saved(tmp_path, made(), "two"), tmp_path / "cache")
    other = opened(saved(tmp_path, made().select(range(2, NUM)), "three"), tmp_path / "cache")
    assert first.version == again.version != other.version
    np.testing.assert_array_equal(other.images([0]), first.images([2]))


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("hf://ylecun/mnist", Name("ylecun/mnist", False)),
        ("hf://ylecun/mnist:train[:10%]", Name("ylecun/mnist", False, None, "train[:10%]")),
        ("hf://owner/set/plain:test", Name("owner/set", False, "plain", "test")),
        ("hf:///data/set:test", Name("/data/set", True, None, "test")),
        ("/data/set", Name("/data/set", True)),
    ],
)
def test_names(what, name):
    assert parse(what) == name


def two_columns(tmp_path):
    one = made().select_columns("picture")
    return saved(tmp_path, datasets.concatenate_datasets([one, one.rename_column("picture", "mask")], axis=1))


def damaged(tmp_path):
    path = written_as_parquet(tmp_path)
    file = path / "data" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-200])
    return path


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda _: "hf://mnist", "write hf://OWNER/NAME"),
        (lambda _: "hf://nobody/nothing", "hf://nobody/nothing cannot be opened: .*reach"),
        (lambda path: f"hf://{path}/none", "none cannot be opened: "),
        (damaged, "repository cannot be opened: .*[Pp]arquet"),
        (
            lambda path: saved(path, made().remove_columns(["picture", "box", "age"])),
            r"no column of pictures, only caption \(string\), kind \(int64\): cast",
        ),
        (two_columns, r"several columns of pictures, picture and mask: keep one, dataset.remove_columns\(\['mask'\]\)"),
        (
            lambda path: saved(path, datasets.DatasetDict(train=made(), test=made().select([0]))),
            r"has the splits train \(6\), test \(1\): choose one, as in hf:///.*saved:train$",
        ),
        (lambda path: f"hf://{saved(path, datasets.DatasetDict(a=made()))}:b", r"has the splits a \(6\): choose one"),
        (lambda path: f"hf://{saved(path, made())}:train", r"has the splits all \(6\): choose one"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(tmp_path, what, words):
    with pytest.raises(UserError, match=words) as stop:
        opened(what(tmp_path), tmp_path / "cache")
    assert len(str(stop.value).splitlines()) == 1


def test_without_the_library_the_remedy_is_said(tmp_path, monkeypatch):
    what = saved(tmp_path, made())
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'unweave\[hf\]'$"):
        opened(what, tmp_path / "cache")
