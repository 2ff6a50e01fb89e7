"""The boosted trees are scikit-learn's, up to the order in which equal splits are found."""

import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.tree import DecisionTreeRegressor

from unweave.metrics import boosting, trees

RNG = np.random.default_rng


def discrete(rng):
    labels = np.stack([rng.integers(num, size=700) for num in (4, 3)], axis=1)
    shape, size = labels.T
    codes = np.stack([shape % 2, shape // 2, (size + rng.integers(2, size=700)) % 3, rng.integers(5, size=700)], axis=1)
    return codes.astype(float), labels


def heavy_tailed(rng):
    labels = np.stack([rng.integers(num, size=700) for num in (4, 3)], axis=1)
    noise = 0.2 * rng.standard_cauchy((700, 5))
    return np.exp(2 * (labels @ (0.5 * rng.normal(size=(2, 5))) + noise)).clip(1e-20, 1e20), labels


def rounded(rng):
    labels = rng.integers(4, size=(700, 2))
    return np.round(labels @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(700, 5)), 1), labels


def faint(rng):
    """Spreads around and below the distance at which scikit-learn calls values equal."""
    labels = rng.integers(4, size=(700, 2))
    return (labels @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(700, 5))) * [1, 1e-4, 1e-5, 1e-6, 1e-8], labels


def binary(rng):
    labels = (rng.random((700, 3)) < [0.5, 0.3, 0.1]).astype(int)
    return labels @ rng.normal(size=(3, 6)) + 0.7 * rng.normal(size=(700, 6)), labels


def fifteen_classes(rng):
    labels = rng.integers(15, size=(700, 1))
    return labels / 15 @ rng.normal(size=(1, 4)) + 0.1 * rng.normal(size=(700, 4)), labels


def uneven_classes(rng):
    labels = (8 * rng.random((700, 1)) ** 4).astype(int)
    return labels @ rng.normal(size=(1, 5)) + 0.8 * rng.normal(size=(700, 5)), labels


CASES = [discrete, heavy_tailed, rounded, faint, binary, fifteen_classes, uneven_classes]


@pytest.mark.parametrize("case", CASES)
def test_importances_and_predictions_are_those_of_sklearn(case):
    codes, labels = case(RNG(5))
    codes, labels, fresh = codes[:500], labels[:500], codes[500:]
    models = [boosting.fit(codes, labels, seed=seed) for seed in range(3)]
    importances = np.mean([model.importances for model in models], axis=0)
    for factor, column in enumerate(labels.T):
        theirs = GradientBoostingClassifier(random_state=0).fit(codes, column)
        np.testing.assert_allclose(importances[:, factor], theirs.feature_importances_, atol=0.01)
        assert np.mean([model.fitted[:, factor] == theirs.predict(codes) for model in models]) > 0.98
        assert np.mean([model.predict(fresh)[:, factor] == theirs.predict(fresh) for model in models]) > 0.95


def test_without_equal_splits_the_first_tree_is_sklearns():
    codes = RNG(0).normal(size=(800, 6))
    labels = (codes[:, :1] + codes[:, 1:2] ** 2 + 0.3 * RNG(1).normal(size=(800, 1)) > 0.5).astype(int)
    model = boosting.fit(codes, labels)
    theirs = DecisionTreeRegressor(max_depth=3).fit(codes, labels[:, 0] - labels.mean())
    inner = theirs.tree_.feature >= 0
    ours = {(column, threshold) for column, threshold in zip(model.splits[0, 0], model.thresholds[0, 0])}
    assert ours == set(zip(theirs.tree_.feature[inner], theirs.tree_.threshold[inner]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_many_classes_with_few_rows():
    """Most splits are equal to others here: scikit-learn's own importances vary by 0.02 between seeds."""
    rng = RNG(2)
    labels = rng.permutation(np.arange(240) % 183)[:, None]
    codes = labels / 183 @ rng.normal(size=(1, 4)) + 0.05 * rng.normal(size=(240, 4))
    theirs = GradientBoostingClassifier(random_state=0).fit(codes, labels[:, 0])
    ours = np.mean([boosting.fit(codes, labels, seed=seed).importances[:, 0] for seed in range(4)], axis=0)
    np.testing.assert_allclose(ours, theirs.feature_importances_, atol=0.03)


def test_useless_first_split_is_taken_as_sklearn_does():
    """Exclusive or: no single split lowers the error, two do."""
    codes = np.stack(np.meshgrid([0.0, 1.0], [0.0, 1.0]), axis=-1).reshape(-1, 2).repeat(25, axis=0)
    labels = (codes[:, :1] != codes[:, 1:]).astype(int)
    assert (boosting.fit(codes, labels).fitted == labels).all()


def test_importance_of_a_copied_code_is_shared_at_random():
    codes = RNG(0).normal(size=(500, 1))
    labels = (codes + 0.5 * RNG(1).normal(size=(500, 1)) > 0).astype(int)
    twice = np.concatenate([codes, -2 * codes], axis=1)
    shares = [boosting.fit(twice, labels, seed=seed).importances[0, 0] for seed in range(20)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.12)
    assert np.std(shares) > 0.02


def test_result_depends_on_the_seed_and_not_on_threads():
    codes, labels = rounded(RNG(0))
    models = [boosting.fit(codes, labels, seed=3, num_threads=threads) for threads in (1, 2, 5)]
    for other in models[1:]:
        np.testing.assert_array_equal(other.importances, models[0].importances)
        np.testing.assert_array_equal(other.leaves, models[0].leaves)
        np.testing.assert_array_equal(other.predict(codes, num_threads=3), models[0].fitted)


def test_labels_fitted_together_and_alone_agree():
    codes, labels = heavy_tailed(RNG(0))
    together = boosting.fit(codes, labels)
    for factor in range(2):
        alone = boosting.fit(codes, labels[:, factor : factor + 1])
        np.testing.assert_allclose(alone.importances[:, 0], together.importances[:, factor], atol=0.01)


def test_constant_codes_weigh_nothing_and_predict_the_most_frequent_label():
    labels = np.repeat(["b", "a", "c"], [5, 3, 2])[:, None]
    model = boosting.fit(np.full((10, 2), 0.3), labels)
    assert not model.importances.any()
    assert (model.fitted == "b").all()
    assert (model.predict(np.zeros((4, 2))) == "b").all()


def test_sorted_keys_give_back_values_and_rows():
    columns = RNG(0).normal(size=(3, 50)).astype(np.float32)
    columns[0, :20] = 0.0
    columns[1] = -(columns[1] ** 2)
    keys = trees.sort_columns(columns)
    rows, values = keys & trees.ROW_BITS, (keys >> 32).astype(np.int32).view(np.float32)
    np.testing.assert_array_equal(values, np.sort(columns, axis=1))
    np.testing.assert_array_equal(np.take_along_axis(columns, rows, axis=1), values)


def test_progress_counts_the_trees():
    calls = []
    codes, labels = discrete(RNG(0))
    boosting.fit(codes, labels, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(7 * stage, 700) for stage in range(1, 101)]


@pytest.mark.slow
def test_works_where_no_folder_can_hold_compiled_code():
    program = """
import numpy as np
from unweave.metrics import sampling
draws = np.empty(3, np.int64)
assert sampling._draw(np.array([9, 3, 0, 2], np.uint32), 0, 3, draws) == 4
assert draws.tolist() == [1, 0, 2]
assert type(sampling._draw._cache).__name__ == "NullCache"
"""
    environment = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"}  # this package is in no zip file
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
