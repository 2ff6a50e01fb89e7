"""BetaVAE score (Higgins et al. 2017): can a linear model tell which factor pairs of images share?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.errors import require
from unweave.metrics.inputs import Protocol, Standardiser, check_grid, check_protocol, check_rows, plural
from unweave.metrics.linear import logistic_regression
from unweave.metrics.metric import Description, Metric
from unweave.metrics.sampling import cell_index, row_interventions, sample_factors

Points = tuple[NDArray[np.float64], NDArray[np.int64]]


class BetaVAEResult(NamedTuple):
    """BetaVAE score of codes for F factors."""

    score: float
    """Accuracy on the evaluation points, the published number; NaN, with a note, where one factor varies."""
    score_train: float
    """Accuracy on the points it was fitted to."""
    chance: float
    """1 / number of factors that vary."""
    adjusted: float
    """(score - chance) / (1 - chance): 0 is chance."""
    dropped_factors: tuple[int, ...]
    """Factors with one value, which are never shared."""
    notes: tuple[str, ...]


def beta_vae_score(
    codes: ArrayLike,
    factor_sizes: Sequence[int],
    *,
    protocol: Protocol = "robust",
    seed: int = 0,
    num_train: int = 10_000,
    num_eval: int = 5_000,
    batch_size: int = 64,
) -> BetaVAEResult:
    """BetaVAE score of codes (cells, D), one row per cell of the factor grid in C order.

    A point is the mean absolute difference of the codes of `batch_size` pairs of cells that share one random factor;
    a logistic regression tells which. `official` fits it to the points as they are, whose scale then matters; `robust`
    standardises them. The other defaults are the official constants. Raises `UserError` for codes that are not finite
    or do not fit the grid.
    """
    check_protocol(protocol)
    table, sizes, varying = check_grid(codes, factor_sizes)
    _check_counts(num_train, num_eval, batch_size)
    dropped = tuple(factor for factor, size in enumerate(sizes) if size == 1)
    notes = (f"{plural(dropped, 'factor')} never shared: one value only",) if dropped else ()
    rng = np.random.RandomState(seed)  # its stream is part of the definition
    free_sizes = [sizes[factor] for factor in varying]
    train = _points(table, free_sizes, rng, num_train, batch_size)
    test = _points(table, free_sizes, rng, num_eval, batch_size)
    return _classify(train, test, protocol, len(varying), dropped, notes)


def beta_vae_score_rows(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    protocol: Protocol = "robust",
    seed: int = 0,
    num_train: int = 10_000,
    num_eval: int = 5_000,
    batch_size: int = 64,
) -> BetaVAEResult:
    """The same from rows alone: codes (N, D) and discrete factors (N, F) of images that do not fill a grid.

    A point picks a factor and a row, and pairs `batch_size` rows with as many others among those that share its value.
    Raises `UserError`, naming the column, for codes that are not finite, factors that are not discrete, and where no
    factor varies.
    """
    check_protocol(protocol)
    table, labels, varies, notes = check_rows(codes, factors)
    _check_counts(num_train, num_eval, batch_size)
    dropped = tuple(np.flatnonzero(~varies).tolist())
    rng = np.random.RandomState(seed)
    points, shared = [], []
    for factor, rows in row_interventions(rng, labels[:, varies], num_train + num_eval, 2 * batch_size):
        points.append(np.abs(table[rows[:, :batch_size]] - table[rows[:, batch_size:]]).mean(axis=1))
        shared.append(factor)
    x, y = np.concatenate(points), np.concatenate(shared)
    halves = (x[:num_train], y[:num_train]), (x[num_train:], y[num_train:])
    return _classify(*halves, protocol, int(varies.sum()), dropped, notes)


def _check_counts(num_train: int, num_eval: int, batch_size: int) -> None:
    require(min(num_train, num_eval, batch_size) >= 1, "num_train, num_eval and batch_size must be at least 1")


def _classify(
    train: Points,
    test: Points,
    protocol: Protocol,
    num_varying: int,
    dropped: tuple[int, ...],
    notes: tuple[str, ...],
) -> BetaVAEResult:
    """Fits the logistic regression to `train` and scores it on `test`; one factor leaves it nothing to tell apart."""
    if num_varying == 1:
        note = "one factor varies: the score is not defined"
        return BetaVAEResult(float("nan"), float("nan"), 1.0, float("nan"), dropped, (*notes, note))
    (points, shared), (points_test, shared_test) = train, test
    if protocol == "robust":
        standardise = Standardiser.of(points)
        points, points_test = standardise(points), standardise(points_test)
    require(len(np.unique(shared)) > 1, f"num_train is {len(shared)}: all points share one factor, draw more")
    model = logistic_regression(points, shared)
    score_train = float(model.score(points, shared))
    score = float(model.score(points_test, shared_test))
    chance = 1 / num_varying
    return BetaVAEResult(score, score_train, chance, (score - chance) / (1 - chance), dropped, notes)


def _points(
    table: NDArray[np.float64], sizes: Sequence[int], rng: np.random.RandomState, num: int, batch_size: int
) -> Points:
    """`num` points (num, D) and the factors (num,) that their pairs share, in the reference's order of draws."""
    points, shared = np.empty((num, table.shape[1])), np.empty(num, np.int64)
    for row in range(num):
        factor = rng.randint(len(sizes))
        first, second = sample_factors(rng, sizes, batch_size), sample_factors(rng, sizes, batch_size)
        second[:, factor] = first[:, factor]
        points[row] = np.abs(table[cell_index(first, sizes)] - table[cell_index(second, sizes)]).mean(axis=0)
        shared[row] = factor
    return points, shared


METRIC = Metric(
    "beta_vae",
    lambda sample: sample.score(beta_vae_score, beta_vae_score_rows),
    {"score": lambda result: (result.score, result.chance)},
    {
        "score": Description(
            "BetaVAE", "Higgins et al. 2017", "can a linear model tell which factor pairs of images share?", "1 / F"
        )
    },
)
