"""InfoMEC (Hsu et al. 2023): modularity, compactness and explicitness from normalised mutual information."""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.errors import require
from unweave.metrics.information import binned, entropies, informative, mutual_information, neighbour_information
from unweave.metrics.inputs import Protocol, Standardiser, as_labels, check_protocol, check_rows, plural
from unweave.metrics.linear import logistic_regression
from unweave.metrics.metric import Description, Metric

Prune = Literal["iqr10", "range20"]
SMALLEST_SUM = 1e-6
"""Added to the information of a factor over all codes, as in the published file."""


class InfoMECResult(NamedTuple):
    """InfoM, InfoC and InfoE of D codes for F factors, 0 to 1 each."""

    modularity: float
    """InfoM: does each active code have information about one factor only?"""
    compactness: float
    """InfoC: is the information about each factor in one active code?"""
    explicitness: float
    """InfoE: part of a factor's entropy that a linear model of all codes explains, on the rows it was fitted to."""
    nmi: NDArray[np.float64]
    """(F, D): mutual information over the factor's entropy, by nearest neighbours; NaN for a dropped factor."""
    active: NDArray[np.bool_]
    """(D,): codes that are not pruned."""
    dropped_factors: tuple[int, ...]
    """Factors with one value; they take no part."""
    notes: tuple[str, ...]


def infomec(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    protocol: Protocol = "robust",
    seed: int = 0,
    prune: Prune = "iqr10",
    discrete: bool = False,
) -> InfoMECResult:
    """InfoMEC of codes (N, D) and discrete factors (N, F), officially 10,000 rows.

    `official`: a code is active when its interquartile range is above a tenth of the largest (`iqr10`, as in the DyGA
    and Tripod code), or its range above a twentieth of the largest (`range20`, as first published). `robust`: when it
    has more information about a factor than chance, whatever its scale. `seed` is that of the jitter that keeps equal
    codes apart; what the jitter alone says of a factor is in the matrix of `official` and 0 in that of `robust`.

    `discrete` is for quantised codes, whose values are names: information is counted, not estimated from neighbours,
    the linear model sees one column per value, and officially a code is active when its interquartile range is above
    0.1 (`iqr10`), or when it moves at all (`range20`).

    Raises `UserError`, naming the column, for codes that are not finite, factors that are not discrete, and where no
    factor varies.
    """
    check_protocol(protocol)
    require(prune in ("iqr10", "range20"), f"prune is {prune!r}: choose iqr10 or range20")
    table, labels, varying, notes = check_rows(codes, factors)
    standardise = Standardiser.of(table)
    scaled = standardise(table)
    free = labels[:, varying]
    values = as_labels(table) if discrete else None
    if values is None:
        information = neighbour_information(scaled, free, np.random.RandomState(seed))  # (F', D)
    else:
        information = mutual_information(values, free).T
    if protocol == "robust":
        information[:, standardise.constant] = 0
    nmi = np.full((labels.shape[1], table.shape[1]), np.nan)
    nmi[varying] = information / entropies(free)[:, None]
    if protocol == "robust":
        bins = binned(table) if values is None else values
        active, rule = informative(mutual_information(bins, free), bins, free), "no more information than chance"
    else:
        active, rule = _active(table, prune, discrete) & ~standardise.constant, prune
    if not active.all():
        notes = (*notes, f"{plural(np.flatnonzero(~active), 'code')} not active: {rule}")
    modularity, uninformed = _modularity(nmi[varying][:, active])
    if uninformed:
        notes = (*notes, f"{uninformed} active codes have no information about any factor: left out of InfoM")
    if varying.sum() == 1:
        notes = (*notes, "one factor varies: InfoM is not defined")
    if active.sum() <= 1:
        notes = (*notes, f"{active.sum()} codes are active: InfoC is {'1' if active.any() else '0'} by convention")
    numbers = {
        "modularity": modularity,
        "compactness": _compactness(nmi[varying][:, active]),
        "explicitness": _explicitness(scaled if values is None else _one_hot(values), free),
    }
    below = [name for name, value in numbers.items() if value < 0]
    if below and protocol == "robust":
        numbers.update(dict.fromkeys(below, 0.0))
        notes = (*notes, f"{' and '.join(below)} below chance: counted as 0")
    return InfoMECResult(
        **numbers,
        nmi=nmi,
        active=active,
        dropped_factors=tuple(np.flatnonzero(~varying).tolist()),
        notes=notes,
    )


def _active(codes: NDArray[np.float64], prune: Prune, discrete: bool) -> NDArray[np.bool_]:
    if prune == "iqr10":
        spread = np.subtract(*np.quantile(codes, [0.75, 0.25], axis=0))
        return spread > (0.1 if discrete else spread.max() / 10)
    spread = np.ptp(codes, axis=0)
    return spread > (0 if discrete else spread.max() / 20)


def _one_hot(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """Codes (N, D) of classes -> (N, sum of their numbers of values)."""
    return np.concatenate([np.eye(column.max() + 1)[column] for column in values.T], axis=1)


def _modularity(nmi: NDArray[np.float64]) -> tuple[float, int]:
    """InfoM of (F, A), and how many codes have no information."""
    num_factors, total = len(nmi), nmi.sum(axis=0)
    informed = total > 0
    if num_factors == 1:
        return float("nan"), int((~informed).sum())
    if not informed.any():
        return 0.0, int((~informed).sum())
    part = (nmi.max(axis=0)[informed] / total[informed]).mean()
    return float((part - 1 / num_factors) / (1 - 1 / num_factors)), int((~informed).sum())


def _compactness(nmi: NDArray[np.float64]) -> float:
    num_codes = nmi.shape[1]
    if num_codes <= 1:
        return float(num_codes)
    part = (nmi.max(axis=1) / (nmi.sum(axis=1) + SMALLEST_SUM)).mean()
    return float((part - 1 / num_codes) / (1 - 1 / num_codes))


def _explicitness(codes: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean over factors of 1 - loss / log K, the loss of a balanced, unpenalised multinomial logistic regression.

    log K is the loss of the same model without codes, since the classes are balanced.
    """
    from sklearn.metrics import log_loss  # see `linear`

    parts = []
    for column in labels.T:
        model = logistic_regression(codes, column, C=np.inf, class_weight="balanced")
        null = np.log(len(model.classes_))
        parts.append((null - log_loss(column, model.predict_proba(codes))) / null)
    return float(np.mean(parts))


_SOURCE = "Hsu et al. 2023"
METRIC = Metric(
    "infomec",
    lambda sample: infomec(*sample.rows[:2], protocol=sample.protocol, seed=sample.seed),
    {
        "modularity": lambda result: (result.modularity, math.nan),
        "compactness": lambda result: (result.compactness, math.nan),
        "explicitness": lambda result: (result.explicitness, 0.0),
    },
    {
        "modularity": Description(
            "InfoMEC modularity", _SOURCE, "does each code have information about one factor only?", "above 0"
        ),
        "compactness": Description(
            "InfoMEC compactness", _SOURCE, "is the information about each factor in one code only?", "above 0"
        ),
        "explicitness": Description(
            "InfoMEC explicitness", _SOURCE, "how much of the factors does a linear model of all codes explain?", "0"
        ),
    },
    matrix=lambda result: result.nmi.T,
)
