"""Anchors that are Gaussians: the common part of scalar, token and published anchors.

n images, B batch, m points, N units, D token width, K the maximum number of Gaussians per unit, S width of the space of
the Gaussians, M bins.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from unweave.config import AnchorConfig
from unweave.errors import require
from unweave.nn.anchors.base import Aligned, Anchors, Reduce, TokenFn
from unweave.nn.anchors.mixture import Mixture, Points

NUM_BINS = 1024
BIN_REACH = 6.0  # standard deviations; values beyond are counted, with their mean, in the outermost bins


class GaussianAnchors(Anchors):
    """The Gaussians of N units, in buffers of fixed shape; those not in use have weight 0 and come last."""

    def __init__(self, config: AnchorConfig, num_units: int, token_dim: int, width: int) -> None:
        super().__init__(config, num_units, token_dim)
        self.width = width
        num = config.k_max
        self._zeros("weights", num_units, num)
        self._zeros("means", num_units, num, width)
        self._zeros("precision_chol", num_units, num, width, width)
        self._zeros("log_det", num_units, num)
        self.register_buffer("fitted", torch.tensor(False))
        self.weights: Tensor
        self.means: Tensor
        self.precision_chol: Tensor
        self.log_det: Tensor
        self.fitted: Tensor

    def _zeros(self, name: str, *shape: int) -> None:
        self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    @property
    def max_points(self) -> int:
        return self.config.max_points

    @property
    def num_alive(self) -> Tensor:
        return (self.weights > 0).sum(1)

    @torch.no_grad()
    def fit(self, scalars: Tensor, token_fn: TokenFn, seed: int, reduce: Reduce | None = None) -> None:
        require(len(scalars) > 0, "there are no images to fit the anchors to")
        bad = (~scalars.isfinite()).any(0).nonzero().flatten().tolist()
        require(not bad, f"unit {bad[0] if bad else ''} has scalars that are not finite: the anchors cannot be fitted")
        fitted = self.fit_mixture(scalars, token_fn, seed, reduce)
        for name in ("weights", "means", "precision_chol", "log_det"):
            getattr(self, name).copy_(getattr(fitted, name))
        self.fitted.fill_(True)

    @abstractmethod
    def fit_mixture(self, scalars: Tensor, token_fn: TokenFn, seed: int, reduce: Reduce | None) -> Mixture:
        """Fits the mixtures, and stores the standardisation of the units."""

    def align(self, scalars: Tensor, tokens: Tensor, token_fn: TokenFn) -> Aligned:
        if not self.fitted:
            return super().align(scalars, tokens, token_fn)
        return self.align_fitted(scalars, tokens, token_fn)

    @abstractmethod
    def align_fitted(self, scalars: Tensor, tokens: Tensor, token_fn: TokenFn) -> Aligned:
        """`align` after the first fit."""

    @torch.no_grad()
    def responsibilities(self, scalars: Tensor, tokens: Tensor) -> Tensor:
        if not self.fitted:
            return super().responsibilities(scalars, tokens)
        return log_joint(self.mixture, self.places(scalars, tokens)).softmax(-1)

    @abstractmethod
    def places(self, scalars: Tensor, tokens: Tensor) -> Tensor:
        """Coordinates (B, N, S) float64 in the space of the Gaussians, from scalars (B, N) and tokens (B, N, D)."""

    def draw(
        self, unit: int, gaussian: int, token_fn: TokenFn, num: int, spread: float, generator: torch.Generator
    ) -> Tensor:
        self.require_unit(unit)
        alive = int(self.num_alive[unit])
        require(alive > 0, "the model has no anchors yet: they are fitted in training")
        require(0 <= gaussian < alive, f"unit {unit} has no anchor {gaussian}: choose from 0 to {alive - 1}")
        drawn = torch.randn(num, self.width, generator=generator, dtype=torch.float64).to(self.means.device)
        away = torch.linalg.solve(self.precision_chol[unit, gaussian].T, drawn.T).T
        return self.tokens_at(unit, self.means[unit, gaussian] + spread * away, token_fn)

    @abstractmethod
    def tokens_at(self, unit: int, places: Tensor, token_fn: TokenFn) -> Tensor:
        """The aligned tokens (num, D) of a unit at `places` (num, S), coordinates in the space of its Gaussians."""

    @property
    def mixture(self) -> Mixture:
        """The stored Gaussians; their covariances are stored as `precision_chol` only."""
        return Mixture(self.weights, self.means, self.precision_chol, self.precision_chol, self.log_det)


def nearest(fitted: Mixture, x: Tensor) -> Tensor:
    """Points (m, N, S) float64 of N units -> the most probable Gaussian of each (m, N), the first of equal ones."""
    scores = log_joint(fitted, x)
    best = scores.amax(-1, keepdim=True)
    index = torch.arange(scores.shape[-1], device=x.device)
    return torch.where(scores == best, index, index[-1]).amin(-1)  # NaN equals nothing: the last one


def log_joint(fitted: Mixture, x: Tensor) -> Tensor:
    """log(weight times density) of each Gaussian at points (m, N, S): (m, N, K), up to a common constant."""
    offsets = (fitted.means.unsqueeze(2) @ fitted.precision_chol).squeeze(2)  # (N, K, S)
    whitened = torch.einsum("mns,nkst->mnkt", x, fitted.precision_chol) - offsets
    return fitted.weights.log() + fitted.log_det - 0.5 * whitened.square().sum(-1)


def bins(scalars: Tensor, reduce: Reduce | None = None) -> tuple[Tensor, Tensor]:
    """Scalars (n, N) as weighted points: the mean (N, M) and the count (N, M) of each of `NUM_BINS` bins, float64.

    Processes exchange only sums, and memory does not grow with n. A bin is about a hundredth of the unit's standard
    deviation wide; an empty one has count 0.
    """
    values = scalars.double().cpu()
    total = (lambda tensor: tensor) if reduce is None else reduce
    # mean and standard deviation of each unit, from which its bins follow
    count = total(torch.tensor(float(len(values)), dtype=torch.float64))
    mean = total(values.sum(0)) / count
    spread = (total((values - mean).square().sum(0)) / count).sqrt()
    reach = BIN_REACH * torch.where(spread > 0, spread, 1)
    place = ((values - mean + reach) / (2 * reach) * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    # counts and sums of each bin
    counts, sums = torch.zeros(2, values.shape[1], NUM_BINS, dtype=torch.float64)
    counts.scatter_add_(1, place.T, torch.ones_like(values.T))
    sums.scatter_add_(1, place.T, values.T)
    counts, sums = total(counts), total(sums)
    return torch.where(counts > 0, sums / counts.clamp_min(1), mean.unsqueeze(1)), counts


class Coordinates(NamedTuple):
    """Standardised points along their leading principal components, and the transformation."""

    points: Points
    centre: Tensor
    """(N, D)"""
    scale: Tensor
    """(N,): the root of the total variance; 1 for a constant unit."""
    basis: Tensor
    """(N, D, S): the principal components."""


def standardise(data: Tensor, counts: Tensor, width: int) -> Coordinates:
    """Data (N, M, D) with counts (N, M) as points (N, M, width); the data are divided by the root of their variance."""
    share = (counts / counts.sum(1, keepdim=True)).unsqueeze(2)
    centre = (share * data).sum(1, keepdim=True)
    centred = data - centre
    scatter = (share * centred).mT @ centred
    scale = scatter.diagonal(dim1=1, dim2=2).sum(1).sqrt()
    scale = torch.where(scale > 1e-7 * data.abs().amax((1, 2)), scale, 1)  # less is the rounding of float32
    if data.shape[2] == 1:
        basis = torch.ones(len(data), 1, 1, dtype=torch.float64)
    else:
        basis = torch.linalg.eigh(scatter).eigenvectors.flip(2)[..., :width]
    return Coordinates(Points((centred @ basis) / scale[:, None, None], counts), centre.squeeze(1), scale, basis)
