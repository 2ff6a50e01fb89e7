"""Dynamic Gaussian Anchoring: each unit is pulled towards the Gaussian it belongs to (method section 5).

n images, B batch, N units, D token width, K the most Gaussians a unit may have, S width of what is clustered, M bins.

The corrected mode follows section 5.6 as corrected by 5.6a; the published one repeats the published arithmetic, whose
pull is 0 on ReLU tokens (section 0.1).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unweave.config import AnchorConfig
from unweave.errors import require
from unweave.nn import published_anchors
from unweave.nn.growth import grow, regroup
from unweave.nn.mixture import HeldPoints, Mixture, Reduce

TokenFn = Callable[[Tensor], Tensor]

NUM_BINS = 1024
BIN_REACH = 6.0  # standard deviations; what lies further falls into the outermost bins, which know its mean
TOKEN_DIMS = 4  # principal directions in which tokens are clustered: they lie on a curve of one scalar
TOKEN_NOISE = 1e-3  # ridge there, as a part of the tokens' whole variance


class Pulled(NamedTuple):
    """Tokens after the pull, and how it went."""

    tokens: Tensor
    """(B, N, D): the aligned tokens."""
    gaussian: Tensor
    """(B, N) int64: the Gaussian that each unit belongs to; 0 before the first fit."""
    weight: Tensor
    """(B, N): lambda, 0 to lambda_max."""
    distance: Tensor
    """(B, N): how far the unit is from its anchor, in standard deviations of the unit."""


class Anchors(nn.Module):
    """The Gaussians of N units. All that is fitted is in buffers of fixed shape, unused Gaussians with weight 0."""

    def __init__(self, config: AnchorConfig, num_units: int, token_dim: int) -> None:
        super().__init__()
        self.config = config
        self.width = _cluster_width(config, token_dim)
        num, wide = config.k_max, torch.float64
        shapes = {
            "centre": (num_units, token_dim if self._on_tokens else 1),
            "scale": (num_units,),
            "basis": (num_units, token_dim, self.width) if self._on_tokens else (num_units, 1, 1),
            "weights": (num_units, num),
            "means": (num_units, num, self.width),
            "factors": (num_units, num, self.width, self.width),
            "log_det": (num_units, num),
            "mean_tokens": (num_units, num, token_dim),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=wide))
        self.register_buffer("fitted", torch.tensor(False))
        self.centre: Tensor
        self.scale: Tensor
        self.basis: Tensor
        self.weights: Tensor
        self.means: Tensor
        self.factors: Tensor
        self.log_det: Tensor
        self.mean_tokens: Tensor
        self.fitted: Tensor

    @property
    def _on_tokens(self) -> bool:
        return self.config.mode == "published" or self.config.space == "token"

    @property
    def num_alive(self) -> Tensor:
        """(N,): Gaussians in use, 0 before the first fit."""
        return (self.weights > 0).sum(1)

    @property
    def on_scalars(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Weight, mean and standard deviation (N, K) of each Gaussian, in the scalar's own units; None for Gaussians
        of tokens. Those not in use have weight 0."""
        if self._on_tokens or not self.fitted:
            return None
        scale, centre = self.scale.unsqueeze(1), self.centre
        return self.weights, self.means[..., 0] * scale + centre, scale / self.factors[..., 0, 0].abs()

    @torch.no_grad()
    def fit(self, scalars: Tensor, token_fn: TokenFn, seed: int, reduce: Reduce | None = None) -> None:
        """Fits all units to scalars (n, N); `token_fn` maps scalars (m, N) to tokens (m, N, D).

        How many Gaussians a unit has is decided on its scalar, also where they are fitted to its tokens: those lie on
        a curve, where likelihood would never have enough (section 5.6a). `reduce` sums over processes that hold
        different images; all get the same anchors. Raises `UserError`, naming the unit, for scalars that are not
        finite.
        """
        require(len(scalars) > 0, "there are no images to fit the anchors to")
        bad = (~scalars.isfinite()).any(0).nonzero().flatten().tolist()
        require(not bad, f"unit {bad[0] if bad else ''} has scalars that are not finite: the anchors cannot be fitted")
        if self.config.mode == "off":
            return
        if self.config.mode == "published":
            found = published_anchors.fit(self._as_exported(token_fn(scalars)), self.config.k_max, seed)
            self._store(found.mixture, found.high.unsqueeze(1).expand_as(self.centre), found.high - found.low)
            return
        values, counts = bins(scalars, reduce)  # (N, M) each
        tokens = token_fn(values.T.to(scalars)).transpose(0, 1).double().cpu()  # (N, M, D)
        points, centre, scale, basis = _coordinates(values.unsqueeze(2), counts, 1)
        config = self.config
        fitted = grow(points, config.covariance, config.criterion, config.k_max, config.min_size, config.reg_covar)
        members = nn.functional.one_hot(nearest(fitted, points.values.transpose(0, 1)).T, config.k_max)  # (N, M, K)
        if config.space == "token":
            points, centre, scale, basis = _coordinates(tokens, counts, self.width)
            fitted = regroup(points, members.double(), config.covariance, TOKEN_NOISE)
        self._store(fitted, centre, scale)
        self.basis.copy_(basis)
        part = members * counts.unsqueeze(2)
        self.mean_tokens.copy_((part.mT @ tokens) / part.sum(1).clamp_min(1e-12).unsqueeze(2))

    def _store(self, fitted: Mixture, centre: Tensor, scale: Tensor) -> None:
        for name, value in (("weights", fitted.weights), ("means", fitted.means), ("factors", fitted.factors)):
            getattr(self, name).copy_(value)
        self.log_det.copy_(fitted.log_det)
        self.centre.copy_(centre)
        self.scale.copy_(scale)
        self.fitted.fill_(True)

    @property
    def _mixture(self) -> Mixture:
        return Mixture(self.weights, self.means, self.factors, self.factors, self.log_det, self.weights)

    def pull(self, scalars: Tensor, tokens: Tensor, token_fn: TokenFn) -> Pulled:
        """Pulls the units of a batch, scalars (B, N) and their tokens (B, N, D), towards their anchors.

        The identity before the first fit. lambda = lambda_max exp(-distance) carries no gradient (section 5.6a).
        """
        if self.config.mode == "off" or not self.fitted:
            zero = torch.zeros_like(scalars)
            return Pulled(tokens, zero.long(), zero, zero)
        if self.config.mode == "published":
            return self._pull_as_published(tokens, by_batch=self.training)
        if self._on_tokens:
            return self._pull_tokens(tokens)
        return self._pull_scalars(scalars, tokens, token_fn)

    @torch.no_grad()
    def shares(self, scalars: Tensor, tokens: Tensor) -> Tensor:
        """How probable each Gaussian is for the units of scalars (B, N) and tokens (B, N, D): (B, N, K), sums of 1.

        The largest is the one that `pull` chooses. All zero where there are no anchors.
        """
        if self.config.mode == "off" or not self.fitted:
            return torch.zeros(*scalars.shape, self.config.k_max, dtype=torch.float64, device=scalars.device)
        if self.config.mode == "published":
            places = published_anchors.normalise(tokens, *self._extremes(tokens)).double()
        elif self._on_tokens:
            places = self._principal(tokens.double() - self.centre)
        else:
            places = ((scalars.double() - self.centre[:, 0]) / self.scale).unsqueeze(2)
        return log_joint(self._mixture, places).softmax(-1)

    @torch.no_grad()
    def draw(
        self, unit: int, gaussian: int, token_fn: TokenFn, num: int, spread: float, generator: torch.Generator
    ) -> Tensor:
        """Tokens (num, D) of a unit drawn from one of its Gaussians made `spread` times as wide, 0 for its mean.

        They are pulled as those of images are, except in the published mode, where sampling knows no anchors. Raises
        `UserError` for a unit or a Gaussian that there is not.
        """
        self.require_unit(unit)
        alive = int(self.num_alive[unit])
        require(alive > 0, f"the model has no anchors: anchors.mode is {self.config.mode}, or none were fitted")
        require(0 <= gaussian < alive, f"unit {unit} has no anchor {gaussian}: choose from 0 to {alive - 1}")
        drawn = torch.randn(num, self.width, generator=generator, dtype=torch.float64).to(self.means.device)
        away = torch.linalg.solve(self.factors[unit, gaussian].T, drawn.T).T
        place = self.means[unit, gaussian] + spread * away  # (num, S)
        scale, centre = self.scale[unit], self.centre[unit]
        if self.config.mode == "published":
            low, high = centre[:1] - scale, centre[:1]
            return published_anchors.denormalise(place.unsqueeze(1), low, high).squeeze(1).float()
        num_units = len(self.scale)
        if self._on_tokens:
            tokens = (place * scale @ self.basis[unit].T + centre).float()
            return self._pull_tokens(tokens.unsqueeze(1).expand(-1, num_units, -1)).tokens[:, unit]
        scalars = (place * scale + centre).float().expand(-1, num_units)
        return self._pull_scalars(scalars, token_fn(scalars), token_fn).tokens[:, unit]

    def require_unit(self, unit: int) -> None:
        """Raises `UserError` for a unit that there is not."""
        num_units = len(self.scale)
        require(0 <= unit < num_units, f"there is no unit {unit}: choose from 0 to {num_units - 1}")

    def _pull_scalars(self, scalars: Tensor, tokens: Tensor, token_fn: TokenFn) -> Pulled:
        centre, scale = self.centre[:, 0], self.scale
        standard = (scalars.detach().double() - centre) / scale  # (B, N)
        index = nearest(self._mixture, standard.unsqueeze(2))
        units = torch.arange(len(scale), device=index.device)
        mean = self.means[units, index, 0]
        distance = (standard - mean).abs().to(scalars.dtype)
        weight = self.config.lambda_max * torch.exp(-distance)
        anchor = (mean * scale + centre).to(scalars.dtype)
        if self.config.target == "scalar":
            return Pulled(token_fn(scalars + weight * (anchor - scalars)), index, weight, distance)
        if self.config.target == "anchor_token":
            goal = token_fn(anchor).detach()
        else:
            goal = self.mean_tokens[units, index].to(tokens.dtype)
        return Pulled(tokens + weight.unsqueeze(2) * (goal - tokens), index, weight, distance)

    def _pull_tokens(self, tokens: Tensor) -> Pulled:
        centred = tokens.detach().double() - self.centre
        index = nearest(self._mixture, self._principal(centred))
        units = torch.arange(len(self.scale), device=index.device)
        place = self.means[units, index] * self.scale.unsqueeze(1)  # (B, N, S)
        goal = torch.einsum("bns,nds->bnd", place, self.basis) + self.centre
        distance = ((tokens.detach().double() - goal).norm(dim=2) / self.scale).to(tokens.dtype)
        weight = self.config.lambda_max * torch.exp(-distance)
        aligned = tokens + weight.unsqueeze(2) * (goal.to(tokens.dtype) - tokens)
        return Pulled(aligned, index, weight, distance)

    def _principal(self, centred: Tensor) -> Tensor:
        """Centred tokens (B, N, D) in the directions that the Gaussians were fitted in, (B, N, S)."""
        return torch.einsum("bnd,nds->bns", centred, self.basis) / self.scale.unsqueeze(1)

    def _extremes(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest number (N,) in each unit's tokens, over the images of the published fit."""
        high = self.centre[:, 0].to(tokens.dtype)
        return high - self.scale.to(tokens.dtype), high

    def _pull_as_published(self, tokens: Tensor, by_batch: bool) -> Pulled:
        """Section 5.4: normalised anchors mixed with raw tokens, one lambda for the batch, with its gradient.

        In training it goes by the batch: the batch's own extremes normalise, as published. In eval mode those of the
        fit do and each image has its own lambda, so that its tokens do not depend on its neighbours.
        """
        if by_batch:
            low, high = tokens.amin((0, 2)), tokens.amax((0, 2))  # (N,)
        else:
            low, high = self._extremes(tokens)
        normalised = published_anchors.normalise(tokens.detach(), low.detach(), high.detach())
        index = nearest(self._mixture, normalised.double())
        units = torch.arange(len(self.scale), device=index.device)
        anchor = self.means[units, index].to(tokens.dtype)  # still in the normalised space
        error = ((tokens - anchor) / (tokens + 1e-6)).abs()
        error = error.mean() if by_batch else error.mean((1, 2), keepdim=True)
        weight = 0.1 * torch.exp(-error)
        aligned = weight * anchor + (1 - weight) * tokens
        distance = (tokens - anchor).detach().norm(dim=2)
        return Pulled(aligned, index, weight.detach().expand(*tokens.shape[:2], 1).squeeze(2), distance)

    def _as_exported(self, tokens: Tensor) -> Tensor:
        """Tokens (n, N, D) as the published fit gets them: pulled by the anchors before it, a batch at a time."""
        if not self.fitted:
            return tokens
        parts = tokens.split(published_anchors.BATCH)
        return torch.cat([self._pull_as_published(part, by_batch=True).tokens for part in parts])


def nearest(fitted: Mixture, x: Tensor) -> Tensor:
    """Points (m, N, S) float64 of N units -> the most probable Gaussian of each (m, N), the lowest of equals."""
    found = log_joint(fitted, x)
    best = found.amax(-1, keepdim=True)
    places = torch.arange(found.shape[-1], device=x.device)
    return torch.where(found == best, places, places[-1]).amin(-1)  # NaN equals nothing: the last one


def log_joint(fitted: Mixture, x: Tensor) -> Tensor:
    """log(weight times density) of each Gaussian at points (m, N, S): (m, N, K), less a constant that all share."""
    offsets = (fitted.means.unsqueeze(2) @ fitted.factors).squeeze(2)  # (N, K, S)
    whitened = torch.einsum("mns,nkst->mnkt", x, fitted.factors) - offsets
    return fitted.weights.log() + fitted.log_det - 0.5 * whitened.square().sum(-1)


def bins(scalars: Tensor, reduce: Reduce | None = None) -> tuple[Tensor, Tensor]:
    """Scalars (n, N) as weighted points: the mean (N, M) and the count (N, M) of each of `NUM_BINS` bins, float64.

    Sums alone pass between processes and memory does not grow with n. A bin is about a hundredth of the unit's
    standard deviation wide; an empty one has count 0.
    """
    values = scalars.double().cpu()
    total = (lambda tensor: tensor) if reduce is None else reduce
    count = total(torch.tensor(float(len(values)), dtype=torch.float64))
    mean = total(values.sum(0)) / count
    spread = (total((values - mean).square().sum(0)) / count).sqrt()
    reach = BIN_REACH * torch.where(spread > 0, spread, 1)
    place = ((values - mean + reach) / (2 * reach) * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    counts, sums = torch.zeros(2, values.shape[1], NUM_BINS, dtype=torch.float64)
    counts.scatter_add_(1, place.T, torch.ones_like(values.T))
    sums.scatter_add_(1, place.T, values.T)
    counts, sums = total(counts), total(sums)
    return torch.where(counts > 0, sums / counts.clamp_min(1), mean.unsqueeze(1)), counts


def _cluster_width(config: AnchorConfig, token_dim: int) -> int:
    if config.mode == "published":
        return token_dim
    return min(TOKEN_DIMS, token_dim) if config.space == "token" else 1


def _coordinates(data: Tensor, counts: Tensor, width: int) -> tuple[HeldPoints, Tensor, Tensor, Tensor]:
    """Weighted data (N, M, D) standardised: the points (N, M, width) in their leading principal directions, in units of
    the root of their whole variance; and centre (N, D), scale (N,), basis (N, D, width).

    A unit that is constant has scale 1 and lies at 0.
    """
    share = (counts / counts.sum(1, keepdim=True)).unsqueeze(2)
    centre = (share * data).sum(1, keepdim=True)
    centred = data - centre
    scatter = (share * centred).mT @ centred
    scale = scatter.diagonal(dim1=1, dim2=2).sum(1).sqrt()
    scale = torch.where(scale > 1e-7 * data.abs().amax((1, 2)), scale, 1)  # less is float32's rounding
    if data.shape[2] == 1:
        basis = torch.ones(len(data), 1, 1, dtype=torch.float64)
    else:
        basis = torch.linalg.eigh(scatter).eigenvectors.flip(2)[..., :width]
    return HeldPoints((centred @ basis) / scale[:, None, None], counts), centre.squeeze(1), scale, basis
