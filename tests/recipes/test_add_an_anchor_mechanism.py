"""An anchor mechanism is added by one file, a row in a table and a value of an option; a run then trains with it."""

import itertools
import json

import pytest

from tests.recipes.conftest import recipe

READ = """
import json
import numpy as np
import unweave

model = unweave.load("run")
images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
codes = model.encode(images)
found = [model.anchors.levels.tolist(), codes.scalars.tolist(), codes.anchors.tolist()]
open("read.json", "w").write(json.dumps([*found, codes.aligned.tolist(), model.align(codes.scalars).tolist()]))
"""


@pytest.mark.slow
def test_a_mechanism_is_a_file_a_row_and_a_value(copy):
    file, imported, row, value = recipe("Add an anchor mechanism")
    copy.write("src/unweave/nn/anchors/grid.py", file)
    copy.insert("src/unweave/nn/anchors/__init__.py", "from unweave.nn.anchors.published", imported)
    copy.insert("src/unweave/nn/anchors/__init__.py", '    "scalar": ScalarAnchors', row)
    config = copy.folder / "src/unweave/config.py"
    old = '    mode: Literal["off", "published", "corrected"] = "corrected"\n'
    assert config.read_text().count(old) == 1
    config.write_text(config.read_text().replace(old, value))
    assert len({*copy.edited, "src/unweave/config.py"}) == 3
    options = ["--model.anchors.mode", "grid", "--model.anchors.lambda-max", "0.5", "--train.images", "640"]
    copy.unweave("train", "tiny", "--run", "run", *options)
    copy.run("-c", READ)
    levels, scalars, anchors, aligned, again = json.loads((copy.folder / "read.json").read_text())
    assert aligned == again
    for image, units in enumerate(scalars):
        for unit, scalar in enumerate(units):
            away = [abs(scalar - level) for level in levels[unit]]
            assert anchors[image][unit] == away.index(min(away))
    steps = [second - first for unit in levels for first, second in itertools.pairwise(unit)]
    assert all(step > 0 for step in steps)
    copy.unweave("anchors", "run", "--steps", "2")
    assert (copy.folder / "run" / "report" / "anchors.png").is_file()
