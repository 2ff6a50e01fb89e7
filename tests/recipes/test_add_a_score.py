"""A score is added by one file and one row of a table, and the commands and pages know it."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.recipes.conftest import recipe


def test_a_score_is_a_file_and_a_row(copy):
    file, imported, row = recipe("Add a score")
    copy.write("src/unweave/metrics/order.py", file)
    copy.insert("src/unweave/metrics/suite.py", "from unweave.metrics.sampling", imported)
    copy.append("src/unweave/metrics/suite.py", "    DOWNSTREAM,", row)
    assert len(copy.edited) == 2
    rng = np.random.default_rng(0)
    factors = rng.integers((5, 7), size=(600, 2))
    codes = factors @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(600, 4))
    test = {"codes": codes[:200], "factors": factors[:200]}
    np.savez(copy.folder / "train.npz", codes=codes, factors=factors)
    np.savez(copy.folder / "test.npz", **test)
    copy.unweave("score", "train.npz", "--test", "test.npz", "--metrics", "mig,order", "--json", "scores.json")
    (run,) = json.loads((copy.folder / "scores.json").read_text())["runs"]
    assert [score["metric"] for score in run["scores"]] == ["mig", "order"]
    expected = np.abs(spearmanr(codes, factors).statistic)[:4, 4:]
    np.testing.assert_allclose(run["matrices"]["order"], expected, atol=1e-9)
    assert run["scores"][1]["value"] == pytest.approx(expected.max(axis=0).mean())


@pytest.mark.slow
def test_a_model_is_scored_with_it(copy):
    file, imported, row = recipe("Add a score")
    copy.write("src/unweave/metrics/order.py", file)
    copy.insert("src/unweave/metrics/suite.py", "from unweave.metrics.sampling", imported)
    copy.append("src/unweave/metrics/suite.py", "    DOWNSTREAM,", row)
    options = ("--train.images", "160", "--data.fixed", "floor_hue=0", "orientation=7", "wall_hue=3", "object_hue=2")
    copy.unweave("train", "tiny", "--run", "run", "--data.cache", "cache", *options)
    assert "order" in copy.unweave("evaluate", "run")
    results = json.loads((copy.folder / "run" / "results.json").read_text())
    assert 0 < results["other_scores"]["robust"]["order"] < 1
    copy.unweave("report", "run", "--steps", "2")
    assert "does one code order each factor" in (copy.folder / "run" / "report" / "report.html").read_text()
