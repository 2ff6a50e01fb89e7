"""A data set is added by one file and a row in a table, and all commands and pages know it."""

import json
import shutil

import numpy as np

from tests.recipes.conftest import ROOT, recipe

OPEN = """
import json, sys
from unweave.config import DataConfig
from unweave.data import open_dataset

dataset = open_dataset(DataConfig(**json.loads(sys.argv[1]), cache="cache"), int(sys.argv[2]), print)
rows = range(len(dataset))
facts = [dataset.name, dataset.factor_names, dataset.factor_sizes, dataset.factors(rows).tolist()]
open("opened.json", "w").write(json.dumps([*facts, dataset.images(rows).tolist()]))
"""
DRAWN = '''
import numpy as np

from unweave.data.base import FactorDataset, StateSpace


class Squares(FactorDataset):
    """Every image is as bright as its number."""

    name, version = "toy", "1"

    def __init__(self, size: int):
        super().__init__(StateSpace(tuple(FACTORS), tuple(FACTORS.values())))
        self.image_shape = (size, size, 3)

    def images(self, indices):
        return np.stack([np.full(self.image_shape, 10 * index, np.uint8) for index in indices])


TOY = Card('''


def add(copy, file):
    """The edits of the recipe, with this file."""
    _, imported, row = recipe("Add a data set")
    copy.write("src/unweave/data/sets/toy.py", file)
    copy.insert("src/unweave/data/sets/__init__.py", "from unweave.errors", imported)
    copy.append("src/unweave/data/sets/__init__.py", "    CELEBA,", row)
    assert len(copy.edited) == 2


def opened(copy, size, **options):
    """Name, names and sizes of the factors, factors and images of a set, opened in the copy."""
    copy.run("-c", OPEN, json.dumps(options), str(size))
    return json.loads((copy.folder / "opened.json").read_text())


def row_of(copy, name):
    """The cells of a set in the list of all."""
    cells = [line.split("│")[1:-1] for line in copy.unweave("data", "list", "--cache", "cache").splitlines()]
    (row,) = [list(map(str.strip, row)) for row in cells if row and row[0].strip() == name]
    return row


def test_a_published_set_is_a_file_and_a_row(copy):
    add(copy, recipe("Add a data set")[0])
    assert row_of(copy, "toy") == ["toy", "Toy", "20", "4 x 5", "CC0"]
    told = copy.unweave("data", "info", "toy")
    assert "Toy: A white square on black, moved." in told
    assert "row 4, column 5; the last varies fastest" in told
    assert "Nobody, Toy, 2024" in told
    places = np.array([(row, column) for row in range(4) for column in range(5)])
    pixels = np.zeros((20, 16, 16), np.uint8)
    for image, (row, column) in zip(pixels, places):
        image[4 * row : 4 * row + 4, 3 * column : 3 * column + 3] = 255
    np.savez_compressed(copy.folder / "toy.npz", pixels=pixels, places=places / 7)
    expected = ["toy", ["row", "column"], [4, 5], places.tolist(), np.stack([pixels] * 3, axis=-1).tolist()]
    assert opened(copy, 16, folder="toy.npz") == expected


def test_its_pages_are_generated(copy):
    for folder in ("docs", "benchmarks"):
        shutil.copytree(ROOT / folder, copy.folder / folder)
    add(copy, recipe("Add a data set")[0])
    copy.run("benchmarks/data_pages.py")
    page = (copy.folder / "docs" / "data" / "toy.md").read_text()
    assert page.startswith("# Toy\n\nA white square on black, moved.\n\n    unweave data get toy\n")
    assert "| factors | row 4, column 5; the last varies fastest |\n" in page
    line = "| [Toy](data/toy.md) | A white square on black, moved. | 20 | `data get toy` |\n"
    assert (copy.folder / "docs" / "data.md").read_text().replace(line, "") == (ROOT / "docs" / "data.md").read_text()
    pages = {path.name: path.read_text() for path in (copy.folder / "docs" / "data").iterdir()}
    assert pages.items() > {path.name: path.read_text() for path in (ROOT / "docs" / "data").iterdir()}.items()


def test_a_drawn_set_is_one_too(copy):
    file = recipe("Add a data set")[0]
    add(copy, file.replace("\nTOY = Card(", DRAWN).replace("    opens=opens,\n    read=read,\n", "    draw=Squares,\n"))
    images = [np.full((32, 32, 3), 10 * index).tolist() for index in range(20)]
    places = [[row, column] for row in range(4) for column in range(5)]
    assert opened(copy, 32, name="toy") == ["toy", ["row", "column"], [4, 5], places, images]
    dry_run = copy.unweave("train", "tiny", "--data.name", "toy", "--data.fixed", "--dry-run")
    assert json.loads(dry_run)["data"]["name"] == "toy"
