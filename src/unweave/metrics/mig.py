"""MIG (Chen et al. 2018) and modularity (Ridgeway and Mozer 2018), from one matrix of mutual information."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.errors import require
from unweave.metrics.information import NUM_BINS, as_labels, binned, entropies, informative, mutual_information
from unweave.metrics.inputs import Protocol, check_codes, check_factors, check_protocol, plural, varying_factors


class MIGResult(NamedTuple):
    """Mutual information gap of D codes and F factors."""

    score: float
    """Mean gap, 0 to 1."""
    gaps: NDArray[np.float64]
    """(F,): information of the best code less that of the second, over the factor's entropy; NaN where dropped."""
    mutual_information: NDArray[np.float64]
    """(D, F), nats."""
    entropy: NDArray[np.float64]
    """(F,), nats."""
    dropped_factors: tuple[int, ...]
    """Factors with one value; they take no part."""
    notes: tuple[str, ...]


class ModularityResult(NamedTuple):
    """Modularity of D codes for F factors."""

    score: float
    """Mean over codes, 0 to 1; NaN, with a note, where one factor varies."""
    per_code: NDArray[np.float64]
    """(D,): 1 where a code tells of one factor only; 0 where it tells of none."""
    mutual_information: NDArray[np.float64]
    """(D, F), nats."""
    counted: NDArray[np.bool_]
    """(D,): codes that the mean is taken over."""
    dropped_factors: tuple[int, ...]
    """Factors with one value; they take no part."""
    notes: tuple[str, ...]


def mig(codes: ArrayLike, factors: ArrayLike, *, num_bins: int = NUM_BINS) -> MIGResult:
    """MIG of codes (N, D), in bins of equal width, and discrete factors (N, F); officially 10,000 rows and 20 bins.

    Raises `UserError`, naming the column, for codes that are not finite and factors that are not discrete, and where
    no factor varies.
    """
    table, labels, varying, notes = _prepare(codes, factors, num_bins)
    found = mutual_information(binned(table, num_bins), labels)
    entropy = entropies(labels)
    order = -np.sort(-found, axis=0)  # (D, F), largest first
    second = order[1] if len(order) > 1 else np.zeros(labels.shape[1])
    with np.errstate(invalid="ignore"):
        gaps = np.where(varying, (order[0] - second) / entropy, np.nan)
    if table.shape[1] == 1:
        notes = (*notes, "one code: the second best counts as 0")
    dropped = tuple(np.flatnonzero(~varying).tolist())
    return MIGResult(float(np.clip(gaps[varying].mean(), 0, 1)), gaps, found, entropy, dropped, notes)


def modularity(
    codes: ArrayLike, factors: ArrayLike, *, protocol: Protocol = "robust", num_bins: int = NUM_BINS
) -> ModularityResult:
    """Modularity of codes (N, D) and discrete factors (N, F); officially 10,000 rows and 20 bins.

    `official` takes the mean over all codes, so that dead ones count as 0 and noise as the bias of its information;
    `robust` over those that tell of a factor more than chance would. Raises `UserError` as `mig` does.
    """
    check_protocol(protocol)
    table, labels, varying, notes = _prepare(codes, factors, num_bins)
    bins = binned(table, num_bins)
    found = mutual_information(bins, labels)
    squared = found[:, varying] ** 2
    best = squared.max(axis=1)
    num_varying = int(varying.sum())
    counted = np.ones(len(found), bool)
    if protocol == "robust":
        counted = informative(found[:, varying], bins, labels[:, varying])
        if not counted.all():
            notes = (*notes, f"{plural(np.flatnonzero(~counted), 'code')} left out: no more information than chance")
    if num_varying == 1:
        per_code = np.full(len(found), np.nan)
        notes = (*notes, "one factor varies: modularity is not defined")
    else:
        rest = (squared.sum(axis=1) - best) / np.where(best > 0, best * (num_varying - 1), 1)
        per_code = np.where(best > 0, 1 - rest, 0.0)
    score = float(per_code[counted].mean()) if counted.any() else 0.0
    return ModularityResult(score, per_code, found, counted, tuple(np.flatnonzero(~varying).tolist()), notes)


def _prepare(
    codes: ArrayLike, factors: ArrayLike, num_bins: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_], tuple[str, ...]]:
    """Checked codes, labels, which factors vary, and notes about those that do not."""
    require(num_bins >= 2, f"num_bins is {num_bins}: must be at least 2")
    table = check_codes(codes, "codes")
    labels = as_labels(check_factors(factors, "factors", len(table)))
    varying, notes = varying_factors(labels, "factors")
    if len(table) < num_bins:
        notes = (*notes, f"{len(table)} rows are fewer than {num_bins} bins: information is mostly bias")
    return table, labels, varying, notes
