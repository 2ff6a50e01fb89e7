"""MIG, the mutual information gap (Chen et al. 2018)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.metrics.information import NUM_BINS, binned_inputs, entropies, mutual_information
from unweave.metrics.metric import Description, Metric, only


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


def mig(codes: ArrayLike, factors: ArrayLike, *, num_bins: int = NUM_BINS) -> MIGResult:
    """MIG of codes (N, D), in bins of equal width, and discrete factors (N, F); officially 10,000 rows and 20 bins.

    Raises `UserError`, naming the column, for codes that are not finite and factors that are not discrete, and where
    no factor varies.
    """
    bins, labels, varying, notes = binned_inputs(codes, factors, num_bins)
    information = mutual_information(bins, labels)
    entropy = entropies(labels)
    order = -np.sort(-information, axis=0)  # (D, F), largest first
    second = order[1] if len(order) > 1 else np.zeros(labels.shape[1])
    with np.errstate(invalid="ignore"):
        gaps = np.where(varying, (order[0] - second) / entropy, np.nan)
    if len(information) == 1:
        notes = (*notes, "one code: the second best counts as 0")
    dropped = tuple(np.flatnonzero(~varying).tolist())
    return MIGResult(float(np.clip(gaps[varying].mean(), 0, 1)), gaps, information, entropy, dropped, notes)


METRIC = Metric(
    "mig",
    lambda sample: mig(*sample.rows[:2]),
    only(chance=0.0),
    {
        "score": Description(
            "MIG",
            "Chen et al. 2018",
            "how much more information about a factor has the best code than the second best?",
            "0",
        )
    },
    matrix=lambda result: result.mutual_information,
)
