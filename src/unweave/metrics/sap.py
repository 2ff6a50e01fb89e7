"""SAP (Kumar et al. 2018): how much better the best single code predicts each factor than the second best."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.errors import require
from unweave.metrics.inputs import Protocol, Standardiser, check_codes, check_pair, check_protocol, varying_factors
from unweave.metrics.linear import support_vector_machine
from unweave.metrics.metric import Description, Metric, only

SMALLEST_VARIANCE = 1e-12


class SAPResult(NamedTuple):
    """SAP of D codes and F factors."""

    score: float
    """Mean gap. A perfect code does not reach 1 on factors of many values: a line cannot pick a middle value."""
    matrix: NDArray[np.float64]
    """(D, F): accuracy on the test rows, or squared correlation; NaN for a dropped factor."""
    dropped_factors: tuple[int, ...]
    """Factors with one value in the training rows; they take no part."""
    notes: tuple[str, ...]


def sap(
    codes_train: ArrayLike,
    factors_train: ArrayLike,
    codes_test: ArrayLike,
    factors_test: ArrayLike,
    *,
    protocol: Protocol = "robust",
) -> SAPResult:
    """SAP of discrete factors: test accuracy of a linear support vector machine on each single code.

    Codes (N, D) and factors (N, F) of training rows (officially 10,000) and test rows (5,000). `official` takes the
    codes as they are, whose scale then matters (C is 0.01); `robust` standardises them. Raises `UserError`, naming the
    column, for codes that are not finite, factors that are not discrete, and where no factor varies.
    """
    check_protocol(protocol)
    train, labels, test, labels_test = check_pair(codes_train, factors_train, codes_test, factors_test)
    varying, notes = varying_factors(labels, "factors_train")
    if protocol == "robust":
        standardise = Standardiser.of(train)
        train, test = standardise(train), standardise(test)
    matrix = np.full((train.shape[1], labels.shape[1]), np.nan)
    options = {"C": 0.01, "class_weight": "balanced", "dual": "auto", "random_state": 0}
    for factor in np.flatnonzero(varying):
        for code in range(train.shape[1]):
            machine = support_vector_machine(train[:, code : code + 1], labels[:, factor], **options)
            right = np.equal(machine.predict(test[:, code : code + 1]), labels_test[:, factor])
            matrix[code, factor] = right.mean()
    return _result(matrix, varying, notes)


def sap_continuous(codes: ArrayLike, factors: ArrayLike) -> SAPResult:
    """SAP of continuous factors (N, F): the squared correlation of each code (N, D) with each factor.

    Raises `UserError`, naming the column, for values that are not finite, and where no factor varies.
    """
    table, targets = check_codes(codes, "codes"), check_codes(factors, "factors")
    require(len(table) == len(targets), f"factors has {len(targets)} rows, the codes {len(table)}: give one per code")
    varying, notes = varying_factors(targets, "factors")
    ours, theirs = table - table.mean(axis=0), targets - targets.mean(axis=0)
    covariance = ours.T @ theirs / (len(table) - 1)
    variances = ours.var(axis=0, ddof=1)[:, None], theirs.var(axis=0, ddof=1)
    alive = variances[0] > SMALLEST_VARIANCE
    matrix = np.where(alive, covariance**2 / np.where(alive, variances[0], 1) / np.where(varying, variances[1], 1), 0.0)
    return _result(np.where(varying, matrix, np.nan), varying, notes)


def _result(matrix: NDArray[np.float64], varying: NDArray[np.bool_], notes: tuple[str, ...]) -> SAPResult:
    order = -np.sort(-matrix[:, varying], axis=0)
    second = order[1] if len(order) > 1 else np.zeros(order.shape[1])
    if len(order) == 1:
        notes = (*notes, "one code: the second best counts as 0")
    dropped = tuple(np.flatnonzero(~varying).tolist())
    return SAPResult(float((order[0] - second).mean()), matrix, dropped, notes)


METRIC = Metric(
    "sap",
    lambda sample: sap(*sample.rows, protocol=sample.protocol),
    only(chance=0.0),
    {
        "score": Description(
            "SAP", "Kumar et al. 2018", "how much better does the best code predict a factor than the second best?", "0"
        )
    },
    matrix=lambda result: result.matrix,
)
