"""DCI: disentanglement, completeness and informativeness (Eastwood and Williams 2018), importances by boosted trees.

Estimator and weights are disentanglement_lib's (Locatello et al. 2019). D codes, F factors, R (D, F) importances.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.metrics import boosting
from unweave.metrics.inputs import check_pair, plural, varying_factors
from unweave.metrics.metric import Description, Metric

SMOOTHING = 1e-11
"""Added to importances before their entropy is taken."""


class DCIResult(NamedTuple):
    """DCI scores of D codes for F factors."""

    disentanglement: float
    """0 to 1: does each code serve one factor? NaN, with a note, where one factor varies."""
    completeness: float
    """0 to 1: is each factor served by one code? NaN, with a note, where there is one code."""
    informativeness_train: float
    """Mean over factors of the accuracy on the training rows."""
    informativeness_test: float
    """The same on the test rows."""
    importance: NDArray[np.float64]
    """(D, F), columns sum to 1; 0 where no code varies, NaN for a dropped factor."""
    accuracy_train: NDArray[np.float64]
    """(F,), NaN for a dropped factor."""
    accuracy_test: NDArray[np.float64]
    """(F,), NaN for a dropped factor."""
    dropped_factors: tuple[int, ...]
    """Factors with one value in the training rows; they take no part in the scores."""
    notes: tuple[str, ...]
    """What was left out or makes a score mean less."""


def dci(
    codes_train: ArrayLike,
    factors_train: ArrayLike,
    codes_test: ArrayLike,
    factors_test: ArrayLike,
    *,
    seed: int = 0,
    num_threads: int | None = None,
    progress: boosting.Progress | None = None,
) -> DCIResult:
    """DCI from codes (N, D) and discrete factors (N, F) of training rows (officially 10,000) and test rows (5,000).

    As in the reference, codes are rounded to float32, and neighbouring values within 1e-7 of each other count as equal.
    `seed` decides between equally good splits; the result does not depend on `num_threads` (all cores unless given).
    `progress` is called with (trees grown, trees in all), a hundred times. Raises `UserError`, naming the column, for
    codes that are not finite and factors that are not discrete; also for shapes that do not match, and where no factor
    varies.
    """
    train, labels, test, labels_test = check_pair(codes_train, factors_train, codes_test, factors_test)
    varying, _ = varying_factors(labels, "factors_train")

    model = boosting.fit(train, labels[:, varying], seed=seed, num_threads=num_threads, progress=progress)
    accuracy_train = _accuracy(model.fitted, labels, varying)
    accuracy_test = _accuracy(model.predict(test, num_threads), labels_test, varying)
    importance = np.full((train.shape[1], labels.shape[1]), np.nan)
    importance[:, varying] = model.importances
    return DCIResult(
        disentanglement=disentanglement(model.importances),
        completeness=completeness(model.importances),
        informativeness_train=float(accuracy_train[varying].mean()),
        informativeness_test=float(accuracy_test[varying].mean()),
        importance=importance,
        accuracy_train=accuracy_train,
        accuracy_test=accuracy_test,
        dropped_factors=tuple(np.flatnonzero(~varying).tolist()),
        notes=_notes(model, train, labels_test, varying),
    )


def disentanglement(importance: NDArray[np.float64]) -> float:
    """D = sum_d rho_d (1 - H_F(R_d / sum R_d)) of importances R (D, F), rho_d the part of code d in all importance.

    NaN for one factor, 0 where all importances are 0.
    """
    num_factors = importance.shape[1]
    if num_factors == 1:
        return float("nan")
    total = importance.sum()
    if total == 0:
        return 0.0
    weight = importance.sum(axis=1) / total
    return float(np.clip(weight @ (1 - _entropy(importance) / np.log(num_factors)), 0, 1))  # rounding may leave [0, 1]


def completeness(importance: NDArray[np.float64]) -> float:
    """C = sum_j weight_j (1 - H_D(R_j / sum R_j)), the same of the columns: NaN for one code."""
    return disentanglement(importance.T)


def _entropy(importance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of each row in nats."""
    part = importance + SMOOTHING
    part /= part.sum(axis=1, keepdims=True)
    return -(part * np.log(part)).sum(axis=1)


def _accuracy(predicted: NDArray[Any], labels: NDArray[Any], varying: NDArray[np.bool_]) -> NDArray[np.float64]:
    accuracy = np.full(len(varying), np.nan)
    accuracy[varying] = (predicted == labels[:, varying]).mean(axis=0)
    return accuracy


def _notes(
    model: boosting.Boosting, train: NDArray[np.float64], labels_test: NDArray[Any], varying: NDArray[np.bool_]
) -> tuple[str, ...]:
    notes = []
    if not varying.all():
        notes.append(f"{plural(np.flatnonzero(~varying), 'factor')} left out: one value only")
    collapsed = np.flatnonzero(~boosting.can_split(train) & (np.ptp(train, axis=0) > 0))
    if collapsed.size:
        notes.append(f"{plural(collapsed, 'code')} count as constant: no values are more than 1e-7 apart as float32")
    if not model.importances.any():
        notes.append("no code predicts any factor: disentanglement and completeness are 0")
    if model.importances.shape[1] == 1:
        notes.append("one factor varies: disentanglement is not defined")
    if model.importances.shape[0] == 1:
        notes.append("one code: completeness is not defined")
    columns = np.flatnonzero(varying)
    known = [np.isin(labels_test[:, column], values).all() for column, values in zip(columns, model.classes)]
    if not all(known):
        notes.append(
            f"{plural(columns[~np.asarray(known)], 'factor')}: a value of some test rows is in no training row"
        )
    return tuple(notes)


_SOURCE = "Eastwood and Williams 2018"
METRIC = Metric(
    "dci",
    lambda sample: dci(*sample.rows, seed=sample.seed),
    {
        "disentanglement": lambda result: (result.disentanglement, 0.0),
        "completeness": lambda result: (result.completeness, 0.0),
        "informativeness": lambda result: (result.informativeness_test, math.nan),
    },
    {
        "disentanglement": Description("DCI disentanglement", _SOURCE, "does each code predict one factor only?", "0"),
        "completeness": Description("DCI completeness", _SOURCE, "is each factor predicted by one code only?", "0"),
        "informativeness": Description(
            "DCI informativeness", _SOURCE, "how accurately do all codes together predict the factors?", "majority"
        ),
    },
    matrix=lambda result: result.importance,
    published=True,
)
