"""scikit-learn's linear models, fitted without its warning that a published limit of steps was reached.

It is imported with the first fit: pictures are scored during training, and there each process that reads images would
hold another copy of it.
"""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.linear_model import Lasso, LogisticRegression
    from sklearn.svm import LinearSVC


def logistic_regression(codes: NDArray[np.float64], labels: NDArray[np.int64], **options: Any) -> "LogisticRegression":
    """Fitted to codes (N, D) and labels (N,)."""
    from sklearn.linear_model import LogisticRegression

    return _fitted(LogisticRegression(**options), codes, labels)


def support_vector_machine(codes: NDArray[np.float64], labels: NDArray[np.int64], **options: Any) -> "LinearSVC":
    """Fitted to codes (N, D) and labels (N,)."""
    from sklearn.svm import LinearSVC

    return _fitted(LinearSVC(**options), codes, labels)


def lasso(codes: NDArray[np.float64], values: NDArray[np.float64], penalty: float) -> "Lasso":
    """Fitted to codes (N, D) and values (N, V)."""
    from sklearn.linear_model import Lasso

    return Lasso(alpha=penalty).fit(codes, values)


def _fitted(model: Any, codes: NDArray[np.float64], labels: NDArray[np.int64]) -> Any:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(codes, labels)
