"""EM for U independent Gaussian mixtures at once, streamed in chunks (method section 5.6 as corrected by 5.6a).

U mixtures (one per unit), A those that have not converged, n points, m points of a chunk, K Gaussians, D dimensions.
All arithmetic is float64. A Gaussian's log-density is a quadratic form, so it is linear in the F products of a point's
coordinates: one matrix product gives all densities, and one with the same products all moments. What is held at once,
beside the points and the mixtures themselves, is about `TILE_ELEMENTS` numbers for each of a few temporaries. Points
want to be standardised: of a log-density, digits are lost as the square of distance over standard deviation.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from unweave.errors import require

Covariance = Literal["full", "diag", "hddc"]
Reduce = Callable[[Tensor], Tensor]

TILE_ELEMENTS = 2**19  # units times features times points of a tile: 4 MiB, which stay near the cores
CHUNK_ELEMENTS = 2**21  # of a chunk of points (U, m, D): 16 MiB
MIN_TILE_POINTS = 256  # fewer points at once leave a matrix product mostly overhead
SMALLEST_COUNT = 10 * torch.finfo(torch.float64).eps  # keeps a Gaussian without points from dividing by zero
HDDC_THRESHOLD = 1e-4  # of an eigenvalue over the Frobenius norm: the official code's, there computed and never used


class Mixture(NamedTuple):
    """U mixtures of at most K Gaussians; those in use come first, the others have weight 0."""

    weights: Tensor
    """(U, K), summing to 1 over K."""
    means: Tensor
    """(U, K, D)."""
    covariances: Tensor
    """(U, K, D, D)."""
    factors: Tensor
    """(U, K, D, D): W with W W^T = covariance^-1, so that ||(x - mean) W||^2 is the Mahalanobis distance."""
    log_det: Tensor
    """(U, K): log |W|."""
    dims: Tensor
    """(U, K): directions with a variance of their own, D unless the covariance is `hddc`."""

    def take(self, units: Tensor) -> "Mixture":
        """The mixtures of some units."""
        return Mixture(*(part[units] for part in self))

    def put(self, units: Tensor, other: "Mixture") -> "Mixture":
        """These mixtures with those of some units exchanged."""
        return Mixture(*(part.index_copy(0, units, new) for part, new in zip(self, other)))

    def widen(self, num: int) -> "Mixture":
        """The same mixtures with room for `num` Gaussians, the new ones unused; fewer if the last ones are unused."""
        size = self.weights.shape[1]
        if num <= size:
            return Mixture(*(part[:, :num] for part in self))
        unit_rows = torch.eye(self.means.shape[2], dtype=torch.float64).expand(len(self.weights), num - size, -1, -1)
        zero = self.weights.new_zeros(len(self.weights), num - size)
        new = (zero, unit_rows[..., 0] * 0, unit_rows, unit_rows, zero, zero.to(self.dims.dtype))
        return Mixture(*(torch.cat([part, more], dim=1) for part, more in zip(self, new)))

    @property
    def num_alive(self) -> Tensor:
        """(U,): Gaussians in use."""
        return (self.weights > 0).sum(1)


class Points(Protocol):
    """What a mixture is fitted to: U sets of n weighted points, read a chunk at a time."""

    def chunks(self, units: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Points (A, m, D) and their weights (A, m) of some units, float64, together all n of them once."""
        ...


class HeldPoints(NamedTuple):
    """Points in memory: values (U, n, D) and weights (U, n), how often each counts."""

    values: Tensor
    weights: Tensor

    def chunks(self, units: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        _, n, dim = self.values.shape
        size = max(1, CHUNK_ELEMENTS // (len(units) * dim))
        for start in range(0, n, size):
            rows = slice(start, start + size)
            yield self.values[units, rows], self.weights[units, rows]


class Fit(NamedTuple):
    """Fitted mixtures, and the log-likelihood (U,) of the points under exactly these."""

    mixture: Mixture
    log_likelihood: Tensor


def fit(
    points: Points,
    start: Mixture,
    covariance: Covariance = "full",
    reg_covar: float = 1e-6,
    max_steps: int = 200,
    tol: float = 1e-6,
    reduce: Reduce | None = None,
) -> Fit:
    """EM from `start` until the log-likelihood per point moves by at most `tol`, or for `max_steps` M steps.

    A unit that has converged is left alone while others go on. `reg_covar` is added to the diagonal of every
    covariance. `reduce` sums a tensor over processes that hold different points of the same units; all of them then
    get the same mixtures. Raises `UserError` when a covariance is not positive definite.
    """
    active = torch.arange(len(start.weights))
    mixture, totals = start, _total_weights(points, active, reduce)
    log_likelihood = torch.full_like(totals, -math.inf)
    for step in range(max_steps + 1):
        current = mixture.take(active)
        moments, found = expect(points, current, active, covariance, reduce)
        moving = (found - log_likelihood[active]).abs() > tol * totals[active]
        log_likelihood[active] = found
        if step == max_steps or not moving.any():
            break
        better = maximise(current.take(moving), moments[moving], covariance, reg_covar)
        active = active[moving]
        mixture = mixture.put(active, better)
    return Fit(mixture, log_likelihood)


def expect(
    points: Points, mixture: Mixture, units: Tensor, covariance: Covariance, reduce: Reduce | None = None
) -> tuple[Tensor, Tensor]:
    """E step: the moments (A, K, F) of the points that each Gaussian answers for, sums of `_features` about
    `_centre(mixture)`, which keeps their digits; and the log-likelihood (A,)."""
    coefficients = _coefficients(mixture, covariance)
    moments = torch.zeros_like(coefficients)
    log_likelihood = mixture.weights.new_zeros(len(units))
    for some, features, counts in _tiles(points, units, mixture, covariance):
        log_joint = coefficients[some] @ features  # (a, K, m)
        best = log_joint.amax(1, keepdim=True)  # (a, 1, m)
        parts = log_joint.sub_(best).exp_()
        total = parts.sum(1, keepdim=True)
        answers = parts.mul_(counts.unsqueeze(1) / total)
        moments[some] += answers @ features.mT
        log_likelihood[some] += (counts * (total.log() + best).squeeze(1)).sum(1)
    return _summed(moments, reduce), _summed(log_likelihood, reduce)


def maximise(mixture: Mixture, moments: Tensor, covariance: Covariance, reg_covar: float) -> Mixture:
    """M step: weights, means and covariances from the moments about `_centre(mixture)`; unused Gaussians stay so."""
    counts = moments[..., 0] + SMALLEST_COUNT  # (A, K)
    shift, dim = _centre(mixture).unsqueeze(1), mixture.means.shape[2]
    offsets = moments[..., 1 : 1 + dim] / counts.unsqueeze(2)  # (A, K, D), from the centre
    second = _second_moments(moments[..., 1 + dim :], dim, covariance) / counts[..., None, None]
    scatter = second - offsets.unsqueeze(3) * offsets.unsqueeze(2)
    weights = torch.where(mixture.weights > 0, counts, 0)
    weights = weights / weights.sum(1, keepdim=True)
    return make_mixture(weights, offsets + shift, scatter, covariance, reg_covar)


def make_mixture(
    weights: Tensor, means: Tensor, scatter: Tensor, covariance: Covariance = "full", reg_covar: float = 0.0
) -> Mixture:
    """Mixtures (U, K) from weights, means (U, K, D) and covariances (U, K, D, D) before their ridge `reg_covar`.

    `diag` takes the diagonals only. `hddc` (Bouveyron et al. 2007, model [a_kj b_k Q_k d_k]) keeps the d_k largest
    eigenvalues and gives their mean to all others. Raises `UserError` when a covariance is not positive definite.
    """
    dim = means.shape[2]
    if covariance == "hddc":
        return _hddc_mixture(weights, means, scatter, reg_covar)
    ridged = scatter + reg_covar * torch.eye(dim, dtype=torch.float64)
    dims = torch.full_like(weights, dim, dtype=torch.int64)
    if covariance == "diag":
        variances = ridged.diagonal(dim1=2, dim2=3)  # (U, K, D)
        _require_positive(variances.amin(2), reg_covar)
        log_det = -0.5 * variances.log().sum(2)
        return Mixture(weights, means, variances.diag_embed(), variances.rsqrt().diag_embed(), log_det, dims)
    lower, info = torch.linalg.cholesky_ex(ridged)
    _require_positive(-info, reg_covar, least=0)
    identity = torch.eye(dim, dtype=torch.float64).expand_as(lower)
    factors = torch.linalg.solve_triangular(lower, identity, upper=False).mT
    return Mixture(weights, means, ridged, factors, factors.diagonal(dim1=2, dim2=3).log().sum(2), dims)


def _hddc_mixture(weights: Tensor, means: Tensor, scatter: Tensor, reg_covar: float) -> Mixture:
    dim = means.shape[2]
    values, vectors = torch.linalg.eigh(scatter)  # ascending
    values, vectors = values.flip(2).clamp_min(0), vectors.flip(3)
    norm = torch.linalg.vector_norm(values, dim=2, keepdim=True)  # the Frobenius norm
    dims = (values > HDDC_THRESHOLD * norm).sum(2).clamp(1, max(1, dim - 1))  # (U, K)
    kept = torch.arange(dim) < dims.unsqueeze(2)
    rest = torch.where(kept, 0, values).sum(2, keepdim=True) / (dim - dims).clamp_min(1).unsqueeze(2)  # b_k
    variances = torch.where(kept, values, rest).clamp_min(reg_covar)
    _require_positive(variances.amin(2), reg_covar)
    factors = vectors * variances.rsqrt().unsqueeze(2)
    covariances = (vectors * variances.unsqueeze(2)) @ vectors.mT
    return Mixture(weights, means, covariances, factors, -0.5 * variances.log().sum(2), dims)


def num_parameters(mixture: Mixture, covariance: Covariance) -> Tensor:
    """(U,): free parameters of each mixture, for the penalty of BIC; for `hddc` with those of the subspaces."""
    alive, dim = mixture.num_alive, mixture.means.shape[2]
    shared = alive * dim + alive - 1
    if covariance == "full":
        return shared + alive * (dim * (dim + 1) // 2)
    if covariance == "diag":
        return shared + alive * dim
    d = torch.where(mixture.weights > 0, mixture.dims, 0).to(torch.float64)
    return shared + (d * (dim - (d + 1) / 2)).sum(1) + d.sum(1) + 2 * alive


def entropy(points: Points, mixture: Mixture, covariance: Covariance, reduce: Reduce | None = None) -> Tensor:
    """(U,): entropy of the assignment of all points together, 0 where every point has one Gaussian to itself."""
    units, coefficients = torch.arange(len(mixture.weights)), _coefficients(mixture, covariance)
    total = mixture.weights.new_zeros(len(units))
    for some, features, counts in _tiles(points, units, mixture, covariance):
        answers = (coefficients[some] @ features).softmax(1)  # (a, K, m)
        total[some] += (torch.special.entr(answers).sum(1) * counts).sum(1)
    return _summed(total, reduce)


def draw_means(points: HeldPoints, num: int, generator: torch.Generator) -> Tensor:
    """`num` of the points of each unit as first means (U, num, D), by k-means++ (Arthur and Vassilvitskii 2007): each
    with a chance proportional to its weight and its squared distance from the nearest one drawn before."""
    chances = points.weights
    means: list[Tensor] = []
    for _ in range(num):
        chances = torch.where(chances.sum(1, keepdim=True) > 0, chances, points.weights)  # all points are drawn ones
        drawn = torch.multinomial(chances, 1, generator=generator)  # (U, 1)
        means.append(points.values.take_along_dim(drawn.unsqueeze(2), dim=1))  # (U, 1, D)
        away = torch.stack([(points.values - mean).square().sum(2) for mean in means]).amin(0)
        chances = away * points.weights
    return torch.cat(means, dim=1)


def _tiles(
    points: Points, units: Tensor, mixture: Mixture, covariance: Covariance
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The points as (which of the units, features (a, F, m) about the mixtures' centres, weights (a, m)), in tiles of
    about `TILE_ELEMENTS` features, each good until the next is asked for. Small mixtures go many units at once."""
    centre, (num, dim) = _centre(mixture).unsqueeze(2), mixture.means.shape[1:]
    num_features = _num_features(dim, covariance)
    width = max(num, num_features)
    group = max(1, min(len(units), TILE_ELEMENTS // (width * MIN_TILE_POINTS)))
    size = max(MIN_TILE_POINTS, TILE_ELEMENTS // (width * group))
    memory = centre.new_empty(group * num_features * size)  # used again and again: fresh pages cost more than the sums
    for x, weights in points.chunks(units):
        for first in range(0, len(units), group):
            some = slice(first, first + group)
            for start in range(0, x.shape[1], size):
                rows = slice(start, start + size)
                y = x[some, rows].mT - centre[some]
                features = memory[: len(y) * num_features * y.shape[2]].view(len(y), num_features, -1)
                yield some, _features(y, covariance, features), weights[some, rows]


def _centre(mixture: Mixture) -> Tensor:
    """(U, D): the mean of the whole mixture."""
    return (mixture.weights.unsqueeze(2) * mixture.means).sum(1)


_BLOCK = 8  # rows whose products are formed at once: little below the diagonal is computed twice


def _blocks(dim: int) -> Iterator[tuple[int, int]]:
    """The rows (first, end) of each block of x x^T; with the columns from `first` on, they cover its upper triangle."""
    return ((first, min(first + _BLOCK, dim)) for first in range(0, dim, _BLOCK))


def _num_features(dim: int, covariance: Covariance) -> int:
    second = dim if covariance == "diag" else sum((end - first) * (dim - first) for first, end in _blocks(dim))
    return 1 + dim + second


def _features(x: Tensor, covariance: Covariance, out: Tensor) -> Tensor:
    """(a, D, m) -> (a, F, m), `out`: 1, x, and the blocks of x x^T (`diag`: its diagonal). A log-density is linear in
    these, and moments are sums of them. The points come last: what is done to them then runs along memory."""
    dim = x.shape[1]
    out[:, 0] = 1
    out[:, 1 : 1 + dim] = x
    start = 1 + dim
    if covariance == "diag":
        torch.mul(x, x, out=out[:, start:])
        return out
    for first, end in _blocks(dim):
        stop = start + (end - first) * (dim - first)
        product = out[:, start:stop].unflatten(1, (end - first, dim - first))
        torch.mul(x[:, first:end, None], x[:, None, first:], out=product)
        start = stop
    return out


def _coefficients(mixture: Mixture, covariance: Covariance) -> Tensor:
    """(U, K, F): log(weight_k N(x; mean_k, covariance_k)) is the product of these with `_features` of x about the
    centre: -(x - mean) P (x - mean)^T / 2 multiplied out, P the inverse of the covariance."""
    dim = mixture.means.shape[2]
    means = mixture.means - _centre(mixture).unsqueeze(1)
    precision = mixture.factors @ mixture.factors.mT  # (U, K, D, D)
    linear = (precision @ means.unsqueeze(3)).squeeze(3)  # (U, K, D)
    constant = mixture.weights.log() + mixture.log_det - 0.5 * dim * math.log(2 * math.pi)
    parts = [(constant - 0.5 * (linear * means).sum(2)).unsqueeze(2), linear]
    if covariance == "diag":
        return torch.cat([*parts, -0.5 * precision.diagonal(dim1=2, dim2=3)], dim=2)
    for first, end in _blocks(dim):
        block = -precision[:, :, first:end, first:]
        block[..., : end - first] *= 0.5  # both triangles of this square are among the features, of the rest one
        parts.append(block.flatten(2))
    return torch.cat(parts, dim=2)


def _second_moments(products: Tensor, dim: int, covariance: Covariance) -> Tensor:
    """The sums of x x^T (A, K, D, D) from those of the products that `_features` made."""
    if covariance == "diag":
        return products.diag_embed()
    whole = products.new_zeros(*products.shape[:2], dim, dim)
    start = 0
    for first, end in _blocks(dim):
        stop = start + (end - first) * (dim - first)
        whole[..., first:end, first:] = products[..., start:stop].unflatten(2, (end - first, dim - first))
        start = stop
    return whole.triu() + whole.triu(1).mT


def _total_weights(points: Points, units: Tensor, reduce: Reduce | None) -> Tensor:
    total = torch.zeros(len(units), dtype=torch.float64)
    for _, weights in points.chunks(units):
        total += weights.sum(1)
    return _summed(total, reduce)


def _summed(tensor: Tensor, reduce: Reduce | None) -> Tensor:
    return tensor if reduce is None else reduce(tensor).to(tensor.device)


def _require_positive(values: Tensor, reg_covar: float, least: float = 1e-300) -> None:
    bad = (values < least).nonzero().tolist()  # (U, K)
    where = f"of mixture {bad[0][0]}, Gaussian {bad[0][1]}" if bad else ""
    require(not bad, f"reg_covar is {reg_covar}: the covariance {where} is not positive definite, choose a larger one")
