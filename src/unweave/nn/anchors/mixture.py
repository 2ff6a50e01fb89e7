"""EM (Dempster et al. 1977) for U independent mixtures of Gaussians with full covariances, in tiles of the points.

U mixtures (one per unit), A those that have not converged, n points, m points of a tile, K Gaussians, D dimensions.
All arithmetic is float64. The log-density of a Gaussian is a quadratic form, so it is linear in the F products of a
point's coordinates: one matrix product gives all densities, and another with the same products all moments. Beside the
points and the mixtures, memory holds a few temporaries of about `TILE_ELEMENTS` numbers each. Points should be
standardised: the rounding error of a log-density grows with the square of distance over standard deviation.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unweave.errors import require

TILE_ELEMENTS = 2**19  # units times features times points of a tile: 4 MiB, which fit into the cache
MIN_TILE_POINTS = 256  # with fewer points a matrix product is mostly overhead
SMALLEST_COUNT = 10 * torch.finfo(torch.float64).eps  # avoids division by zero for a Gaussian without points


class Mixture(NamedTuple):
    """U mixtures of at most K Gaussians; those in use come first, the others have weight 0."""

    weights: Tensor
    """(U, K), summing to 1 over K."""
    means: Tensor
    """(U, K, D)."""
    covariances: Tensor
    """(U, K, D, D)."""
    precision_chol: Tensor
    """(U, K, D, D): W with W W^T = covariance^-1, so that ||(x - mean) W||^2 is the Mahalanobis distance."""
    log_det: Tensor
    """(U, K): log |W|."""

    def take(self, units: Tensor) -> "Mixture":
        """The mixtures of some units."""
        return Mixture(*(part[units] for part in self))

    def put(self, units: Tensor, other: "Mixture") -> "Mixture":
        """These mixtures with those of some units replaced."""
        return Mixture(*(part.index_copy(0, units, new) for part, new in zip(self, other)))

    def widen(self, num: int) -> "Mixture":
        """The same mixtures with `num` Gaussians each: adds unused ones, or drops the last, which must be unused."""
        size = self.weights.shape[1]
        if num <= size:
            return Mixture(*(part[:, :num] for part in self))
        unit_rows = torch.eye(self.means.shape[2], dtype=torch.float64).expand(len(self.weights), num - size, -1, -1)
        zero = self.weights.new_zeros(len(self.weights), num - size)
        new = (zero, unit_rows[..., 0] * 0, unit_rows, unit_rows, zero)
        return Mixture(*(torch.cat([part, more], dim=1) for part, more in zip(self, new)))

    @property
    def num_alive(self) -> Tensor:
        """(U,): Gaussians in use."""
        return (self.weights > 0).sum(1)


class Points(NamedTuple):
    """Weighted points: values (U, n, D) and weights (U, n), the count of each value, float64."""

    values: Tensor
    weights: Tensor

    def take(self, units: Tensor) -> "Points":
        """The points of some units."""
        return Points(self.values[units], self.weights[units])


class Fit(NamedTuple):
    """Fitted mixtures, and the log-likelihood (U,) of the points under them."""

    mixture: Mixture
    log_likelihood: Tensor


def fit(points: Points, start: Mixture, reg_covar: float = 1e-6, max_steps: int = 200, tol: float = 1e-6) -> Fit:
    """EM from `start` until the log-likelihood per point changes by at most `tol`, or for `max_steps` M steps.

    Units that have converged are not changed while others continue. `reg_covar` is added to the diagonal of every
    covariance. Raises `UserError` if a covariance is not positive definite.
    """
    active = torch.arange(len(start.weights))
    mixture, remaining, totals = start, points, points.weights.sum(1)
    log_likelihood = torch.full_like(totals, -math.inf)
    for step in range(max_steps + 1):
        current = mixture.take(active)
        moments, reached = expect(remaining, current)
        moving = (reached - log_likelihood[active]).abs() > tol * totals[active]
        log_likelihood[active] = reached
        if step == max_steps or not moving.any():
            break
        better = maximise(current.take(moving), moments[moving], reg_covar)
        active, remaining = active[moving], remaining if moving.all() else remaining.take(moving)
        mixture = mixture.put(active, better)
    return Fit(mixture, log_likelihood)


def expect(points: Points, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """E step: the moments (A, K, F) of the points weighted by responsibility, sums of `_features` about
    `_centre(mixture)`, which preserves precision; and the log-likelihood (A,)."""
    coefficients = _coefficients(mixture)
    moments = torch.zeros_like(coefficients)
    log_likelihood = mixture.weights.new_zeros(len(mixture.weights))
    for some, features, counts in _tiles(points, mixture):
        log_joint = coefficients[some] @ features  # (a, K, m)
        best = log_joint.amax(1, keepdim=True)  # (a, 1, m)
        parts = log_joint.sub_(best).exp_()
        total = parts.sum(1, keepdim=True)
        responsibilities = parts.mul_(counts.unsqueeze(1) / total)
        moments[some] += responsibilities @ features.mT
        log_likelihood[some] += (counts * (total.log() + best).squeeze(1)).sum(1)
    return moments, log_likelihood


def maximise(mixture: Mixture, moments: Tensor, reg_covar: float) -> Mixture:
    """M step: weights, means and covariances from the moments about `_centre(mixture)`; unused Gaussians stay so."""
    counts = moments[..., 0] + SMALLEST_COUNT  # (A, K)
    shift, dim = _centre(mixture).unsqueeze(1), mixture.means.shape[2]
    offsets = moments[..., 1 : 1 + dim] / counts.unsqueeze(2)  # (A, K, D), from the centre
    second = _second_moments(moments[..., 1 + dim :], dim) / counts[..., None, None]
    scatter = second - offsets.unsqueeze(3) * offsets.unsqueeze(2)
    weights = torch.where(mixture.weights > 0, counts, 0)
    weights = weights / weights.sum(1, keepdim=True)
    return make_mixture(weights, offsets + shift, scatter, reg_covar)


def make_mixture(weights: Tensor, means: Tensor, scatter: Tensor, reg_covar: float = 0.0) -> Mixture:
    """Mixtures from weights (U, K), means (U, K, D) and covariances (U, K, D, D) without their ridge `reg_covar`.
    Raises `UserError` if a covariance is not positive definite."""
    covariances = scatter + reg_covar * torch.eye(means.shape[2], dtype=torch.float64)
    lower, info = torch.linalg.cholesky_ex(covariances)
    bad = info.nonzero().tolist()  # (U, K)
    where = f"of mixture {bad[0][0]}, Gaussian {bad[0][1]}" if bad else ""
    require(not bad, f"reg_covar is {reg_covar}: the covariance {where} is not positive definite, choose a larger one")
    identity = torch.eye(means.shape[2], dtype=torch.float64).expand_as(lower)
    precision_chol = torch.linalg.solve_triangular(lower, identity, upper=False).mT
    return Mixture(weights, means, covariances, precision_chol, precision_chol.diagonal(dim1=2, dim2=3).log().sum(2))


def num_parameters(mixture: Mixture) -> Tensor:
    """(U,): number of free parameters of each mixture, for BIC."""
    alive, dim = mixture.num_alive, mixture.means.shape[2]
    return alive * dim + alive - 1 + alive * (dim * (dim + 1) // 2)


def entropy(points: Points, mixture: Mixture) -> Tensor:
    """(U,): entropy of the assignment in nats, summed over the points; 0 if each point belongs to one Gaussian only."""
    coefficients = _coefficients(mixture)
    total = mixture.weights.new_zeros(len(mixture.weights))
    for some, features, counts in _tiles(points, mixture):
        responsibilities = (coefficients[some] @ features).softmax(1)  # (a, K, m)
        total[some] += (torch.special.entr(responsibilities).sum(1) * counts).sum(1)
    return total


def _tiles(points: Points, mixture: Mixture) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yields tiles of about `TILE_ELEMENTS` features: (slice of units, features (a, F, m) about the centres of the
    mixtures, weights (a, m)). A tile is valid until the next; for small mixtures it has many units."""
    # the number of units and points of a tile
    (x, weights), centre = points, _centre(mixture).unsqueeze(2)
    num_units, num_points, dim = x.shape
    num_features = _num_features(dim)
    width = max(mixture.weights.shape[1], num_features)
    group = max(1, min(num_units, TILE_ELEMENTS // (width * MIN_TILE_POINTS)))
    size = max(MIN_TILE_POINTS, TILE_ELEMENTS // (width * group))
    memory = centre.new_empty(group * num_features * size)  # reused: allocating takes longer than the arithmetic

    # the tiles
    for first in range(0, num_units, group):
        some = slice(first, first + group)
        for start in range(0, num_points, size):
            rows = slice(start, start + size)
            y = x[some, rows].mT - centre[some]
            features = memory[: len(y) * num_features * y.shape[2]].view(len(y), num_features, -1)
            yield some, _features(y, features), weights[some, rows]


def _centre(mixture: Mixture) -> Tensor:
    """(U, D): the mean of the whole mixture."""
    return (mixture.weights.unsqueeze(2) * mixture.means).sum(1)


_BLOCK = 8  # rows whose products are formed at once: few below the diagonal are computed twice


def _blocks(dim: int) -> Iterator[tuple[int, int]]:
    """The rows (first, end) of blocks of x x^T that, with the columns from `first`, cover its upper triangle."""
    return ((first, min(first + _BLOCK, dim)) for first in range(0, dim, _BLOCK))


def _num_features(dim: int) -> int:
    return 1 + dim + sum((end - first) * (dim - first) for first, end in _blocks(dim))


def _features(x: Tensor, out: Tensor) -> Tensor:
    """(a, D, m) -> (a, F, m), `out`: 1, x, and the blocks of x x^T. A log-density is linear in these, and moments are
    sums of them. The points are the last axis, so that operations on them run along memory."""
    dim = x.shape[1]
    out[:, 0] = 1
    out[:, 1 : 1 + dim] = x
    start = 1 + dim
    for first, end in _blocks(dim):
        stop = start + (end - first) * (dim - first)
        product = out[:, start:stop].unflatten(1, (end - first, dim - first))
        torch.mul(x[:, first:end, None], x[:, None, first:], out=product)
        start = stop
    return out


def _coefficients(mixture: Mixture) -> Tensor:
    """(U, K, F): log(weight_k N(x; mean_k, covariance_k)) is the product of these and the `_features` of x about the
    centre: -(x - mean) P (x - mean)^T / 2 expanded, P the inverse of the covariance."""
    dim = mixture.means.shape[2]
    means = mixture.means - _centre(mixture).unsqueeze(1)
    precision = mixture.precision_chol @ mixture.precision_chol.mT  # (U, K, D, D)
    linear = (precision @ means.unsqueeze(3)).squeeze(3)  # (U, K, D)
    constant = mixture.weights.log() + mixture.log_det - 0.5 * dim * math.log(2 * math.pi)
    parts = [(constant - 0.5 * (linear * means).sum(2)).unsqueeze(2), linear]
    for first, end in _blocks(dim):
        block = -precision[:, :, first:end, first:]
        block[..., : end - first] *= 0.5  # the features have both triangles of this square, and one of the rest
        parts.append(block.flatten(2))
    return torch.cat(parts, dim=2)


def _second_moments(products: Tensor, dim: int) -> Tensor:
    """The sums of x x^T (A, K, D, D) from the sums of their blocks, see `_features`."""
    whole = products.new_zeros(*products.shape[:2], dim, dim)
    start = 0
    for first, end in _blocks(dim):
        stop = start + (end - first) * (dim - first)
        whole[..., first:end, first:] = products[..., start:stop].unflatten(2, (end - first, dim - first))
        start = stop
    return whole.triu() + whole.triu(1).mT
