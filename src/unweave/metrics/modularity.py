"""Modularity (Ridgeway and Mozer 2018), from the mutual information of codes and factors."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.metrics.information import NUM_BINS, binned_inputs, informative, mutual_information
from unweave.metrics.inputs import Protocol, check_protocol, plural
from unweave.metrics.metric import Description, Metric, only


class ModularityResult(NamedTuple):
    """Modularity of D codes for F factors."""

    score: float
    """Mean over codes, 0 to 1; NaN, with a note, where one factor varies."""
    per_code: NDArray[np.float64]
    """(D,): 1 where a code has information about one factor only; 0 where about none."""
    mutual_information: NDArray[np.float64]
    """(D, F), nats."""
    counted: NDArray[np.bool_]
    """(D,): codes that the mean is taken over."""
    dropped_factors: tuple[int, ...]
    """Factors with one value; they take no part."""
    notes: tuple[str, ...]


def modularity(
    codes: ArrayLike, factors: ArrayLike, *, protocol: Protocol = "robust", num_bins: int = NUM_BINS
) -> ModularityResult:
    """Modularity of codes (N, D) and discrete factors (N, F); officially 10,000 rows and 20 bins.

    `official` takes the mean over all codes, so that dead ones count as 0 and noise as the bias of its information;
    `robust` over those with more information about a factor than chance. Raises `UserError` as `mig` does.
    """
    check_protocol(protocol)
    bins, labels, varying, notes = binned_inputs(codes, factors, num_bins)
    information = mutual_information(bins, labels)
    squared = information[:, varying] ** 2
    best = squared.max(axis=1)
    num_varying = int(varying.sum())
    counted = np.ones(len(information), bool)
    if protocol == "robust":
        counted = informative(information[:, varying], bins, labels[:, varying])
        if not counted.all():
            notes = (*notes, f"{plural(np.flatnonzero(~counted), 'code')} left out: no more information than chance")
    if num_varying == 1:
        per_code = np.full(len(information), np.nan)
        notes = (*notes, "one factor varies: modularity is not defined")
    else:
        rest = (squared.sum(axis=1) - best) / np.where(best > 0, best * (num_varying - 1), 1)
        per_code = np.where(best > 0, 1 - rest, 0.0)
    score = float(per_code[counted].mean()) if counted.any() else 0.0
    return ModularityResult(score, per_code, information, counted, tuple(np.flatnonzero(~varying).tolist()), notes)


METRIC = Metric(
    "modularity",
    lambda sample: modularity(*sample.rows[:2], protocol=sample.protocol),
    only(),
    {
        "score": Description(
            "modularity", "Ridgeway and Mozer 2018", "does each code have information about one factor only?", "above 0"
        )
    },
    matrix=lambda result: result.mutual_information,
)
