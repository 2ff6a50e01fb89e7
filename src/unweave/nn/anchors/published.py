"""Dynamic Gaussian Anchoring as published: the arithmetic of the authors' code (Jun et al. 2025), which does not move
ReLU tokens, see docs/fidelity.md.

B batch, N units, D token width, K the maximum number of Gaussians per unit.
"""

from typing import Any

import torch
from torch import Tensor

from unweave.config import AnchorConfig
from unweave.nn.anchors import published_fit
from unweave.nn.anchors.base import Aligned, Reduce, TokenFn
from unweave.nn.anchors.gaussian import GaussianAnchors, nearest
from unweave.nn.anchors.mixture import Mixture
from unweave.nn.anchors.published_fit import denormalise, normalise

LAMBDA = 0.1
MARGIN = 1e-6  # avoids division by zero in the relative distance


class PublishedAnchors(GaussianAnchors):
    """Gaussians of each unit's token, min-max scaled over the images of the fit."""

    def __init__(self, config: AnchorConfig, num_units: int, token_dim: int) -> None:
        super().__init__(config, num_units, token_dim, width=token_dim)
        self._zeros("low", num_units)
        self._zeros("high", num_units)
        self.low: Tensor
        """(N,): the minimum of each unit's tokens, over the images of the fit."""
        self.high: Tensor
        """(N,): their maximum."""

    def fit_mixture(self, scalars: Tensor, token_fn: TokenFn, seed: int, reduce: Reduce | None) -> Mixture:
        """Fits tokens as the published code exports them: aligned to the anchors of the last fit, batch by batch."""
        del reduce
        tokens = token_fn(scalars)
        if self.fitted:
            tokens = torch.cat([self._pull(part, by_batch=True).tokens for part in tokens.split(published_fit.BATCH)])
        fitted, low, high = published_fit.fit(tokens, self.config.k_max, seed)
        self.low.copy_(low)
        self.high.copy_(high)
        return fitted

    def align_fitted(self, scalars: Tensor, tokens: Tensor, token_fn: TokenFn) -> Aligned:
        del scalars, token_fn
        return self._pull(tokens, by_batch=self.training)

    def _pull(self, tokens: Tensor, by_batch: bool) -> Aligned:
        """Mixes normalised anchors with raw tokens, as published.

        `by_batch`, in training: tokens are normalised by the extremes of the batch, which has one lambda, with a
        gradient. Otherwise by the extremes of the fit, and each image has its own lambda, so that its tokens do not
        depend on the other images.
        """
        low, high = (tokens.amin((0, 2)), tokens.amax((0, 2))) if by_batch else self._extremes(tokens)
        index = nearest(self.mixture, normalise(tokens.detach(), low.detach(), high.detach()).double())
        units = torch.arange(self.num_units, device=index.device)
        anchor = self.means[units, index].to(tokens.dtype)  # still in the normalised space
        error = ((tokens - anchor) / (tokens + MARGIN)).abs()
        error = error.mean() if by_batch else error.mean((1, 2), keepdim=True)
        weight = LAMBDA * torch.exp(-error)
        aligned = weight * anchor + (1 - weight) * tokens
        distance = (tokens - anchor).detach().norm(dim=2)
        return Aligned(aligned, index, weight.detach().expand(*tokens.shape[:2], 1).squeeze(2), distance)

    def _extremes(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.low.to(tokens.dtype), self.high.to(tokens.dtype)

    def places(self, scalars: Tensor, tokens: Tensor) -> Tensor:
        del scalars
        return normalise(tokens, *self._extremes(tokens)).double()

    def tokens_at(self, unit: int, places: Tensor, token_fn: TokenFn) -> Tensor:
        """Not aligned: the published sampling code has no anchors."""
        del token_fn
        low, high = self.low[unit : unit + 1], self.high[unit : unit + 1]
        return denormalise(places.unsqueeze(1), low, high).squeeze(1).float()

    def upgrade(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Earlier versions saved the largest number as `centre`, and the range as `scale`."""
        if prefix + "centre" in state_dict:
            high, spread = state_dict[prefix + "centre"][:, 0], state_dict[prefix + "scale"]
            state_dict.update({prefix + "high": high, prefix + "low": high - spread})
        super().upgrade(state_dict, prefix)
