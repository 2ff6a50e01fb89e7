"""Downstream sample efficiency (Locatello et al. 2019): how well few labels tell the factors from the codes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.errors import require
from unweave.metrics import boosting
from unweave.metrics.inputs import check_codes, check_sizes, plural
from unweave.metrics.sampling import cell_index, in_batches

OFFICIAL_SIZES = (10_000, 1_000, 100)
OFFICIAL_TEST = 5_000


class DownstreamResult(NamedTuple):
    """Accuracies of classifiers that saw few or many labels."""

    accuracy: NDArray[np.float64]
    """(sizes,): mean over factors of the accuracy on fresh test rows."""
    efficiency: NDArray[np.float64]
    """(sizes,): accuracy over that of the largest size. Means little by itself: chance over chance is 1."""
    accuracy_per_factor: NDArray[np.float64]
    """(sizes, F); NaN for a dropped factor."""
    sizes: tuple[int, ...]
    """Training rows of each classifier."""
    dropped_factors: tuple[int, ...]
    """Factors with one value; they take no part."""
    notes: tuple[str, ...]


def downstream(
    codes: ArrayLike,
    factor_sizes: Sequence[int],
    *,
    seed: int = 0,
    sizes: Sequence[int] = OFFICIAL_SIZES,
    num_test: int = OFFICIAL_TEST,
    num_threads: int | None = None,
) -> DownstreamResult:
    """Accuracy of gradient-boosted trees on codes (cells, D) of a factor grid in C order, by number of training rows.

    One random stream draws, for each size in turn, training rows and fresh test rows, as in the reference; with the
    official sizes the first classifier is the one of DCI. Raises `UserError` for codes that are not finite or do not
    fit the grid.
    """
    table = check_codes(codes, "codes")
    grid = check_sizes(factor_sizes, len(table))
    require(len(sizes) > 0 and min(sizes) >= 2, f"sizes is {list(sizes)}: each needs at least 2 rows")
    require(num_test >= 1, f"num_test is {num_test}: must be at least 1")
    require(max(grid) > 1, f"factor_sizes is {list(grid)}: at least one factor needs two values")
    rng = np.random.RandomState(seed)  # its stream is part of the definition
    accuracy = np.full((len(sizes), len(grid)), np.nan)
    notes: list[str] = []
    for row, size in enumerate(sizes):
        train, test = in_batches(rng, grid, size), in_batches(rng, grid, num_test)
        seen = (train != train[:1]).any(axis=0)
        alone = np.flatnonzero(~seen & (np.asarray(grid) > 1))
        if alone.size:
            notes.append(f"{plural(alone, 'factor')}: one value only among {size} rows, always predicted")
        if seen.any():
            model = boosting.fit(table[cell_index(train, grid)], train[:, seen], seed=seed, num_threads=num_threads)
            predicted = model.predict(table[cell_index(test, grid)], num_threads)
            accuracy[row, seen] = (predicted == test[:, seen]).mean(axis=0)
        accuracy[row, alone] = (test[:, alone] == train[0, alone]).mean(axis=0)
    kept = np.asarray(grid) > 1
    means = accuracy[:, kept].mean(axis=1)
    if not kept.all():
        notes.append(f"{plural(np.flatnonzero(~kept), 'factor')} left out: one value only")
    largest = means[int(np.argmax(sizes))]
    dropped = tuple(np.flatnonzero(~kept).tolist())
    return DownstreamResult(means, means / largest, accuracy, tuple(int(size) for size in sizes), dropped, tuple(notes))
