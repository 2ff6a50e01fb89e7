"""Gradient boosting of depth-3 classification trees, exact splits, for several labels of the same rows at once.

It is scikit-learn's `GradientBoostingClassifier()` with its default arguments (Friedman 2001), which DCI is defined by:
100 stages, one tree per class and stage (one in all for two classes), step size 0.1, splits by least squares on float32
codes, leaves by one Newton step, equal splits decided at random. Importances differ from scikit-learn's by about as
much as scikit-learn's own do between two seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unweave.compiled import threads
from unweave.metrics import trees

NUM_STAGES = 100
STEP = 0.1

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Boosting:
    """A fitted classifier of F labels from D codes, with T trees in each of S stages."""

    classes: tuple[NDArray[Any], ...]
    """The values of each label, sorted; F arrays."""
    importances: NDArray[np.float64]
    """(D, F), the part of each code in the decrease of the squared error; columns sum to 1 (0 where nothing splits)."""
    fitted: NDArray[Any]
    """(N, F) predicted labels of the rows it was fitted to."""
    priors: NDArray[np.float64]
    """(T,) scores before the first stage."""
    splits: NDArray[np.int32]
    """(S, T, 7) columns that are compared, nodes in heap order."""
    thresholds: NDArray[np.float64]
    """(S, T, 7); values up to the threshold go left."""
    leaves: NDArray[np.float64]
    """(S, T, 8) what is added to the scores."""

    def predict(self, codes: NDArray[Any], num_threads: int | None = None) -> NDArray[Any]:
        """Labels (n, F) of codes (n, D)."""
        columns = np.ascontiguousarray(np.asarray(codes, np.float32).T)
        scores = np.repeat(self.priors[:, None], columns.shape[1], axis=1)
        with threads(num_threads) as run:
            run(trees.add_trees, columns.shape[1], columns, self.splits, self.thresholds, self.leaves, scores)
        return _decide(self.classes, scores)


def fit(
    codes: NDArray[Any],
    labels: NDArray[Any],
    *,
    seed: int = 0,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> Boosting:
    """Fits all labels (N, F), each with at least two values, to finite codes (N, D).

    The result depends on `seed` alone, not on `num_threads` (all cores unless given). `progress` is called with
    (trees grown, trees in all) after every stage.
    """
    encoded = [np.unique(column, return_inverse=True) for column in labels.T]
    targets = _Targets([len(values) for values, _ in encoded], np.stack([index for _, index in encoded]))
    columns = np.ascontiguousarray(np.asarray(codes, np.float32).T)
    varying = np.flatnonzero(can_split(codes))
    classes = tuple(values for values, _ in encoded)
    grown = _boost(columns[varying], targets, np.random.default_rng(seed), num_threads, progress)
    importances = np.zeros((len(columns), len(classes)))
    importances[varying] = _importances(grown.gains, targets.offsets)
    return Boosting(
        classes=classes,
        importances=importances,
        fitted=_decide(classes, grown.scores),
        priors=targets.priors,
        splits=varying.astype(np.int32)[grown.splits] if varying.size else grown.splits,
        thresholds=grown.thresholds,
        leaves=grown.leaves,
    )


def can_split(codes: NDArray[Any]) -> NDArray[np.bool_]:
    """(D,), whether the values of a code (N, D) are further apart, as float32, than trees separate."""
    columns = np.asarray(codes, np.float32)
    return columns.max(axis=0) > columns.min(axis=0) + trees.TIE


class _Targets:
    """The labels as the trees see them: F factors with K_f classes each, T trees per stage."""

    def __init__(self, num_classes: list[int], labels: NDArray[np.integer]) -> None:
        assert min(num_classes) >= 2, "a label with one value cannot be fitted"
        self.labels = labels.astype(np.int32)  # (F, N)
        trees_of = [1 if num == 2 else num for num in num_classes]
        self.offsets = np.concatenate([[0], np.cumsum(trees_of)])
        self.factor = np.repeat(np.arange(len(num_classes)), trees_of)  # (T,)
        self.own_class = np.concatenate([[1] if num == 2 else np.arange(num) for num in num_classes])  # (T,)
        shrink = [1.0 if num == 2 else (num - 1) / num for num in num_classes]
        self.steps = STEP * np.asarray(shrink)[self.factor]  # (T,)
        self.priors = np.concatenate([self._log_prior(row, num) for row, num in zip(self.labels, num_classes)])

    @staticmethod
    def _log_prior(labels: NDArray[np.int32], num_classes: int) -> NDArray[np.float64]:
        log_part = np.log(np.bincount(labels) / labels.size)
        return log_part[1:] - log_part[:1] if num_classes == 2 else log_part


class _Grown:
    """What the stages fill in."""

    def __init__(self, num_columns: int, targets: _Targets) -> None:
        num_trees, num_rows = len(targets.factor), targets.labels.shape[1]
        self.scores = np.repeat(targets.priors[:, None], num_rows, axis=1)
        self.gains = np.zeros((num_trees, num_columns))
        self.splits = np.zeros((NUM_STAGES, num_trees, trees.NUM_NODES), np.int32)
        self.thresholds = np.full(self.splits.shape, np.inf)
        self.leaves = np.zeros((NUM_STAGES, num_trees, trees.NUM_LEAVES))


def _boost(
    columns: NDArray[np.float32],
    targets: _Targets,
    rng: np.random.Generator,
    num_threads: int | None,
    progress: Progress | None,
) -> _Grown:
    """Runs all stages on columns (D, N) that vary."""
    grown, num_trees, num_rows = _Grown(len(columns), targets), len(targets.factor), columns.shape[1]
    keys = trees.sort_columns(columns)
    residuals = np.empty_like(grown.scores)
    in_order = np.broadcast_to(np.arange(len(columns), dtype=np.int32), (num_trees, trees.NUM_NODES, len(columns)))
    with threads(num_threads) as run:
        for stage in range(NUM_STAGES if len(columns) else 0):
            run(trees.compute_residuals, num_rows, targets.labels, targets.offsets, grown.scores, residuals)
            stage_trees = (grown.splits[stage], grown.thresholds[stage], grown.leaves[stage])
            run(
                trees.grow_trees, num_trees, keys, targets.labels, targets.factor, targets.own_class, targets.steps,
                residuals, rng.permuted(in_order, axis=2), grown.scores, stage_trees, grown.gains,
            )  # fmt: skip
            if progress is not None:
                progress((stage + 1) * num_trees, NUM_STAGES * num_trees)
    return grown


def _importances(gains: NDArray[np.float64], offsets: NDArray[np.integer]) -> NDArray[np.float64]:
    """(D, F) from the decrease (T, D) of each tree."""
    sums = np.add.reduceat(gains, offsets[:-1], axis=0).T
    totals = sums.sum(axis=0)
    return np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0)


def _decide(classes: tuple[NDArray[Any], ...], scores: NDArray[np.float64]) -> NDArray[Any]:
    """Labels (N, F) of the highest scores (T, N)."""
    columns, begin = [], 0
    for values in classes:
        if len(values) == 2:
            index = (scores[begin] >= 0).astype(int)
            begin += 1
        else:
            index = scores[begin : begin + len(values)].argmax(axis=0)
            begin += len(values)
        columns.append(values[index])
    return np.stack(columns, axis=1)
