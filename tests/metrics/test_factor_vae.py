"""FactorVAE score: equal to the reference bit by bit, and right where the reference is not."""

import numpy as np
import pytest

from tests.metrics.metric_cases import EXPECTED, NAMES, SIZES, grid_codes, grid_factors
from unweave.errors import UserError
from unweave.metrics import cell_index, factor_vae_score, factor_vae_score_rows, sample_rows
from unweave.metrics.sampling import row_interventions

SMALL = (5, 3, 4)
COUNTS = {"num_variance": 500, "num_train": 300, "num_eval": 200, "batch_size": 16}
QUICK = {"protocol": "official", **COUNTS}


def small_codes(seed=0, noise=0.5):
    """Mixed codes over the small grid, one of them a copy and one almost constant."""
    rng = np.random.default_rng(seed)
    factors = grid_factors(SMALL)
    codes = factors @ rng.normal(size=(3, 4)) + noise * rng.normal(size=(60, 4))
    return np.concatenate([codes, codes[:, :1], 0.01 * codes[:, 1:2]], axis=1)


def reference_votes(codes, sizes, *, seed, num_variance, num_train, num_eval, batch_size):
    """The protocol written vote by vote on a RandomState; votes (2, F, D)."""
    rng = np.random.RandomState(seed)

    def draw(num):
        return np.stack([rng.randint(size, size=num) for size in sizes], axis=1)

    variance = codes[np.ravel_multi_index(tuple(draw(num_variance).T), sizes)].var(axis=0, ddof=1)
    active = np.flatnonzero(np.sqrt(variance) >= 0.05)
    votes = np.zeros((2, len(sizes), codes.shape[1]), int)
    for phase, num in enumerate((num_train, num_eval)):
        for _ in range(num):
            fixed = rng.randint(len(sizes))
            factors = draw(batch_size)
            factors[:, fixed] = factors[0, fixed]
            local = codes[np.ravel_multi_index(tuple(factors.T), sizes)].var(axis=0, ddof=1)
            votes[phase, fixed, active[np.argmin(local[active] / variance[active])]] += 1
    return votes


@pytest.mark.parametrize("name", NAMES)
def test_golden_cases_exactly(name):
    result = factor_vae_score(
        grid_codes(name), SIZES, protocol="official", num_variance=5000, num_train=2000, num_eval=1000
    )
    assert result.score_train == EXPECTED[name]["factor_vae"]["train_accuracy"]
    assert result.score == EXPECTED[name]["factor_vae"]["eval_accuracy"]
    assert result.active.sum() == (6 if name == "dead" else result.active.size)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_vote_is_the_reference_vote(seed):
    codes = small_codes(seed)
    result = factor_vae_score(codes, SMALL, seed=seed, **QUICK)
    votes = reference_votes(codes, SMALL, seed=seed, **COUNTS)
    np.testing.assert_array_equal(result.votes_train, votes[0])
    np.testing.assert_array_equal(result.votes_eval, votes[1])
    majority = votes[0].argmax(axis=0)
    assert result.score == pytest.approx(votes[1][majority, np.arange(6)].sum() / 200)
    assert result.active.tolist() == [True] * 5 + [False]
    assert "code 5 never voted" in result.notes[0]


def test_order_and_sign_of_codes_do_not_matter():
    codes = small_codes()[:, :4]
    score = factor_vae_score(codes, SMALL, **QUICK).score
    assert factor_vae_score(-codes[:, [2, 0, 3, 1]], SMALL, **QUICK).score == score
    assert factor_vae_score(codes * [2, 8, 4, 16], SMALL, **QUICK).score == score


def test_noise_scores_the_chance_level():
    codes = np.random.default_rng(0).normal(size=(np.prod(SIZES), 8))
    result = factor_vae_score(codes, SIZES)
    assert result.chance == pytest.approx(1 / 6)
    assert result.score == pytest.approx(1 / 6, abs=0.03)


def test_codes_too_small_to_vote_score_zero_with_a_note():
    result = factor_vae_score(0.01 * small_codes(), SMALL, **QUICK)
    assert result.score == 0
    assert not result.active.any()
    assert result.votes_train.sum() == 0
    assert "every code" in result.notes[0]


def test_constant_code_never_votes_even_without_pruning():
    codes = np.concatenate([np.full((60, 1), 0.3), small_codes()], axis=1)
    result = factor_vae_score(codes, SMALL, prune=0, **QUICK)
    assert not result.active[0]
    assert result.active[1:].all()
    assert result.score == factor_vae_score(codes[:, 1:], SMALL, prune=0, **QUICK).score


def test_factor_with_one_value_is_dropped_and_named():
    codes = small_codes()
    frozen = factor_vae_score(codes, (5, 1, 3, 4), **QUICK)
    assert frozen.score == factor_vae_score(codes, SMALL, **QUICK).score
    assert frozen.dropped_factors == (1,)
    assert frozen.votes_train.shape == (4, 6)
    assert frozen.votes_train[1].sum() == 0
    assert frozen.chance == pytest.approx(1 / 3)
    assert any("factor 1" in note for note in frozen.notes)


def test_one_factor_always_scores_one_and_says_so():
    result = factor_vae_score(np.random.default_rng(0).normal(size=(9, 2)), (9,), **QUICK)
    assert result.score == result.chance == 1
    assert any("one factor" in note for note in result.notes)


@pytest.mark.parametrize(
    ("codes", "sizes", "options", "message"),
    [
        (np.where(np.arange(180).reshape(60, 3) == 7, np.nan, 1.0), SMALL, {}, r"codes column 1 .* in 1 of 60 rows"),
        (np.full((60, 2), 1e39), SMALL, {}, "codes column 0"),
        (np.ones((59, 3)), SMALL, {}, r"59 rows.*\[5, 3, 4\] has 60 cells"),
        (np.ones(60), SMALL, {}, r"shape \(60,\)"),
        (np.ones((60, 0)), SMALL, {}, r"shape \(60, 0\)"),
        (np.ones((1, 3)), (1, 1), {}, "two values"),
        (np.ones((0, 3)), (), {}, r"shape \(0, 3\)"),
        (np.full((60, 2), "a"), SMALL, {}, "codes has dtype <U1"),
        (np.ones((60, 2)), SMALL, {"num_eval": 0}, "num_eval is 0"),
        (np.ones((60, 2)), SMALL, {"batch_size": 1}, "batch_size is 1"),
    ],
)
def test_bad_input_is_named(codes, sizes, options, message):
    with pytest.raises(UserError, match=message):
        factor_vae_score(codes, sizes, **options)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_robust_does_not_depend_on_the_scale(scale):
    options = {**QUICK, "protocol": "robust"}
    result = factor_vae_score(scale * small_codes(), SMALL, **options)
    assert result.score == factor_vae_score(small_codes(), SMALL, **options).score
    assert result.active.all()
    assert result.notes == ()
    assert result.adjusted == pytest.approx((result.score - 1 / 3) / (2 / 3))


@pytest.mark.parametrize("name", ["rotated", "noisy"])
def test_rows_alone_score_about_what_the_reference_did(name):
    """The reference's own votes from rows are other draws: three seeds of it span the expectation."""
    train, _ = sample_rows(SIZES, 5_000, 0)
    codes = grid_codes(name)[cell_index(train, SIZES)]
    expected = EXPECTED[name]["factor_vae_rows"]["eval_accuracy"]
    found = [
        factor_vae_score_rows(codes, train, protocol="official", seed=seed, num_train=2_000, num_eval=1_000).score
        for seed in range(3)
    ]
    assert np.mean(found) == pytest.approx(np.mean(expected), abs=0.03)


def test_row_votes_share_the_fixed_value():
    labels = np.random.default_rng(0).integers(3, size=(50, 2))
    for factors, rows in row_interventions(np.random.RandomState(0), labels, 700, 16):
        held = labels[rows, factors[:, None]]
        assert (held == held[:, :1]).all()
        assert len(np.unique(rows)) > 40
