"""Dynamic Gaussian Anchoring of the tokens (Jun et al. 2025), along their leading principal components.

B batch, N units, D token width, K the maximum number of Gaussians per unit, M bins, S components.
"""

import torch
from torch import Tensor, nn

from unweave.config import AnchorConfig
from unweave.nn.anchors.base import Aligned, Reduce, TokenFn
from unweave.nn.anchors.gaussian import GaussianAnchors, bins, nearest, standardise
from unweave.nn.anchors.mixture import Mixture
from unweave.nn.anchors.scalar import binned_tokens
from unweave.nn.anchors.select import grow, regroup

TOKEN_DIMS = 4  # components: tokens lie on a curve of one scalar
TOKEN_NOISE = 1e-3  # ridge, as a fraction of the total variance of the tokens


class TokenAnchors(GaussianAnchors):
    """Gaussians of each unit's token. Their number is selected on its scalar: tokens lie on a curve, where a likelihood
    keeps rising with more Gaussians."""

    def __init__(self, config: AnchorConfig, num_units: int, token_dim: int) -> None:
        super().__init__(config, num_units, token_dim, width=min(TOKEN_DIMS, token_dim))
        self._zeros("centre", num_units, token_dim)
        self._zeros("scale", num_units)
        self._zeros("basis", num_units, token_dim, self.width)
        self.centre: Tensor
        self.scale: Tensor
        self.basis: Tensor

    def fit_mixture(self, scalars: Tensor, token_fn: TokenFn, seed: int, reduce: Reduce | None) -> Mixture:
        del seed
        # the Gaussians of the scalars group the bins
        config, (values, counts) = self.config, bins(scalars, reduce)  # (N, M) each
        points = standardise(values.unsqueeze(2), counts, 1).points
        grouped = grow(points, config.criterion, config.k_max, config.min_size, config.reg_covar)
        index = nearest(grouped, points.values.transpose(0, 1)).T
        members = nn.functional.one_hot(index, config.k_max)  # (N, M, K)
        # those of the tokens start from the groups
        points, centre, scale, basis = standardise(binned_tokens(values.to(scalars), token_fn), counts, self.width)
        self.centre.copy_(centre)
        self.scale.copy_(scale)
        self.basis.copy_(basis)
        return regroup(points, members.double(), TOKEN_NOISE)

    def align_fitted(self, scalars: Tensor, tokens: Tensor, token_fn: TokenFn) -> Aligned:
        """The weight is lambda = lambda_max exp(-distance), without a gradient."""
        del token_fn
        index = nearest(self.mixture, self.places(scalars, tokens.detach()))
        units = torch.arange(self.num_units, device=index.device)
        place = self.means[units, index] * self.scale.unsqueeze(1)  # (B, N, S)
        goal = torch.einsum("bns,nds->bnd", place, self.basis) + self.centre
        distance = ((tokens.detach().double() - goal).norm(dim=2) / self.scale).to(tokens.dtype)
        weight = self.config.lambda_max * torch.exp(-distance)
        aligned = tokens + weight.unsqueeze(2) * (goal.to(tokens.dtype) - tokens)
        return Aligned(aligned, index, weight, distance)

    def places(self, scalars: Tensor, tokens: Tensor) -> Tensor:
        del scalars
        return torch.einsum("bnd,nds->bns", tokens.double() - self.centre, self.basis) / self.scale.unsqueeze(1)

    def tokens_at(self, unit: int, places: Tensor, token_fn: TokenFn) -> Tensor:
        tokens = (places * self.scale[unit] @ self.basis[unit].T + self.centre[unit]).float()
        tokens = tokens.unsqueeze(1).expand(-1, self.num_units, -1)
        return self.align_fitted(tokens[..., 0], tokens, token_fn).tokens[:, unit]
