"""Explicitness (Ridgeway and Mozer 2018): can a linear model of all codes predict the values of a factor?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from unweave.metrics.inputs import Standardiser, check_pair, plural, varying_factors
from unweave.metrics.linear import logistic_regression
from unweave.metrics.metric import Description, Metric, only


class ExplicitnessResult(NamedTuple):
    """Explicitness of codes for F factors: areas under the ROC curve, 0.5 is chance."""

    score: float
    """Mean over factors on the test rows, the published number."""
    score_train: float
    """The same on the training rows."""
    adjusted: float
    """2 score - 1: 0 is chance."""
    auroc: NDArray[np.float64]
    """(F,), test rows: mean over a factor's values of value against rest; NaN for a dropped factor."""
    auroc_train: NDArray[np.float64]
    """(F,), training rows."""
    dropped_factors: tuple[int, ...]
    """Factors with one value in the training or the test rows; they take no part."""
    notes: tuple[str, ...]


def explicitness(
    codes_train: ArrayLike, factors_train: ArrayLike, codes_test: ArrayLike, factors_test: ArrayLike
) -> ExplicitnessResult:
    """Explicitness from codes (N, D) and discrete factors (N, F) of training rows (officially 10,000) and test rows.

    One logistic regression per factor on codes standardised by the training rows; constant codes become 0. Areas are
    exact, from ranks, over the values that both kinds of rows have. Raises `UserError`, naming the column, for codes
    that are not finite, factors that are not discrete, and where no factor varies.
    """
    train, labels, test, labels_test = check_pair(codes_train, factors_train, codes_test, factors_test)
    varying, notes = varying_factors(labels, "factors_train")
    standardise = Standardiser.of(train)
    train, test = standardise(train), standardise(test)
    auroc = np.full((2, labels.shape[1]), np.nan)
    for factor in np.flatnonzero(varying):
        model = logistic_regression(train, labels[:, factor])
        shared = np.intersect1d(labels[:, factor], labels_test[:, factor])
        unshared = len(np.setxor1d(labels[:, factor], labels_test[:, factor]))
        if unshared:
            notes = (*notes, f"factor {factor}: {unshared} values are not in both training and test rows, left out")
        if len(shared) < 2:
            continue
        for row, (x, y) in enumerate(((train, labels[:, factor]), (test, labels_test[:, factor]))):
            chances = np.asarray(model.predict_proba(x))
            places = np.searchsorted(model.classes_, shared)
            areas = [area(chances[:, place], y == value) for place, value in zip(places, shared)]
            auroc[row, factor] = np.mean(areas)
    kept = ~np.isnan(auroc[1])
    constant = np.flatnonzero(standardise.constant)
    if constant.size:
        notes = (*notes, f"{plural(constant, 'code')} constant in the training rows: counted as 0")
    means = auroc[:, kept].mean(axis=1) if kept.any() else np.full(2, np.nan)
    return ExplicitnessResult(
        score=float(means[1]),
        score_train=float(means[0]),
        adjusted=float(2 * means[1] - 1),
        auroc=auroc[1],
        auroc_train=auroc[0],
        dropped_factors=tuple(np.flatnonzero(~kept).tolist()),
        notes=notes,
    )


def area(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks: how often a positive scores above a negative, ties counting half.

    NaN where all rows are positive or all negative.
    """
    num = int(positive.sum())
    if num in (0, len(positive)):
        return float("nan")
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - num * (num + 1) / 2) / (num * (len(positive) - num)))


METRIC = Metric(
    "explicitness",
    lambda sample: explicitness(*sample.rows),
    only(chance=0.5),
    {
        "score": Description(
            "explicitness", "Ridgeway and Mozer 2018", "can a linear model of all codes predict the factors?", "0.5"
        )
    },
)
