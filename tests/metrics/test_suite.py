"""The suite's numbers are those of its parts, from grids and from rows, with vectors, words and continuous factors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier

from tests.metrics.metric_cases import grid_factors
from unweave.errors import UserError
from unweave.metrics import boosting, cell_index, dci, downstream_rows, factor_vae_score, mig, sample_rows, sap, tad
from unweave.metrics.inputs import classes, one_number_per_unit
from unweave.metrics.suite import METRICS, intervals, score_grid, score_rows, summarise

SIZES = (4, 3, 5)


def grid_case(seed=0):
    factors = grid_factors(SIZES)
    rng = np.random.default_rng(seed)
    return np.c_[factors + 0.3 * rng.normal(size=factors.shape), rng.normal(size=len(factors))]


def by_name(result):
    return {(score.metric, score.name): score.value for score in result.scores}


def test_official_numbers_are_those_of_the_scores_themselves():
    codes = grid_case()
    found = by_name(score_grid(codes, SIZES, protocol="official", metrics=("factor_vae", "dci", "mig", "sap")))
    train, test = sample_rows(SIZES)
    rows = codes[cell_index(train, SIZES)], train, codes[cell_index(test, SIZES)], test
    assert found["factor_vae", "score"] == factor_vae_score(codes, SIZES, protocol="official").score
    assert found["dci", "disentanglement"] == pytest.approx(dci(*rows).disentanglement, abs=1e-12)
    assert found["mig", "score"] == mig(rows[0], train).score
    assert found["sap", "score"] == sap(*rows, protocol="official").score


def test_robust_suite_does_not_depend_on_scale():
    codes = grid_case()
    metrics = [name for name in METRICS if name not in ("beta_vae", "dci")]
    one, other = (by_name(score_grid(codes * scale, SIZES, metrics=metrics)) for scale in (1.0, 1e-4))
    for name, value in one.items():
        assert other[name] == pytest.approx(value, abs=1e-3), name


def test_rows_and_grid_agree_about_the_same_codes():
    codes, factors = grid_case(), grid_factors(SIZES)
    many = np.random.default_rng(0).integers(len(codes), size=6_000)
    metrics = ("factor_vae", "mig", "sap", "explicitness", "modularity")
    grid = by_name(score_grid(codes, SIZES, metrics=metrics))
    rows = by_name(score_rows(codes[many], factors[many], metrics=metrics))
    for name, value in grid.items():
        assert rows[name] == pytest.approx(value, abs=0.06 if name[0] == "sap" else 0.03), name  # fewer test rows


def test_vectors_become_their_first_component():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(300, 4, 1)) * rng.normal(size=(1, 4, 6)) + 0.1 * rng.normal(size=(300, 4, 6))
    found = one_number_per_unit(tokens)
    for unit in range(4):
        oracle = PCA(1, svd_solver="full").fit_transform(tokens[:, unit])[:, 0]
        sign = np.sign(oracle @ found[:, unit])
        np.testing.assert_allclose(found[:, unit] * sign, oracle, atol=1e-9)
    np.testing.assert_array_equal(one_number_per_unit(tokens[:, :, 0]), tokens[:, :, 0])


def test_flat_vectors_are_codes_each():
    rng = np.random.default_rng(0)
    tokens, factors = rng.normal(size=(300, 3, 2)), rng.integers(4, size=(300, 2))
    tokens[:, 1, 0] += 2 * factors[:, 0]
    found = score_rows(tokens, factors, metrics=("mig", "sap"), vectors="flat")
    assert found.matrices["mig"].shape == (6, 2)
    assert by_name(found) == by_name(score_rows(tokens.reshape(300, 6), factors, metrics=("mig", "sap")))


def test_held_out_rows_are_tested_on_and_nothing_else_is():
    """The split of scikit-learn's own boosting: trained on the first rows, tested on the others."""
    rng = np.random.default_rng(0)
    factors = rng.integers(3, size=(400, 1))
    codes = factors + 0.4 * rng.normal(size=(400, 2))
    codes[300:, 0] += 0.8  # the held-out images differ
    held_out = np.arange(400) >= 300
    found = by_name(score_rows(codes, factors, metrics=("dci",), test=held_out))["dci", "informativeness"]
    oracle = GradientBoostingClassifier(random_state=0).fit(codes[:300], factors[:300, 0])
    assert found == pytest.approx(oracle.score(codes[300:], factors[300:, 0]), abs=0.03)
    assert found < by_name(score_rows(codes, factors, metrics=("dci",)))["dci", "informativeness"] - 0.03


def test_continuous_factors_are_sorted_and_said():
    rng = np.random.default_rng(0)
    factors = np.c_[rng.integers(3, size=1_000), rng.normal(size=1_000)]
    labels, notes = classes(factors, 1_000)
    assert np.array_equal(labels[:, 0], factors[:, 0])
    assert np.unique(labels[:, 1], return_counts=True)[1].tolist() == [100] * 10
    assert (np.diff(labels[np.argsort(factors[:, 1]), 1]) >= 0).all()
    assert notes == ("factor 1 continuous: sorted into 10 classes of equal size",)
    result = score_rows(factors + 0.01 * rng.normal(size=factors.shape), factors, metrics=("mig",))
    assert result.scores[0].value > 0.8
    assert result.notes[0] == notes[0]


def test_scores_that_are_asked_for_by_name():
    rng = np.random.default_rng(0)
    attributes = rng.integers(2, size=(900, 3))
    codes = attributes + 0.4 * rng.normal(size=(900, 3))
    result = score_rows(codes, attributes, metrics=("tad", "downstream"), protocol="official")
    found = by_name(result)
    order = np.random.RandomState(0).permutation(900)
    train, test = order[300:], order[:300]
    oracle = tad(codes[train], attributes[train], method="grid")
    assert found["tad", "score"] == oracle.score
    assert found["tad", "captured"] == 3
    np.testing.assert_array_equal(result.matrices["tad"], oracle.auroc.T)
    trees = downstream_rows(codes[train], attributes[train], codes[test], attributes[test])
    assert found["downstream", "accuracy with 100 labels"] == trees.accuracy[2]
    assert math.isnan(found["downstream", "accuracy with 10000 labels"])  # 600 were there, which a note says
    assert "downstream: 600 training rows, where 10000 were asked for" in result.notes
    assert {score.metric for score in score_rows(codes, attributes, metrics=METRICS[:1]).scores} == {"factor_vae"}
    assert not {"tad", "downstream"} & set(METRICS)


def test_trees_that_scores_share_are_grown_once(monkeypatch):
    grown, fit = [], boosting.fit
    monkeypatch.setattr(
        boosting, "fit", lambda codes, *more, **options: grown.append(len(codes)) or fit(codes, *more, **options)
    )
    together = by_name(score_grid(grid_case(), SIZES, metrics=("downstream", "dci")))
    assert grown == [10_000, 1_000, 100]
    assert together["downstream", "accuracy with 10000 labels"] == together["dci", "informativeness"]


def test_mean_and_spread_over_seeds():
    results = [score_grid(grid_case(), SIZES, metrics=("factor_vae",), seed=seed) for seed in range(3)]
    ((score, spread),) = summarise(results)
    values = [result.scores[0].value for result in results]
    assert score.value == pytest.approx(np.mean(values))
    assert spread == pytest.approx(np.std(values, ddof=1))
    assert math.isnan(summarise(results[:1])[0][1])


def test_intervals_are_as_wide_as_other_samples_differ():
    """The bootstrap's spread against that of fresh samples of the same population."""
    metrics = ("mig", "explicitness")

    def sample(seed):
        rng = np.random.default_rng(seed)
        factors = np.stack([rng.integers(size, size=400) for size in SIZES], axis=1)
        return factors + rng.normal(size=factors.shape), factors

    fresh = [by_name(score_rows(*sample(seed), metrics=metrics)) for seed in range(40)]
    found = intervals(*sample(100), metrics=metrics, num=60, level=0.68)
    assert intervals(*sample(100), metrics=metrics, num=60, level=0.68) == found
    for key, (low, high) in found.items():
        spread = np.std([values[key] for values in fresh], ddof=1)
        assert 0.5 < (high - low) / 2 / spread < 2, key
    wide = intervals(*sample(100), metrics=metrics, num=60, level=0.95)
    assert all(wide[key][0] <= low < high <= wide[key][1] for key, (low, high) in found.items())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["constant", "copy", "tiny", "binary"]))
def test_numbers_are_in_range_or_flagged(seed, extra):
    rng = np.random.default_rng(seed)
    num = int(rng.integers(20, 200))
    factors = np.stack([rng.integers(size, size=num) for size in (2, 3)], axis=1)
    codes = rng.normal(size=(num, 3)) + factors[:, :1]
    added = {
        "constant": np.full(num, 0.3),
        "copy": codes[:, 0],
        "tiny": 1e-9 * rng.normal(size=num),
        "binary": (rng.random(num) < 0.1).astype(float),
    }[extra]
    metrics = [name for name in METRICS if name != "beta_vae"]
    result = score_rows(np.c_[codes, added], factors, metrics=metrics)
    for score in result.scores:
        if math.isnan(score.value):
            assert any(note.startswith(score.metric) for note in result.notes), score
        else:
            assert -1e-9 <= score.value <= 1 + 1e-9, score
    binary = score_rows(np.c_[codes, added], factors[:, :1], metrics=("tad", "downstream"))
    for score in binary.scores:
        if math.isnan(score.value):
            assert any(note.startswith(score.metric) for note in binary.notes), score
        else:
            assert 0 <= score.value <= (1 if "efficiency" not in score.name else math.inf), score


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: score_grid(grid_case(), SIZES, metrics=("fid",)), r"metrics has \['fid'\]"),
        (lambda: score_grid(grid_case(), SIZES, metrics=()), "metrics is empty"),
        (lambda: score_grid(grid_case(), SIZES, protocol="fast"), "protocol is 'fast'"),
        (lambda: score_grid(grid_case(), (4, 3)), "the factor grid"),
        (lambda: intervals(grid_case(), grid_factors(SIZES), num=3), "num is 3"),
        (lambda: score_rows(grid_case()[:4], grid_factors(SIZES)[:4]), "at least 6"),
        (lambda: score_rows(grid_case(), np.full((60, 2), np.nan)), "factors column 0 is NaN"),
        (lambda: score_rows(grid_case(), grid_factors(SIZES), test=np.arange(5)), "test has shape"),
        (lambda: score_rows(grid_case(), grid_factors(SIZES), test=np.ones(60, bool)), "test names 60 of 60 rows"),
        (lambda: score_rows(grid_case(), grid_factors(SIZES), vectors="mean"), "vectors is 'mean'"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(UserError, match=words):
        call()
