"""What every kind of anchors offers, and how a model without any answers.

n images, B batch, N units, D token width, K the most Gaussians that a unit may have.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unweave.config import AnchorConfig
from unweave.errors import UserError, require

TokenFn = Callable[[Tensor], Tensor]
Reduce = Callable[[Tensor], Tensor]

RENAMED = {"factors": "precision_chol"}
"""Buffers under the names of earlier versions, and what they are called now."""
EARLIER = {"centre", "scale", "basis", "weights", "means", "precision_chol", "log_det", "mean_tokens", "fitted"}
"""What earlier versions saved whatever the kind of anchors."""


class Aligned(NamedTuple):
    """Tokens after each unit was pulled towards its anchor, and how it went."""

    tokens: Tensor
    """(B, N, D): the aligned tokens."""
    gaussian: Tensor
    """(B, N) int64: the Gaussian that each unit belongs to; 0 before the first fit."""
    weight: Tensor
    """(B, N): lambda, 0 to lambda_max."""
    distance: Tensor
    """(B, N): how far the unit is from its anchor, in standard deviations of the unit."""


class Anchors(nn.Module):
    """No anchors, and the base of those there are: units stay where they are, and nothing is fitted or saved."""

    def __init__(self, config: AnchorConfig, num_units: int, token_dim: int) -> None:
        super().__init__()
        self.config, self.num_units, self.token_dim = config, num_units, token_dim
        self.register_load_state_dict_pre_hook(_upgrade)

    @property
    def max_points(self) -> int:
        """The most images that `fit` needs; 0: there is nothing to fit."""
        return 0

    @property
    def num_alive(self) -> Tensor:
        """(N,) int64: Gaussians in use, 0 before the first fit."""
        return torch.zeros(self.num_units, dtype=torch.int64)

    @property
    def on_scalars(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Weight, mean and standard deviation (N, K) of each Gaussian, in the scalar's own units, weight 0 where it is
        not in use; None where there are no Gaussians of scalars."""
        return None

    def fit(self, scalars: Tensor, token_fn: TokenFn, seed: int, reduce: Reduce | None = None) -> None:
        """Fits all units to scalars (n, N); `token_fn` maps scalars (m, N) to tokens (m, N, D).

        `reduce` sums a tensor over processes that hold different images; all get the same anchors. Raises `UserError`,
        naming the unit, for scalars that are not finite.
        """

    def align(self, scalars: Tensor, tokens: Tensor, token_fn: TokenFn) -> Aligned:
        """Pulls the units of a batch, scalars (B, N) and their tokens (B, N, D), towards their anchors; the identity
        before the first fit."""
        del token_fn
        zero = torch.zeros_like(scalars)
        return Aligned(tokens, zero.long(), zero, zero)

    def responsibilities(self, scalars: Tensor, tokens: Tensor) -> Tensor:
        """How probable each Gaussian is for units of scalars (B, N) and tokens (B, N, D): (B, N, K) float64, sums of 1.

        The largest is the one that `align` chooses. All zero before the first fit.
        """
        del tokens
        return torch.zeros(*scalars.shape, self.config.k_max, dtype=torch.float64, device=scalars.device)

    def draw(
        self, unit: int, gaussian: int, token_fn: TokenFn, num: int, spread: float, generator: torch.Generator
    ) -> Tensor:
        """Tokens (num, D) of a unit drawn from one of its Gaussians made `spread` times as wide, 0 for its mean.

        They are aligned as those of images are. Raises `UserError` for a unit or a Gaussian that does not exist.
        """
        del gaussian, token_fn, num, spread, generator
        self.require_unit(unit)
        raise UserError("the model has no anchors")

    def require_unit(self, unit: int) -> None:
        """Raises `UserError` for a unit that does not exist."""
        require(0 <= unit < self.num_units, f"there is no unit {unit}: choose from 0 to {self.num_units - 1}")

    def upgrade(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Makes what an earlier version saved of any kind of anchors, under `prefix`, what these ones load."""
        own = self.state_dict()
        for name in [name for name in state_dict if name.startswith(prefix)]:
            tensor = state_dict.pop(name)
            today = RENAMED.get(name.removeprefix(prefix), name.removeprefix(prefix))
            if today in own or today not in EARLIER:
                state_dict[prefix + today] = tensor


def _upgrade(anchors: Anchors, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    anchors.upgrade(state_dict, prefix)
