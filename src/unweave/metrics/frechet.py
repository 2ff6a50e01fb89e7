"""The distance of two sets of features as that of the Gaussians with their means and covariances (Dowson and Landau
1982); of Inception's features it is the FID (Heusel et al. 2017). n rows, d features."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.errors import require
from unweave.metrics.inputs import check_codes


class Moments:
    """Mean and covariance of rows that come in pieces, in float64; what is kept is (d, d), however many there are.

    Sums are taken around the means (Chan, Golub and LeVeque 1983), so that a large mean costs no digits.
    """

    def __init__(self, width: int) -> None:
        self.num = 0
        self.mean = np.zeros(width)
        self._scatter = np.zeros((width, width))

    def update(self, features: ArrayLike) -> None:
        """Takes in rows (n, d). Raises `UserError` for another width and for numbers that are not finite."""
        rows = check_codes(features, "features")
        require(rows.shape[1] == len(self.mean), f"features have {rows.shape[1]} columns, not {len(self.mean)}")
        mean = rows.mean(axis=0)
        rows -= mean
        self._add(len(rows), mean, rows.T @ rows)

    def merge(self, other: "Moments") -> None:
        """Takes in the rows that `other` has seen. Raises `UserError` for another width."""
        require(
            len(other.mean) == len(self.mean), f"moments of {len(other.mean)} features, not {len(self.mean)}: no sum"
        )
        if other.num:
            self._add(other.num, other.mean, other._scatter)

    def _add(self, num: int, mean: NDArray[np.float64], scatter: NDArray[np.float64]) -> None:
        total, apart = self.num + num, mean - self.mean
        self._scatter += scatter + np.outer(apart, apart) * (self.num * num / total)
        self.mean = self.mean + apart * (num / total)
        self.num = total

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(d, d), with n - 1 below the sum. Raises `UserError` for fewer than two rows."""
        require(self.num >= 2, f"features have {self.num} rows: a covariance needs at least 2")
        return self._scatter / (self.num - 1)


def frechet_distance(first: Moments, second: Moments) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)), at least 0: 2-Wasserstein between the Gaussians, squared.

    (S S')^(1/2) has the eigenvalues of the symmetric (R S' R)^(1/2) with R = S^(1/2). Those are real, and one that
    rounding makes negative is 0, also where there are fewer rows than features. Raises `UserError` for moments of
    different widths or of fewer than two rows.
    """
    require(
        len(first.mean) == len(second.mean),
        f"moments of {len(first.mean)} and of {len(second.mean)} features: give both the same",
    )
    one, two = first.covariance, second.covariance
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ two @ root), 0)).sum()
    apart = first.mean - second.mean
    return max(0.0, float(apart @ apart + np.trace(one) + np.trace(two) - 2 * overlap))
