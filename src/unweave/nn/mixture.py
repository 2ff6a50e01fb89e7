"""EM for U independent Gaussian mixtures at once, streamed in chunks (method section 5.6 as corrected by 5.6a).

U mixtures (one per unit), A those that have not converged, n points, m points of a chunk, K Gaussians, D dimensions.
All arithmetic is float64. What is held at once, beside the points and the mixtures themselves, is at most
`TILE_ELEMENTS` numbers for each of a few temporaries: never (U, n, K, D) whole.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from unweave.errors import require

Covariance = Literal["full", "diag", "hddc"]
Reduce = Callable[[Tensor], Tensor]

TILE_ELEMENTS = 2**20  # points times Gaussians times dimensions of a tile, whose temporaries are a few MiB
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
    """E step: the moments (A, K, 1 + D + ...) of the points that each Gaussian answers for, see `_features`, and the
    log-likelihood (A,). The moments are about `_centre(mixture)`, which keeps their digits."""
    centre, dim = _centre(mixture), mixture.means.shape[2]
    width = _features(centre.unsqueeze(1), covariance).shape[2]
    moments = mixture.weights.new_zeros(*mixture.weights.shape, width)
    log_likelihood = mixture.weights.new_zeros(len(units))
    density = _Density(mixture)
    for some, x, counts in _tiles(points, units, mixture.weights.shape[1] * dim):
        log_joint = density(x, some)  # (a, m, K)
        log_density = log_joint.logsumexp(2)  # (a, m)
        answers = log_joint.sub_(log_density.unsqueeze(2)).exp_().mul_(counts.unsqueeze(2))
        moments[some] += answers.mT @ _features(x - centre[some].unsqueeze(1), covariance)
        log_likelihood[some] += (counts * log_density).sum(1)
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


def entropy(points: Points, mixture: Mixture, reduce: Reduce | None = None) -> Tensor:
    """(U,): entropy of the assignment of all points together, 0 where every point has one Gaussian to itself."""
    units, density = torch.arange(len(mixture.weights)), _Density(mixture)
    total = mixture.weights.new_zeros(len(units))
    for some, x, counts in _tiles(points, units, mixture.weights.shape[1] * mixture.means.shape[2]):
        answers = density(x, some).softmax(2)
        total[some] += (torch.special.entr(answers).sum(2) * counts).sum(1)
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


class _Density:
    """log(weight_k N(x; mean_k, covariance_k)) of tiles of points, a few matrix products for all Gaussians of a unit.

    Factors of full covariances are triangular: a block of their columns needs only the first of the dimensions.
    """

    def __init__(self, mixture: Mixture):
        units, num, dim = mixture.means.shape
        width = _BLOCK if dim > _BLOCK and torch.equal(mixture.factors, mixture.factors.triu()) else dim
        offsets = (mixture.means.unsqueeze(2) @ mixture.factors).neg()  # (U, K, 1, D)
        self.blocks: list[tuple[int, int, Tensor, Tensor]] = []
        for start in range(0, dim, width):
            columns = slice(start, min(start + width, dim))
            rows = dim if width == dim else columns.stop
            # the Gaussians last: sums over the columns then run along whole rows of memory
            factors = mixture.factors[:, :, :rows, columns].permute(0, 2, 3, 1).reshape(units, rows, -1)
            block = offsets[:, :, 0, columns].transpose(1, 2).reshape(units, 1, -1)
            self.blocks.append((rows, columns.stop - start, factors, block))
        self.num = num
        self.constants = mixture.weights.log() + mixture.log_det - 0.5 * dim * math.log(2 * math.pi)

    def __call__(self, x: Tensor, some: slice) -> Tensor:
        """Points (a, m, D) of the units `some` -> (a, m, K)."""
        distances: Tensor | None = None
        for rows, width, factors, offsets in self.blocks:
            whitened = torch.baddbmm(offsets[some], x[..., :rows], factors[some])  # (a, m, width K)
            part = whitened.square_().unflatten(2, (width, self.num)).sum(2)
            distances = part if distances is None else distances.add_(part)
        assert distances is not None
        return distances.mul_(-0.5).add_(self.constants[some].unsqueeze(1))


def _tiles(points: Points, units: Tensor, width: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The points as (which of the units, (a, m, D), weights (a, m)) with a m `width` bounded by `TILE_ELEMENTS`, as
    long as that leaves `MIN_TILE_POINTS`: small mixtures go many units at once, large ones unit by unit."""
    group = max(1, min(len(units), TILE_ELEMENTS // (width * MIN_TILE_POINTS)))
    size = max(MIN_TILE_POINTS, TILE_ELEMENTS // (width * group))
    for x, weights in points.chunks(units):
        for first in range(0, len(units), group):
            some = slice(first, first + group)
            for start in range(0, x.shape[1], size):
                rows = slice(start, start + size)
                yield some, x[some, rows], weights[some, rows]


def _centre(mixture: Mixture) -> Tensor:
    """(U, D): the mean of the whole mixture."""
    return (mixture.weights.unsqueeze(2) * mixture.means).sum(1)


_BLOCK = 8  # columns whose products are formed at once: little above the diagonal is computed twice


def _features(x: Tensor, covariance: Covariance) -> Tensor:
    """(a, m, D) -> (a, m, 1 + D + ...): 1, x, and x x^T on and above the diagonal (`diag`: the diagonal)."""
    dim = x.shape[2]
    if covariance == "diag":
        return torch.cat([torch.ones_like(x[..., :1]), x, x.square()], dim=2)
    blocks = [(j, min(_BLOCK, dim - j), dim - j) for j in range(0, dim, _BLOCK)]
    out = x.new_empty(*x.shape[:2], 1 + dim + sum(rows * columns for _, rows, columns in blocks))
    out[..., 0] = 1
    out[..., 1 : 1 + dim] = x
    start = 1 + dim
    for j, rows, columns in blocks:  # written in place: joining pieces would move all of them once more
        product = out[..., start : start + rows * columns].unflatten(2, (rows, columns))
        torch.mul(x[..., j : j + rows, None], x[..., None, j:], out=product)
        start += rows * columns
    return out


def _second_moments(products: Tensor, dim: int, covariance: Covariance) -> Tensor:
    """The sums of x x^T (A, K, D, D) from those of the products that `_features` made."""
    if covariance == "diag":
        return products.diag_embed()
    whole = products.new_zeros(*products.shape[:2], dim, dim)
    start = 0
    for j in range(0, dim, _BLOCK):
        rows, columns = min(_BLOCK, dim - j), dim - j
        block = products[..., start : start + rows * columns]
        whole[..., j : j + rows, j:] = block.unflatten(2, (rows, columns))
        start += rows * columns
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
