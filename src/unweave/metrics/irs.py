"""IRS (Suter et al. 2019): does a code stay constant when factors other than its own change?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.metrics.inputs import Protocol, Standardiser, check_protocol, check_rows, plural
from unweave.metrics.metric import Description, Metric, only

QUANTILE = 0.99


class IRSResult(NamedTuple):
    """Interventional robustness of D codes for F factors."""

    score: float
    """Mean over codes of the robustness for the best factor, weighted by how far a code moves; 0 to 1."""
    per_code: NDArray[np.float64]
    """(D,): robustness for the best factor; 0 for a constant code."""
    matrix: NDArray[np.float64]
    """(D, F): 1 where a code keeps to one place while that factor is held; NaN for a dropped factor."""
    weights: NDArray[np.float64]
    """(D,): largest deviation from the mean, summing to 1."""
    dropped_factors: tuple[int, ...]
    """Factors with one value; they take no part."""
    notes: tuple[str, ...]


def irs(
    codes: ArrayLike, factors: ArrayLike, *, protocol: Protocol = "robust", quantile: float = QUANTILE
) -> IRSResult:
    """IRS of codes (N, D) and discrete factors (N, F), officially 10,000 rows.

    For each value of a factor, how far (the `quantile` of the distances) codes lie from their mean over the rows that
    share it; averaged over values, relative to the largest distance from the mean of all rows, taken from 1. The
    estimator is disentanglement_lib's; it weights codes by their largest distance, so that their scale matters, which
    `robust` takes away by standardising them. Raises `UserError`, naming the column, for codes that are not finite,
    factors that are not discrete, and where no factor varies.
    """
    check_protocol(protocol)
    table, labels, varying, notes = check_rows(codes, factors)
    if protocol == "robust":
        table = Standardiser.of(table)(table)
    largest = np.abs(table - table.mean(axis=0)).max(axis=0)
    moving = np.ptp(table, axis=0) > 0
    matrix = np.full((table.shape[1], labels.shape[1]), np.nan)
    for factor in np.flatnonzero(varying):
        values = np.unique(labels[:, factor])
        spread = np.zeros(table.shape[1])
        for value in values:
            rows = table[labels[:, factor] == value]
            spread += np.quantile(np.abs(rows - rows.mean(axis=0)), quantile, axis=0)
        matrix[:, factor] = np.where(moving, 1 - spread / len(values) / np.where(moving, largest, 1), 0.0)
    if not moving.all():
        notes = (*notes, f"{plural(np.flatnonzero(~moving), 'code')} constant: no weight")
    per_code = matrix[:, varying].max(axis=1)
    weights = np.where(moving, largest, 0.0)
    weights = weights / weights.sum() if moving.any() else weights
    dropped = tuple(np.flatnonzero(~varying).tolist())
    return IRSResult(float(weights @ per_code), per_code, matrix, weights, dropped, notes)


METRIC = Metric(
    "irs",
    lambda sample: irs(*sample.rows[:2], protocol=sample.protocol),
    only(),
    {
        "score": Description(
            "IRS",
            "Suter et al. 2019",
            "does a code stay constant when factors other than its own change?",
            "above 0 for few rows",
        )
    },
    matrix=lambda result: result.matrix,
)
