"""TAD (Yeats et al. 2022): how much better the best code predicts each binary attribute than the second best."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.errors import UserError, require
from unweave.metrics.explicitness import area
from unweave.metrics.information import entropies, mutual_information
from unweave.metrics.inputs import check_codes, plural
from unweave.metrics.metric import Description, Metric

MOST_SHARED = 0.2
LEAST_AUROC = 0.75
LEAST_RANGE = 0.2
OFFICIAL_STEPS = 11


class TADResult(NamedTuple):
    """Total attribute disentanglement of D codes for A attributes."""

    score: float
    """Sum over captured attributes of the best code's area less the second's."""
    captured: NDArray[np.bool_]
    """(A,): attributes that a code predicts with an area of at least 0.75 and no other attribute predicts."""
    auroc: NDArray[np.float64]
    """(A, D): area under the ROC curve, the better of both directions; 0.5 for a code that is left out."""
    shared: NDArray[np.float64]
    """(A,): largest part of an attribute's entropy that another attribute explains."""
    dropped_attributes: tuple[int, ...]
    """Attributes with one value; they take no part."""
    notes: tuple[str, ...]


def tad(
    codes: ArrayLike, attributes: ArrayLike, *, method: Literal["exact", "grid"] = "exact", steps: int = OFFICIAL_STEPS
) -> TADResult:
    """TAD of codes (N, D) and binary attributes (N, A), in {0, 1} or {-1, 1}; officially 10,000 images.

    `exact` takes areas from ranks. `grid` repeats the published ones: `steps` evenly spaced thresholds (11 in DisDiff,
    EncDiff and DyGA, 101 in NashAE) and a right Riemann sum, which overrates codes with heavy tails or clusters;
    codes whose range is at most 0.2 are left out. Raises `UserError`, naming the column, for codes that are not
    finite and attributes that are not binary.
    """
    require(method in ("exact", "grid"), f"method is {method!r}: choose exact or grid")
    require(steps >= 2, f"steps is {steps}: needs at least 2 thresholds")
    table = check_codes(codes, "codes")
    truth = _binary(attributes, len(table))
    varying = (truth != truth[:1]).any(axis=0)
    require(bool(varying.any()), "every attribute has one value: at least one needs both")
    auroc = np.full((truth.shape[1], table.shape[1]), 0.5)
    notes: tuple[str, ...] = ()
    moving = np.ptp(table, axis=0) > (LEAST_RANGE if method == "grid" else 0)
    if not moving.all():
        notes = (*notes, f"{plural(np.flatnonzero(~moving), 'code')} left out: range at most {LEAST_RANGE} or constant")
    for attribute in np.flatnonzero(varying):
        for code in np.flatnonzero(moving):
            auroc[attribute, code] = _area(table[:, code], truth[:, attribute], method, steps)
    shared = np.full(truth.shape[1], np.nan)
    labels = truth[:, varying].astype(np.int64)
    information = mutual_information(labels, labels)
    np.fill_diagonal(information, 0)
    shared[varying] = information.max(axis=1) / entropies(labels)
    ordered = -np.sort(-auroc, axis=1)
    gap = ordered[:, 0] - (ordered[:, 1] if ordered.shape[1] > 1 else 0.5)
    captured = varying & (ordered[:, 0] >= LEAST_AUROC) & (np.nan_to_num(shared, nan=1.0) <= MOST_SHARED)
    if not varying.all():
        notes = (*notes, f"{plural(np.flatnonzero(~varying), 'attribute')} left out: one value only")
    dropped = tuple(np.flatnonzero(~varying).tolist())
    return TADResult(float(gap[captured].sum()), captured, auroc, shared, dropped, notes)


def _binary(attributes: ArrayLike, num_rows: int) -> NDArray[np.bool_]:
    try:
        table = np.asarray(attributes)
    except ValueError:
        raise UserError("attributes is no table: give every row the same number") from None
    require(table.ndim == 2, f"attributes has shape {table.shape}: should be (rows, attributes)")
    require(len(table) == num_rows, f"attributes has {len(table)} rows, the codes {num_rows}: give one row per code")
    require(table.dtype.kind in "biuf", f"attributes has dtype {table.dtype}: should be 0 and 1, or -1 and 1")
    fits = np.isin(table, (0, 1)).all(axis=0) | np.isin(table, (-1, 1)).all(axis=0)
    require(bool(fits.all()), f"attributes column {int(fits.argmin())} is not binary: should be 0 and 1, or -1 and 1")
    return table > 0


def _area(code: NDArray[np.float64], truth: NDArray[np.bool_], method: str, steps: int) -> float:
    if method == "exact":
        exact = area(code, truth)
        return max(exact, 1 - exact)
    single = code.astype(np.float32)  # as published: rounding decides on which side of a threshold a code lies
    thresholds = single.min() + np.arange(steps, dtype=np.float32) / np.float32(steps - 1) * np.ptp(single)
    above = single[:, None] >= thresholds  # (N, steps)
    return max(_riemann(above, truth), _riemann(~above, truth))


def _riemann(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Right Riemann sum over sorted rates, as published."""
    false, true = np.sort(predicted[~truth].mean(axis=0)), np.sort(predicted[truth].mean(axis=0))
    return float((true[1:] * np.diff(false)).sum())


METRIC = Metric(
    "tad",
    lambda sample: tad(*sample.rows[:2], method="grid" if sample.protocol == "official" else "exact"),
    {"score": lambda result: (result.score, 0.0), "captured": lambda result: (result.captured.sum(), 0.0)},
    {
        "score": Description(
            "TAD",
            "Yeats et al. 2022",
            "how much better does the best code predict a binary attribute than the second best?",
            "0",
        )
    },
    matrix=lambda result: result.auroc.T,
    by_default=False,
)
