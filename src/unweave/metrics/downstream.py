"""Downstream sample efficiency (Locatello et al. 2019): accuracy of factors predicted from codes with few labels."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.errors import require
from unweave.metrics import boosting
from unweave.metrics.dci import METRIC as DCI
from unweave.metrics.inputs import check_codes, check_pair, check_sizes, plural, varying_factors
from unweave.metrics.metric import Description, Metric, Sample
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
    largest: ArrayLike | None = None,
    num_threads: int | None = None,
) -> DownstreamResult:
    """Accuracy of gradient-boosted trees on codes (cells, D) of a factor grid in C order, by number of training rows.

    One random stream draws, for each size in turn, training rows and fresh test rows, as in the reference; with the
    official sizes the first classifier is the one of DCI: `largest` takes its `accuracy_test` (F,) under the same seed,
    and its trees are not grown again. Raises `UserError` for codes that are not finite or do not fit the grid.
    """
    table = check_codes(codes, "codes")
    grid = check_sizes(factor_sizes, len(table))
    _check(sizes)
    require(num_test >= 1, f"num_test is {num_test}: must be at least 1")
    require(max(grid) > 1, f"factor_sizes is {list(grid)}: at least one factor needs two values")
    rng = np.random.RandomState(seed)  # its stream is part of the definition

    def draw(size: int) -> _Rows:
        train, test = in_batches(rng, grid, size), in_batches(rng, grid, num_test)
        return table[cell_index(train, grid)], train, table[cell_index(test, grid)], test

    return _result([draw(size) for size in sizes], sizes, np.asarray(grid) > 1, seed, largest, num_threads)


def downstream_rows(
    codes_train: ArrayLike,
    factors_train: ArrayLike,
    codes_test: ArrayLike,
    factors_test: ArrayLike,
    *,
    seed: int = 0,
    sizes: Sequence[int] = OFFICIAL_SIZES,
    largest: ArrayLike | None = None,
    num_threads: int | None = None,
) -> DownstreamResult:
    """The same without a grid: each classifier sees the first rows of the training rows, in their order.

    A size above the number of training rows becomes that number, which `sizes` of the result then says and a note too.
    `largest` is as for `downstream`, where the largest size takes all training rows. Raises `UserError` as `dci` does.
    """
    train, labels, test, truth = check_pair(codes_train, factors_train, codes_test, factors_test)
    _check(sizes)
    varying, _ = varying_factors(labels, "factors_train")
    seen = [min(size, len(train)) for size in sizes]
    result = _result([(train[:n], labels[:n], test, truth) for n in seen], seen, varying, seed, largest, num_threads)
    if max(sizes) > len(train):
        note = f"{len(train)} training rows, where {max(sizes)} were asked for"
        result = result._replace(notes=(*result.notes, note))
    return result


_Rows = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


def _check(sizes: Sequence[int]) -> None:
    require(len(sizes) > 0 and min(sizes) >= 2, f"sizes is {list(sizes)}: each needs at least 2 rows")


def _result(
    samples: Sequence[_Rows],
    sizes: Sequence[int],
    kept: NDArray[np.bool_],
    seed: int,
    largest: ArrayLike | None,
    num_threads: int | None,
) -> DownstreamResult:
    """Accuracies on (codes, factors) to train and to test on, one sample per size; `kept` are the factors that vary."""
    known = np.full(len(kept), np.nan) if largest is None else np.asarray(largest, np.float64)
    require(
        known.shape == kept.shape, f"largest has shape {known.shape}: give one accuracy for each of {len(kept)} factors"
    )
    accuracy = np.full((len(samples), len(kept)), np.nan)
    notes: list[str] = []
    for row, (codes, labels, codes_test, truth) in enumerate(samples):
        if sizes[row] == max(sizes) and np.isfinite(known[kept]).all():
            accuracy[row] = known
            continue
        seen = (labels != labels[:1]).any(axis=0) & kept
        alone = np.flatnonzero(~seen & kept)
        if alone.size:
            notes.append(f"{plural(alone, 'factor')}: one value only among {len(codes)} rows, always predicted")
        if seen.any():
            model = boosting.fit(codes, labels[:, seen], seed=seed, num_threads=num_threads)
            accuracy[row, seen] = (model.predict(codes_test, num_threads) == truth[:, seen]).mean(axis=0)
        accuracy[row, alone] = (truth[:, alone] == labels[0, alone]).mean(axis=0)
    means = accuracy[:, kept].mean(axis=1)
    if not kept.all():
        notes.append(f"{plural(np.flatnonzero(~kept), 'factor')} left out: one value only")
    largest = means[int(np.argmax(sizes))]
    dropped = tuple(np.flatnonzero(~kept).tolist())
    return DownstreamResult(means, means / largest, accuracy, tuple(int(size) for size in sizes), dropped, tuple(notes))


def _compute(sample: Sample) -> DownstreamResult:
    """With DCI's accuracies, which are those with the most labels."""
    largest = sample.result(DCI).accuracy_test
    if sample.grid:
        return downstream(*sample.grid, seed=sample.seed, largest=largest)
    return downstream_rows(*sample.rows, seed=sample.seed, largest=largest)


def _at(size: int, part: str) -> Callable[[DownstreamResult], tuple[float, float]]:
    """The accuracy or efficiency with `size` labels, NaN where there were fewer."""

    def number(result: DownstreamResult) -> tuple[float, float]:
        values = dict(zip(result.sizes, getattr(result, part)))
        return float(values.get(size, math.nan)), math.nan

    return number


METRIC = Metric(
    "downstream",
    _compute,
    {
        **{f"accuracy with {size} labels": _at(size, "accuracy") for size in OFFICIAL_SIZES},
        **{f"efficiency with {size} labels": _at(size, "efficiency") for size in OFFICIAL_SIZES[1:]},
    },
    {
        "score": Description(
            "downstream efficiency",
            "Locatello et al. 2019",
            "how much of the accuracy is left with 1,000 or 100 labels?",
            "1 for useless codes",
        )
    },
    by_default=False,
)
