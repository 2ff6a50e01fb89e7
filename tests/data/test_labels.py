"""Labels find their images by path or by name, in both of CelebA's forms and in anybody's CSV."""

import numpy as np
import pytest
from PIL import Image

from unweave.config import DataConfig
from unweave.data import open_dataset
from unweave.data.base import require_grid
from unweave.errors import UserError

FILES = ("a.png", "b/c.png", "z.png")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "photos"
    (path / "b").mkdir(parents=True)
    for seed, name in enumerate(FILES):
        image = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(image).save(path / name)
    (path / "bad.png").write_bytes(b"")
    return path


def labelled(folder, text, name="labels.csv"):
    path = folder.parent / name
    path.write_text(text)
    config = DataConfig(folder=str(folder), labels=str(path), cache=str(folder.parent / "cache"))
    return open_dataset(config, 16, [].append)


def test_rows_are_found_in_any_order_and_for_pictures_that_were_skipped(folder):
    dataset = labelled(
        folder, "file,age,hair\nz.png,3,red\nb/c.png,2,brown\nbad.png,9,red\na.png,1,red\nmore.png,8,x\n"
    )
    assert dataset.factor_names == ("age", "hair")
    order = {"brown": 0, "red": 1, "x": 2}
    expected = [[1, order["red"]], [2, order["brown"]], [3, order["red"]]]
    np.testing.assert_array_equal(dataset.factors(range(3)), expected)


def test_celeba_has_two_forms(folder):
    text = "4\nBald Young \na.png -1  1 \nc.png  1 -1\nbad.png 1 1\nz.png  1  1\n"
    expected = [[-1, 1], [1, -1], [1, 1]]
    found = labelled(folder, text, "list_attr_celeba.txt")
    np.testing.assert_array_equal(found.factors(range(3)), expected)
    assert found.factor_names == ("Bald", "Young")
    csv = "image_id,Bald,Young\na.png,-1,1\nc.png,1,-1\nz.png,1,1\nbad.png,1,1\n"
    np.testing.assert_array_equal(labelled(folder, csv).factors(range(3)), expected)


def test_rows_of_an_array_are_in_its_order(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 16, 16), np.uint8))
    (tmp_path / "labels.csv").write_text("age\n5\n6\n7\n")
    config = DataConfig(
        folder=str(tmp_path / "a.npy"), labels=str(tmp_path / "labels.csv"), cache=str(tmp_path / "cache")
    )
    assert open_dataset(config, 16, [].append).factors([2, 0]).tolist() == [[7], [5]]


def test_images_without_a_grid_cannot_be_evaluated(folder):
    with pytest.raises(UserError, match="photos is no grid of known factors.*unweave score"):
        require_grid(labelled(folder, "file,age\na.png,1\nc.png,2\nz.png,3\n"))


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("file,age\na.png,1\n", "labels.csv", r"no row for b/c\.png \(2 of 3"),
        ("file,age\na.png,1\nc.png,\nz.png,3\n", "labels.csv", "column 'age' is empty in 1 rows"),
        ("file\na.png\n", "labels.csv", "give file names, then a column per label"),
        ("a,b\n1,2,3\n", "labels.csv", "cannot be read as CSV"),
        ("9\nBald\na.png 1\n", "list.txt", "it should have 9 rows, but has 1"),
        ("2\nBald Young\na.png 1 1\nc.png 1\n", "list.txt", "Expected 3 columns, got 2"),
        ("1\nBald\na.png yes\n", "list.txt", "attributes are -1 or 1"),
        ("", "list.txt", "cannot be read as list_attr_celeba.txt"),
        ("<html>Quota exceeded</html>", "list.txt", "cannot be read as list_attr_celeba.txt"),
    ],
)
def test_tables_that_do_not_fit_are_named(folder, text, name, words):
    with pytest.raises(UserError, match=words):
        labelled(folder, text, name)
