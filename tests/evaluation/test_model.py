"""`results.json` holds the scores of the model's own scalars and every constant."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import unweave
from unweave.cli import main
from unweave.data import Rooms, open_dataset
from unweave.errors import UserError
from unweave.evaluation.model import evaluate, standardise
from unweave.metrics import cell_index, dci, downstream, factor_vae_score, sample_rows
from unweave.metrics.suite import score_grid
from unweave.models.pixels import normalise
from unweave.nn.encoder import FeatureExtractor


@pytest.fixture(scope="module")
def model(tiny_run):
    return unweave.load(tiny_run)


@pytest.fixture(scope="module")
def dataset(tiny):
    return open_dataset(tiny.data, 32, [].append)


@pytest.fixture(scope="module")
def results(tiny_run, tmp_path_factory):
    """What the command writes."""
    out = tmp_path_factory.mktemp("out")
    assert main(["evaluate", str(tiny_run), "--out", str(out), "--device", "cpu"]) == 0
    return json.loads((out / "results.json").read_text()), out


def scored_by_hand(scalars, sizes):
    codes = (scalars - scalars.mean(0)) / scalars.std(0)
    train, test = sample_rows(sizes)
    trees = dci(codes[cell_index(train, sizes)], train, codes[cell_index(test, sizes)], test)
    return factor_vae_score(codes, sizes, protocol="official").score, trees.disentanglement, trees.informativeness_test


def test_scores_are_those_of_the_scalars(results, model, dataset):
    found, _ = results
    scalars = model.encode(dataset.images(np.arange(len(dataset)))).scalars.astype(np.float64)
    votes, disentanglement, informativeness = scored_by_hand(scalars, dataset.factor_sizes)
    assert found["scores"]["factor_vae"] == pytest.approx(votes, abs=1e-3)
    assert found["scores"]["dci_disentanglement"] == pytest.approx(disentanglement, abs=2e-3)
    assert found["scores"]["dci_informativeness"] == pytest.approx(informativeness, abs=2e-3)


def test_the_untrained_extractor_is_a_fresh_one(results, model, dataset):
    found, _ = results
    torch.manual_seed(0)
    untrained = FeatureExtractor(model.config.encoder, 32).eval()
    with torch.no_grad():
        images = normalise(torch.from_numpy(dataset.images(np.arange(len(dataset)))))
        scalars = untrained.scalars(images).numpy().astype(np.float64)
    votes, disentanglement, _ = scored_by_hand(scalars, dataset.factor_sizes)
    assert found["untrained"]["factor_vae"] == pytest.approx(votes, abs=5e-3)
    assert found["untrained"]["dci_disentanglement"] == pytest.approx(disentanglement, abs=5e-3)
    assert found["untrained"]["importance"] != found["scores"]["importance"]


def test_fixed_factors_are_left_out_and_constants_written_down(results):
    found, _ = results
    assert found["data"]["factor_names"] == ["object_hue", "shape"]
    assert np.shape(found["scores"]["importance"]) == (3, 2)
    np.testing.assert_allclose(np.sum(found["scores"]["importance"], axis=0), 1, atol=1e-6)
    protocol = found["protocol"]
    assert protocol["dci"]["num_train"] == 10_000
    assert protocol["dci"]["num_test"] == 5_000
    assert protocol["dci"]["stages"] == 100
    assert {10_000, 5_000, 64} <= set(protocol["factor_vae"].values())
    assert found["history"]["images"] == 1_600


def test_standardised_codes():
    scalars = np.stack([np.arange(100.0), np.full(100, 7.0)], axis=1).astype(np.float32)
    codes = standardise(scalars)
    np.testing.assert_allclose([codes[:, 0].mean(), codes[:, 0].std()], [0, 1], atol=1e-12)
    assert (codes[:, 1] == 0).all()


def test_images_of_another_size_are_refused(model):
    with pytest.raises(UserError, match=r"rooms has images \(64, 64, 3\): this model takes \(32, 32, 3\)"):
        evaluate(model, Rooms(64), quiet=True)


def test_other_scores_are_the_suite_s(results, model, dataset):
    found, _ = results
    codes = standardise(model.scalars(dataset.images(np.arange(len(dataset)))))
    for protocol in ("official", "robust"):
        suite = score_grid(codes, dataset.factor_sizes, metrics=("mig", "sap"), protocol=protocol)
        assert found["other_scores"][protocol]["mig"] == pytest.approx(suite.scores[0].value, abs=5e-3)
        assert found["other_scores"][protocol]["sap"] == pytest.approx(suite.scores[1].value, abs=5e-3)
    assert "dci" not in found["other_scores"]["robust"]
    codes = standardise(model.scalars(dataset.images(np.arange(len(dataset)))))
    alone = downstream(codes, dataset.factor_sizes)
    assert found["downstream"]["labels"] == [10_000, 1_000, 100]
    np.testing.assert_allclose(found["downstream"]["accuracy"], alone.accuracy, atol=5e-3)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the cache folder has other places elsewhere")
def test_nothing_outside_the_cache_folder_is_touched(tmp_path):
    """Drawing loads matplotlib, which would write beside it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL"))}
    command = [sys.executable, "-m", "unweave", "traverse", "rooms-cpu", "--columns", "2", "--steps", "5"]
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(
        [*command, "--out", str(tmp_path / "out")], env={**kept, "HOME": str(home)}, check=True, capture_output=True
    )
    written = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    assert written
    assert all(path.parts[:2] == (".cache", "unweave") for path in written), written
