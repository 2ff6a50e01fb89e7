"""The arithmetic of a table: spreads apart, the best step chosen as said, and who beats an untrained extractor."""

import json
from dataclasses import replace

import numpy as np
import pytest

from unweave.reproduce.job import losses
from unweave.reproduce.plan import Request, make_plan
from unweave.reproduce.table import as_json, as_markdown, collect

SCORES = "factor_vae", "dci_disentanglement", "dci_completeness", "dci_informativeness"


def scores(factor_vae, dci):
    return dict(zip(SCORES, (factor_vae, dci, 0.5, 1.0)))


def result(values, snapshots=(), untrained=0.1):
    """A job's result from (FactorVAE, DCI-D) by evaluation seed, and by snapshot."""
    last = [{"seed": seed, **scores(*pair)} for seed, pair in enumerate(values)]
    return {
        "images": 100,
        "losses": {"first": 1.0, "last": 0.5, "fell": True},
        "seconds": {"training": 1.0, "this call": 2.0},
        "snapshots": [{"images": images, **scores(*pair)} for images, pair in snapshots],
        "last": {"official": last, "robust": last},
        "untrained": scores(0.3, untrained),
    }


@pytest.fixture
def made():
    request = Request("table1", ("mpi3d",), (0, 1))
    jobs = make_plan(request)
    first = {"images": 9, "psnr": None, "ssim": None, "codes_used": None, "perplexity": None}
    results = {job.name: result([(0.5, 0.2), (0.5, 0.2)]) for job in jobs}
    results[jobs[0].name] = {**results[jobs[0].name], **first}
    results["mpi3d/dyga/seed0"] = result([(0.9, 0.60), (0.8, 0.50)], [(50, (0.95, 0.60))])
    results["mpi3d/dyga/seed1"] = result([(0.7, 0.40), (0.8, 0.50)], [(50, (0.60, 0.49))])
    return request, jobs, results


def test_spreads_over_trainings_and_evaluation_seeds_are_apart(made):
    row = collect(*made)["sets"]["mpi3d"]["rows"][0]
    values = np.array([[0.60, 0.50], [0.40, 0.50]])  # trainings, evaluation seeds
    found = row["official"]["dci_disentanglement"]
    assert found["mean"] == pytest.approx(values.mean())
    assert found["training_spread"] == pytest.approx(values.mean(1).std(ddof=1))
    assert found["evaluation_spread"] == pytest.approx(values.std(axis=1, ddof=1).mean())
    assert row["printed"]["dci_disentanglement"] == {"mean": 0.627, "spread": 0.002}


def test_the_best_step_has_the_highest_sum_under_the_first_evaluation_seed(made):
    best = collect(*made)["sets"]["mpi3d"]["rows"][0]["best_step"]
    assert best["images"] == [50, 100]  # .95 + .60 against .9 + .6; .60 + .49 against .7 + .4
    assert best["scores"]["factor_vae"]["mean"] == pytest.approx((0.95 + 0.7) / 2)
    assert best["of"] == 2


def test_beating_the_untrained_extractor_takes_more_than_the_spread(made):
    request, jobs, results = made

    def beats():
        return collect(request, jobs, results)["sets"]["mpi3d"]["rows"][0]["beats_untrained"]

    assert beats() is True  # .5 against .1, spread over trainings .07
    for seed in (0, 1):
        results[f"mpi3d/dyga/seed{seed}"]["untrained"] = scores(0.3, 0.44)
    assert beats() is False
    one = replace(request, seeds=(0,))
    assert collect(one, make_plan(one), results)["sets"]["mpi3d"]["rows"][0]["beats_untrained"] is None


def test_markdown_has_our_rows_then_those_that_are_printed_only(made):
    table = collect(*made)
    text = as_markdown(json.loads(as_json(table)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "| DyGA and Skip Dropout, corrected anchors | 0.930 ± 0.004 | 0.800 (± 0.071, ± 0.071)" in text
    assert "| DisDiff-VQ (printed only) | 0.617 ± 0.070 | - | - | 0.337 ± 0.057 | - | - |" in rows
    assert "| FDAE (printed only) | - | - | - | - | - | - |" in rows
    assert "yes, in all 7 trainings" in text
    table["losses"]["mpi3d/encdiff/seed1"]["fell"] = False
    assert "no, not in mpi3d/encdiff/seed1" in as_markdown(table)


def test_losses_are_compared_by_tenths_of_the_steps():
    """However the steps are spread over the lines of the record, as they are after a cut."""
    steps = [*np.linspace(2, 1, 30), *np.linspace(1, 0.4, 30)]
    whole = losses([{"per_step": {"loss": steps}}])
    parts = losses([{"per_step": {"loss": steps[:7]}}, {"per_step": {"loss": steps[7:]}}])
    assert whole == parts
    assert whole["first"] == pytest.approx(np.mean(steps[:6]))
    assert whole["last"] == pytest.approx(np.mean(steps[-6:]))
    assert whole["fell"]
    assert not losses([{"per_step": {"loss": steps[::-1]}}])["fell"]
