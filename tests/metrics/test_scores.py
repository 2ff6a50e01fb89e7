"""The field's other scores: equal to the reference on the golden cases, to independent code elsewhere, and robust."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_selection import mutual_info_classif
from sklearn.metrics import mutual_info_score, roc_auc_score

from tests.metrics.metric_cases import EXPECTED, NAMES, SIZES, grid_codes, grid_factors
from unweave.errors import UserError
from unweave.metrics import (
    beta_vae_score,
    cell_index,
    dci,
    downstream,
    downstream_rows,
    explicitness,
    factor_vae_score,
    infomec,
    irs,
    mig,
    modularity,
    sample_rows,
    sap,
    sap_continuous,
    tad,
    udr,
)
from unweave.metrics.explicitness import area
from unweave.metrics.information import binned, mutual_information, neighbour_information
from unweave.metrics.inputs import as_labels

TAD_CASE = np.load(Path(__file__).parents[1] / "fixtures" / "metrics_tad.npz", allow_pickle=False)


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    """Reference values, codes and factors of the rows that the reference draws: 5,000 to train, 2,500 to test."""
    train, test = sample_rows(SIZES, 5_000, 2_500)
    grid = grid_codes(request.param)
    return EXPECTED[request.param], grid[cell_index(train, SIZES)], train, grid[cell_index(test, SIZES)], test


def test_mig_and_its_information(case):
    expected, codes, factors, _, _ = case
    found = mig(codes, factors)
    np.testing.assert_allclose(found.mutual_information, expected["mig"]["mi"], rtol=0, atol=1e-9)
    assert found.score == pytest.approx(expected["mig"]["discrete_mig"], abs=1e-9)


def test_modularity_and_explicitness(case):
    expected, codes, factors, codes_test, factors_test = case
    expected = expected["modularity"]
    assert modularity(codes, factors, protocol="official").score == pytest.approx(
        expected["modularity_score"], abs=1e-9
    )
    found = explicitness(codes, factors, codes_test, factors_test)
    assert found.score == pytest.approx(expected["explicitness_score_test"], abs=5e-5)
    assert found.score_train == pytest.approx(expected["explicitness_score_train"], abs=5e-5)


def test_sap(case):
    expected, codes, factors, codes_test, factors_test = case
    found = sap(codes, factors, codes_test, factors_test, protocol="official")
    np.testing.assert_allclose(found.matrix, expected["sap"]["matrix"], rtol=0, atol=0.002)
    assert found.score == pytest.approx(expected["sap"]["SAP_score"], abs=5e-4)
    found = sap_continuous(codes, factors)
    np.testing.assert_allclose(found.matrix, expected["sap_cont"]["matrix"], rtol=0, atol=1e-9)
    assert found.score == pytest.approx(expected["sap_cont"]["SAP_score"], abs=1e-9)


def test_infomec(case):
    expected, codes, factors, _, _ = case
    expected = expected["infomec"]
    found = infomec(codes, factors, protocol="official")
    np.testing.assert_allclose(found.nmi, expected["nmi"], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.active, np.array(expected["active_latents"], bool))
    assert found.modularity == pytest.approx(expected["infom"], abs=1e-9)
    assert found.compactness == pytest.approx(expected["infoc"], abs=1e-9)
    assert found.explicitness == pytest.approx(expected["infoe"], abs=1e-5)


@pytest.mark.parametrize("name", ["noisy", "rotated"])
def test_beta_vae(name):
    expected = EXPECTED[name]["beta_vae_grid"]
    found = beta_vae_score(grid_codes(name), SIZES, protocol="official", num_train=1_000, num_eval=500)
    assert found.score_train == pytest.approx(expected["train_accuracy"], abs=1e-9)
    assert found.score == pytest.approx(expected["eval_accuracy"], abs=1e-9)


def test_tad():
    expected, codes, attributes = EXPECTED["tad"], TAD_CASE["codes"], TAD_CASE["attrs"]
    found = tad(codes, attributes, method="grid")
    np.testing.assert_allclose(found.auroc, expected["auroc"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.shared, expected["ent_red_prop"], rtol=0, atol=1e-6)
    assert found.score == pytest.approx(expected["tad"], abs=1e-6)
    assert found.captured.sum() == expected["captured"]
    exact = tad(codes, 2 * attributes.astype(int) - 1)
    np.testing.assert_allclose(exact.auroc, tad(np.sinh(codes.astype(float)) ** 3, attributes).auroc, atol=1e-12)
    for attribute, code in [(0, 0), (3, 7), (39, 19)]:
        oracle = roc_auc_score(attributes[:, attribute], codes[:, code])
        assert exact.auroc[attribute, code] == pytest.approx(max(oracle, 1 - oracle), abs=1e-12)


def small_case(seed=0, num=600, sizes=(4, 3, 5)):
    rng = np.random.default_rng(seed)
    factors = np.stack([rng.integers(size, size=num) for size in sizes], axis=1)
    codes = np.concatenate([factors + 0.3 * rng.normal(size=factors.shape), rng.normal(size=(num, 2))], axis=1)
    return codes, factors


def test_information_equals_scikit_learn():
    codes, factors = small_case()
    bins, labels = binned(codes), as_labels(factors)
    found = mutual_information(bins, labels)
    for code in range(codes.shape[1]):
        for factor in range(factors.shape[1]):
            assert found[code, factor] == pytest.approx(mutual_info_score(bins[:, code], labels[:, factor]), abs=1e-12)
    found = neighbour_information(codes, labels, np.random.RandomState(3))
    rng = np.random.RandomState(3)
    for factor in range(factors.shape[1]):
        for code in range(codes.shape[1]):
            oracle = mutual_info_classif(
                codes[:, code : code + 1], labels[:, factor], discrete_features=False, n_neighbors=10, random_state=rng
            )
            assert found[factor, code] == pytest.approx(oracle[0], abs=1e-12)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.integers(0, 2**31))
def test_area_equals_scikit_learn(scores, seed):
    truth = np.random.default_rng(seed).random(len(scores)) < 0.5
    if truth.all() or not truth.any():
        assert np.isnan(area(np.array(scores, float), truth))
    else:
        assert area(np.array(scores, float), truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_infomec_of_quantised_codes():
    """Codes that rename a factor's values hold all of it, whatever the names."""
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(5, size=3_000), rng.integers(4, size=3_000)], axis=1)
    codes = np.c_[np.array([30, -2, 7, 0, 11])[factors[:, 0]], np.array([3, 1, 8, 2])[factors[:, 1]]]
    for protocol in ("official", "robust"):
        found = infomec(codes, factors, protocol=protocol, discrete=True)
        for code in range(2):
            for factor in range(2):
                oracle = mutual_info_score(codes[:, code], factors[:, factor])
                entropy = mutual_info_score(factors[:, factor], factors[:, factor])
                assert found.nmi[factor, code] == pytest.approx(oracle / entropy, abs=1e-9)
        assert found.modularity > 0.99
        assert found.compactness > 0.99
        assert found.explicitness > 0.99
    rare = np.c_[codes, np.where(np.arange(3_000) % 10 == 0, 1, 0)]
    pruned = {prune: infomec(rare, factors, protocol="official", prune=prune, discrete=True) for prune in RULES}
    assert pruned["iqr10"].active.tolist() == [True, True, False]
    assert pruned["range20"].active.tolist() == [True, True, True]


RULES = ("iqr10", "range20")


def test_irs_knows_perfect_and_useless_codes():
    """A code that is its factor does not move while it is held; one that is another factor moves as if nothing were."""
    factors = grid_factors((5, 4, 6))
    found = irs(factors.astype(float), factors, protocol="official")
    np.testing.assert_allclose(np.diag(found.matrix), 1)
    assert found.score == pytest.approx(1)
    np.testing.assert_allclose(found.matrix[~np.eye(3, dtype=bool)], 0, atol=1e-12)
    np.testing.assert_allclose(found.weights, np.array([2, 1.5, 2.5]) / 6)
    noise = np.random.default_rng(0).uniform(-1, 1, size=(20_000, 3))
    labels = np.random.default_rng(1).integers(3, size=(20_000, 2))
    assert irs(noise, labels).score < 0.03


def test_udr_knows_agreement():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2_000, 4))
    permuted = [truth[:, rng.permutation(4)] * rng.choice([-1, 1], 4) for _ in range(3)]
    rotated = truth @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    found = udr([*permuted, rotated])
    assert (found.scores[:3] > 0.9).all()
    assert found.scores[3] < 0.6
    np.testing.assert_allclose(found.pairs, found.pairs.T)
    # two models, two codes each, by hand: R = [[1, r], [r, 1]] gives 1 / (1 + r)
    pair = truth[:, :2] + np.array([[0.0, 0.0]])
    r = abs(np.corrcoef(np.argsort(np.argsort(pair, axis=0), axis=0).T)[0, 1])
    assert udr([pair, pair]).pairs[0, 1] == pytest.approx(1 / (1 + r), abs=1e-9)
    with_dead = udr([np.c_[pair, np.full(2_000, 3.0)], pair])
    assert with_dead.pairs[0, 1] == pytest.approx(1 / (1 + r), abs=1e-9)
    assert "model 0: code 2" in with_dead.notes[0]


def test_udr_by_lasso_is_soft_thresholding_of_uncorrelated_codes():
    """The Lasso of codes that are uncorrelated exactly has a closed form: correlations less the penalty."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(500, 3))
    codes = np.linalg.qr(table - table.mean(axis=0))[0] * np.sqrt(500)  # mean 0, covariance the identity
    turn = np.array([[0.8, 0.6, 0.0], [-0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    found = udr([codes, 3 + 2 * codes[:, ::-1], codes @ turn], relation="lasso")
    assert found.pairs[0, 1] == pytest.approx(0.9, abs=1e-6)  # 0.9^2 / 0.9
    turned = (4 * 0.7**2 / 1.2 + 2 * 0.9) / 6  # 0.8 and 0.6 less 0.1
    assert found.pairs[0, 2] == pytest.approx(turned, abs=1e-6)
    np.testing.assert_allclose(found.pairs, found.pairs.T, atol=1e-6)
    np.testing.assert_allclose(found.scores, np.nanmedian(found.pairs, axis=1))
    dead = np.zeros((500, 2))
    assert udr([codes, dead], relation="lasso").pairs[0, 1] == 0


def test_downstream_is_dci_at_its_size():
    sizes = (4, 3, 5)
    factors = grid_factors(sizes)
    codes = factors + 0.3 * np.random.default_rng(0).normal(size=factors.shape)
    found = downstream(codes, sizes, sizes=(400, 40), num_test=200)
    train, test = sample_rows(sizes, 400, 200)
    trees = dci(codes[cell_index(train, sizes)], train, codes[cell_index(test, sizes)], test)
    assert found.accuracy[0] == pytest.approx(trees.informativeness_test, abs=1e-12)
    np.testing.assert_allclose(found.efficiency, found.accuracy / found.accuracy[0])
    assert found.accuracy[1] < found.accuracy[0]
    shared = downstream(codes, sizes, sizes=(400, 40), num_test=200, largest=trees.accuracy_test)
    np.testing.assert_array_equal(shared.accuracy_per_factor, found.accuracy_per_factor)
    with pytest.raises(UserError, match=r"largest has shape \(2,\): give one accuracy for each of 3"):
        downstream(codes, sizes, sizes=(400, 40), largest=[1.0, 1.0])


def test_downstream_of_rows_is_dci_of_its_first_rows():
    factors = np.tile(grid_factors((4, 3, 5)), (10, 1))
    rng = np.random.default_rng(0)
    rng.shuffle(factors)
    codes = factors + 0.3 * rng.normal(size=factors.shape)
    rows = codes[:400], factors[:400], codes[400:], factors[400:]
    found = downstream_rows(*rows, sizes=(10_000, 60))
    assert found.sizes == (400, 60)
    assert found.notes == ("400 training rows, where 10000 were asked for",)
    for row, size in enumerate(found.sizes):
        trees = dci(codes[:size], factors[:size], codes[400:], factors[400:])
        assert found.accuracy[row] == pytest.approx(trees.informativeness_test, abs=1e-12)


def rows_of_all_scores(codes, factors):
    """Every score that takes rows, as named numbers."""
    half = len(codes) // 2
    pair = codes[:half], factors[:half], codes[half:], factors[half:]
    info = infomec(codes, factors)
    return {
        "mig": mig(codes, factors),
        "modularity": modularity(codes, factors),
        "explicitness": explicitness(*pair),
        "sap": sap(*pair),
        "sap_continuous": sap_continuous(codes, factors),
        "infom": info._replace(modularity=info.modularity)._asdict() | {"score": info.modularity},
        "infoc": info._asdict() | {"score": info.compactness},
        "infoe": info._asdict() | {"score": info.explicitness},
        "irs": irs(codes, factors),
    }


def scores_of(results):
    return {name: found["score"] if isinstance(found, dict) else found.score for name, found in results.items()}


def notes_of(found):
    return found["notes"] if isinstance(found, dict) else found.notes


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31))
def test_order_sign_and_scale_of_codes_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    codes, factors = small_case(seed)
    changed = (codes * rng.choice([-1, 1], 5) * 10.0 ** rng.integers(-3, 3, 5))[:, rng.permutation(5)]
    before, after = scores_of(rows_of_all_scores(codes, factors)), scores_of(rows_of_all_scores(changed, factors))
    for name, value in before.items():
        assert 0 <= value <= 1
        # equal-width bins are half open: a flip moves values that lie on an edge
        assert after[name] == pytest.approx(value, abs=0.03 if name in ("mig", "modularity") else 0.01), name


def test_healthy_input_comes_back_unflagged():
    codes, factors = small_case()
    for name, found in rows_of_all_scores(codes[:, :3], factors).items():
        assert notes_of(found) == (), name


BROKEN = {
    "constant code": lambda codes, factors: (np.c_[codes, np.full(len(codes), 0.3)], factors),
    "only constant codes": lambda codes, factors: (np.full_like(codes, 0.3), factors),
    "constant factor": lambda codes, factors: (codes, np.c_[factors, np.zeros(len(factors), int)]),
    "one code": lambda codes, factors: (codes[:, :1], factors),
    "one factor": lambda codes, factors: (codes, factors[:, :1]),
    "few rows": lambda codes, factors: (codes[:16], factors[:16]),
    "strings": lambda codes, factors: (codes, np.array(["red", "green", "blue", "grey", "white"])[factors]),
    "minus one and one": lambda codes, factors: (codes, np.where(factors > 1, 1, -1)),
    "rare class": lambda codes, factors: (codes, np.where(np.arange(len(factors))[:, None] == 0, 9, factors)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_hard_input_gives_a_number_or_says_why_not(name):
    codes, factors = BROKEN[name](*small_case())
    if name == "strings":
        with pytest.raises(UserError, match="factors"):
            sap_continuous(codes, factors)
        plain = np.unique(factors, return_inverse=True)[1].reshape(factors.shape)
        found = {
            "mig": (mig(codes, factors), mig(codes, plain)),
            "infomec": (infomec(codes, factors), infomec(codes, plain)),
            "irs": (irs(codes, factors), irs(codes, plain)),
        }
        for ours, theirs in found.values():
            assert ours[0] == theirs[0]
        return
    for score, found in rows_of_all_scores(codes, factors).items():
        value = found["score"] if isinstance(found, dict) else found.score
        if np.isnan(value):
            assert notes_of(found), score
        else:
            assert -1e-9 <= value <= 1 + 1e-9, score


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c, f: mig(np.where(c > 2, np.nan, c), f), "codes column"),
        (lambda c, f: mig(c, f[:-1]), "factors has 599 rows"),
        (lambda c, f: mig(c, f + 0.5), "factors column 0 has values that are no whole numbers"),
        (lambda c, f: mig(c, np.zeros_like(f)), "every factor has one value"),
        (lambda c, f: mig(c, f, num_bins=1), "num_bins is 1"),
        (lambda c, f: modularity(c, f, protocol="best"), "protocol is 'best'"),
        (lambda c, f: infomec(c, f, prune="most"), "prune is 'most'"),
        (lambda c, f: tad(c, f), "attributes column 0 is not binary"),
        (lambda c, f: tad(c, f > 9), "every attribute has one value"),
        (lambda c, f: tad(c, f > 1, method="fast"), "method is 'fast'"),
        (lambda c, f: udr([c]), "1 models"),
        (lambda c, f: udr([c, c[:-1]]), r"codes of \[600, 599\] images"),
        (lambda c, f: beta_vae_score(c[:60], (4, 3, 6)), "has 72 cells"),
        (lambda c, f: downstream(c[:60], (4, 3, 5), sizes=(1,)), r"sizes is \[1\]"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(UserError, match=words):
        call(*small_case())


def test_beta_vae_ends():
    sizes = (4, 3, 5)
    options = {"num_train": 200, "num_eval": 100, "batch_size": 16}
    factors = grid_factors(sizes).astype(float)
    perfect = beta_vae_score(factors, sizes, **options)
    assert perfect.score == 1
    assert perfect.adjusted == 1
    assert beta_vae_score(1e-4 * factors, sizes, **options).score == 1  # robust: the scale does not matter
    frozen = beta_vae_score(factors, (4, 1, 3, 5), **options)
    assert frozen.score == 1
    assert frozen.dropped_factors == (1,)
    noise = beta_vae_score(np.random.default_rng(0).normal(size=(60, 3)), sizes, **options)
    assert noise.adjusted < 0.5
    alone = beta_vae_score(np.arange(4.0)[:, None], (4,), **options)
    assert np.isnan(alone.score)
    assert "one factor varies" in alone.notes[-1]


def test_a_redundant_grid_scores_agree_with_factor_vae():
    """The same codes are perfect for both interventional scores."""
    factors = grid_factors((4, 3, 5)).astype(float)
    options = {"num_train": 200, "num_eval": 100, "batch_size": 16}
    assert factor_vae_score(factors, (4, 3, 5), num_variance=200, **options).score == 1
