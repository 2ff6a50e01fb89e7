"""Dynamic Gaussian Anchoring of the scalars (Jun et al. 2025, corrected as docs/fidelity.md describes).

B batch, N units, D token width, K the maximum number of Gaussians per unit, M bins.
"""

import torch
from torch import Tensor, nn

from unweave.config import AnchorConfig
from unweave.nn.anchors.base import Aligned, Reduce, TokenFn
from unweave.nn.anchors.gaussian import GaussianAnchors, bins, nearest, standardise
from unweave.nn.anchors.mixture import Mixture
from unweave.nn.anchors.select import grow


class ScalarAnchors(GaussianAnchors):
    """Gaussians of each unit's standardised scalar."""

    def __init__(self, config: AnchorConfig, num_units: int, token_dim: int) -> None:
        super().__init__(config, num_units, token_dim, width=1)
        self._zeros("centre", num_units, 1)
        self._zeros("scale", num_units)
        self.centre: Tensor
        self.scale: Tensor
        if config.target == "mean_token":
            self._zeros("mean_tokens", num_units, config.k_max, token_dim)
            self.mean_tokens: Tensor

    @property
    def on_scalars(self) -> tuple[Tensor, Tensor, Tensor] | None:
        if not self.fitted:
            return None
        scale = self.scale.unsqueeze(1)
        return self.weights, self.means[..., 0] * scale + self.centre, scale / self.precision_chol[..., 0, 0].abs()

    def fit_mixture(self, scalars: Tensor, token_fn: TokenFn, seed: int, reduce: Reduce | None) -> Mixture:
        del seed
        config, (values, counts) = self.config, bins(scalars, reduce)  # (N, M) each
        points, centre, scale, _ = standardise(values.unsqueeze(2), counts, 1)
        fitted = grow(points, config.criterion, config.k_max, config.min_size, config.reg_covar)
        self.centre.copy_(centre)
        self.scale.copy_(scale)
        if config.target == "mean_token":
            tokens = binned_tokens(values.to(scalars), token_fn)
            index = nearest(fitted, points.values.transpose(0, 1)).T
            part = nn.functional.one_hot(index, config.k_max) * counts.unsqueeze(2)  # (N, M, K)
            self.mean_tokens.copy_((part.mT @ tokens) / part.sum(1).clamp_min(1e-12).unsqueeze(2))
        return fitted

    def align_fitted(self, scalars: Tensor, tokens: Tensor, token_fn: TokenFn) -> Aligned:
        """The weight is lambda = lambda_max exp(-distance), without a gradient."""
        # each unit's anchor, and its weight
        standard = self.places(scalars.detach(), tokens)
        index = nearest(self.mixture, standard)
        units = torch.arange(self.num_units, device=index.device)
        mean = self.means[units, index, 0]
        distance = (standard.squeeze(2) - mean).abs().to(scalars.dtype)
        weight = self.config.lambda_max * torch.exp(-distance)
        anchor = (mean * self.scale + self.centre[:, 0]).to(scalars.dtype)
        # move the scalar or the token
        if self.config.target == "scalar":
            return Aligned(token_fn(scalars + weight * (anchor - scalars)), index, weight, distance)
        if self.config.target == "anchor_token":
            goal = token_fn(anchor).detach()
        else:
            goal = self.mean_tokens[units, index].to(tokens.dtype)
        return Aligned(tokens + weight.unsqueeze(2) * (goal - tokens), index, weight, distance)

    def places(self, scalars: Tensor, tokens: Tensor) -> Tensor:
        del tokens
        return ((scalars.double() - self.centre[:, 0]) / self.scale).unsqueeze(2)

    def tokens_at(self, unit: int, places: Tensor, token_fn: TokenFn) -> Tensor:
        scalars = (places * self.scale[unit] + self.centre[unit]).float().expand(-1, self.num_units)
        return self.align_fitted(scalars, token_fn(scalars), token_fn).tokens[:, unit]


def binned_tokens(values: Tensor, token_fn: TokenFn) -> Tensor:
    """The tokens (N, M, D) float64 of the units at the means (N, M) of bins."""
    return token_fn(values.T).transpose(0, 1).double().cpu()
