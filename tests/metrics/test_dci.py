"""DCI: the reference's values, closed forms, invariances, and what people feed it."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import entropy

from tests.metrics.metric_cases import EXPECTED, NAMES, SIZES, grid_codes
from unweave.errors import UserError
from unweave.metrics import cell_index, dci, sample_rows
from unweave.metrics.dci import completeness, disentanglement


def small_case(seed=0, num=400, noise=0.4):
    """Train and test rows of three factors; two clean codes, one mixed, one of noise."""
    rng = np.random.default_rng(seed)
    factors = np.stack([rng.integers(size, size=2 * num) for size in (4, 3, 2)], axis=1)
    mixing = np.array([[1, 0, 1, 0], [0, 2, -1, 0], [0, 0, 2, 0]])
    codes = factors @ mixing + noise * rng.normal(size=(2 * num, 4))
    return codes[:num], factors[:num], codes[num:], factors[num:]


@pytest.mark.parametrize("name", NAMES)
def test_golden_cases(name):
    train, test = sample_rows(SIZES, 5000, 2500)
    train = train[:2000]
    codes = grid_codes(name)
    result = dci(codes[cell_index(train, SIZES)], train, codes[cell_index(test, SIZES)], test)
    expected = EXPECTED[name]["dci"]
    assert result.disentanglement == pytest.approx(expected["disentanglement"], abs=0.005)
    assert result.completeness == pytest.approx(expected["completeness"], abs=0.005)
    assert result.informativeness_train == pytest.approx(expected["informativeness_train"], abs=0.01)
    assert result.informativeness_test == pytest.approx(expected["informativeness_test"], abs=0.01)
    np.testing.assert_allclose(result.importance, expected["importance"], atol=0.01)
    assert result.notes == ()
    assert result.dropped_factors == ()


def test_scores_of_importances_by_definition():
    importance = np.random.default_rng(0).random((5, 3)) ** 3
    importance /= importance.sum(axis=0)
    per_code = 1 - entropy(importance.T + 1e-11, base=3)
    per_factor = 1 - entropy(importance + 1e-11, base=5)
    assert disentanglement(importance) == pytest.approx(per_code @ importance.sum(axis=1) / importance.sum())
    assert completeness(importance) == pytest.approx(per_factor @ importance.sum(axis=0) / importance.sum())


def test_scores_of_importances_in_closed_form():
    assert disentanglement(np.eye(4)) == pytest.approx(1)
    assert completeness(np.eye(4)) == pytest.approx(1)
    assert disentanglement(np.full((4, 3), 0.25)) == pytest.approx(0)
    assert completeness(np.full((4, 3), 0.25)) == pytest.approx(0)
    split = np.array([[0.5, 0], [0.5, 0], [0, 0.5], [0, 0.5]])  # two codes per factor
    assert disentanglement(split) == pytest.approx(1)
    assert completeness(split) == pytest.approx(0.5)
    with_dead_code = np.vstack([split, [0, 0]])  # a dead code has no weight in D, but C counts it in its base
    assert disentanglement(with_dead_code) == pytest.approx(1)
    assert completeness(with_dead_code) == pytest.approx(1 - np.log(2) / np.log(5))
    assert disentanglement(np.zeros((4, 3))) == completeness(np.zeros((4, 3))) == 0


def test_noise_scores_near_nothing():
    rng = np.random.default_rng(0)
    factors = rng.integers(3, size=(1200, 3))
    result = dci(rng.normal(size=(600, 5)), factors[:600], rng.normal(size=(600, 5)), factors[600:])
    assert result.disentanglement < 0.02
    assert result.completeness < 0.02
    assert result.informativeness_test == pytest.approx(1 / 3, abs=0.05)


def test_order_sign_and_scale_of_codes_do_not_matter():
    train, factors, test, factors_test = small_case()
    base = dci(train, factors, test, factors_test)
    order, scale = [2, 0, 3, 1], np.array([-1, 100, -0.01, 3])
    other = dci(train[:, order] * scale, factors, test[:, order] * scale, factors_test)
    np.testing.assert_allclose(other.importance, base.importance[order], atol=0.01)
    assert other.disentanglement == pytest.approx(base.disentanglement, abs=0.005)
    assert other.completeness == pytest.approx(base.completeness, abs=0.005)
    assert other.informativeness_test == pytest.approx(base.informativeness_test, abs=0.01)


def test_importance_and_accuracy_belong_to_their_code_and_factor():
    result = dci(*small_case())
    assert result.importance.argmax(axis=0).tolist() == [0, 1, 2]
    np.testing.assert_allclose(result.importance.sum(axis=0), 1)
    assert result.informativeness_train == pytest.approx(result.accuracy_train.mean())
    assert result.informativeness_test == pytest.approx(result.accuracy_test.mean())
    assert 0.6 < result.accuracy_test.min() < result.accuracy_train.min() <= 1


def test_a_constant_code_changes_nothing_but_the_base_of_completeness():
    train, factors, test, factors_test = small_case()
    base = dci(train, factors, test, factors_test)
    with_dead = dci(np.pad(train, [(0, 0), (0, 1)]), factors, np.pad(test, [(0, 0), (0, 1)]), factors_test)
    assert with_dead.disentanglement == pytest.approx(base.disentanglement, abs=1e-6)
    np.testing.assert_array_equal(with_dead.importance[:4], base.importance)
    assert not with_dead.importance[4].any()
    assert with_dead.completeness > base.completeness


def test_labels_of_any_discrete_type_count_the_same():
    train, factors, test, factors_test = small_case(num=150)
    base = dci(train, factors, test, factors_test)
    words = np.array(["a", "b", "c", "d"])
    for convert in (lambda y: 10.0 * y - 10, lambda y: words[y], lambda y: y.astype(np.uint8)):
        other = dci(train, convert(factors), test, convert(factors_test))
        np.testing.assert_array_equal(other.importance, base.importance)
        np.testing.assert_array_equal(other.accuracy_test, base.accuracy_test)


def test_factor_with_one_value_is_dropped_and_named():
    train, factors, test, factors_test = small_case(num=150)
    base = dci(train, factors, test, factors_test)
    frozen, frozen_test = np.insert(factors, 1, 7, axis=1), np.insert(factors_test, 1, 7, axis=1)
    result = dci(train, frozen, test, frozen_test)
    assert result.dropped_factors == (1,)
    assert "factor 1" in result.notes[0]
    assert result.disentanglement == base.disentanglement
    assert result.completeness == base.completeness
    assert result.informativeness_test == base.informativeness_test
    np.testing.assert_array_equal(result.importance[:, [0, 2, 3]], base.importance)
    assert np.isnan(result.importance[:, 1]).all()
    assert np.isnan(result.accuracy_test[1])


def test_one_code_has_no_completeness():
    train, factors, test, factors_test = small_case(num=100)
    result = dci(train[:, :1], factors, test[:, :1], factors_test)
    assert np.isnan(result.completeness)
    assert result.disentanglement == pytest.approx(0)
    assert any("completeness is not defined" in note for note in result.notes)


def test_one_factor_has_no_disentanglement():
    train, factors, test, factors_test = small_case(num=100)
    result = dci(train, factors[:, :1], test, factors_test[:, :1])
    assert np.isnan(result.disentanglement)
    assert 0 < result.completeness < 1
    assert any("disentanglement is not defined" in note for note in result.notes)


def test_constant_codes_score_zero_with_a_note():
    _, factors, _, factors_test = small_case(num=100)
    codes = np.full((100, 4), 0.3)
    result = dci(codes, factors, codes, factors_test)
    assert result.disentanglement == result.completeness == 0
    assert not result.importance.any()
    assert any("no code predicts" in note for note in result.notes)


def test_code_too_faint_for_float32_is_named():
    train, factors, test, factors_test = small_case(num=100)
    train, test = train * [1, 1, 1e-9, 1], test * [1, 1, 1e-9, 1]
    result = dci(train, factors, test, factors_test)
    assert not result.importance[2].any()
    assert any("code 2 count" in note for note in result.notes)


def test_test_rows_of_an_unseen_class_count_as_wrong():
    train, factors, test, factors_test = small_case(num=100)
    result = dci(train, factors, test, np.where(np.arange(3) == 1, 9, factors_test))
    assert result.accuracy_test[1] == 0
    assert any("factor 1" in note and "no training row" in note for note in result.notes)


def test_fifteen_rows_are_enough():
    result = dci(*small_case(num=15))
    assert 0 <= result.disentanglement <= 1
    assert 0 <= result.completeness <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.full((100, 4), np.nan)}, "codes_train column 0 .* 100 of 100 rows"),
        ({2: np.where(np.arange(400).reshape(100, 4) == 7, np.inf, 0)}, "codes_test column 3 .* 1 of 100 rows"),
        ({0: np.zeros((100, 4), complex)}, "codes_train has dtype complex128"),
        ({0: [[1.0, 2.0], [3.0]]}, "codes_train is no table"),
        ({2: np.zeros((100, 3))}, "codes_train has 4 columns, codes_test 3"),
        ({1: np.zeros((99, 3), int)}, "factors_train has 99 rows, the codes 100"),
        ({1: np.zeros(100, int)}, r"factors_train has shape \(100,\)"),
        ({1: np.zeros((100, 3), int)}, "every factor has one value"),
        ({1: np.random.default_rng(0).random((100, 3))}, "factors_train column 0"),
        ({1: np.where(np.arange(3) == 2, np.nan, np.ones((100, 3)))}, "factors_train column 2"),
        ({1: [[1, 2], [3]]}, "factors_train is no table"),
        ({1: np.full((100, 3), None)}, "factors_train has dtype object"),
        ({3: np.zeros((100, 2), int)}, "factors_train has 3 columns, factors_test 2"),
        ({3: np.full((100, 3), "a")}, "factors_train is int64, factors_test <U1"),
    ],
)
def test_bad_input_is_named(change, message):
    arrays = list(small_case(num=100))
    for position, array in change.items():
        arrays[position] = array
    with pytest.raises(UserError, match=message):
        dci(*arrays)


def test_number_of_threads_must_be_positive():
    with pytest.raises(UserError, match="num_threads is 0"):
        dci(*small_case(num=20), num_threads=0)


def test_metrics_load_no_torch():
    program = "import sys, unweave.metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
