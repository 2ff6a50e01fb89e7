"""The interface of all kinds of anchors, which is also the class of a model without any.

n images, B batch, N units, D token width, K the maximum number of Gaussians per unit.
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
"""Names of buffers in earlier versions, and their present names."""
EARLIER = {"centre", "scale", "basis", "weights", "means", "precision_chol", "log_det", "mean_tokens", "fitted"}
"""Buffers that earlier versions saved for all kinds of anchors."""


class Aligned(NamedTuple):
    """Tokens after the alignment of each unit to its anchor, with anchor, weight and distance."""

    tokens: Tensor
    """(B, N, D): the aligned tokens."""
    gaussian: Tensor
    """(B, N) int64: the Gaussian that each unit belongs to; 0 before the first fit."""
    weight: Tensor
    """(B, N): lambda, 0 to lambda_max."""
    distance: Tensor
    """(B, N): distance of the unit from its anchor, in standard deviations of the unit."""


class Anchors(nn.Module):
    """No anchors, and the base class of all kinds: units are not moved, and nothing is fitted or saved."""

    def __init__(self, config: AnchorConfig, num_units: int, token_dim: int) -> None:
        super().__init__()
        self.config, self.num_units, self.token_dim = config, num_units, token_dim
        self.register_load_state_dict_pre_hook(_upgrade)

    @property
    def max_points(self) -> int:
        """The maximum number of images for `fit`; 0: there is nothing to fit."""
        return 0

    @property
    def num_alive(self) -> Tensor:
        """(N,) int64: Gaussians in use, 0 before the first fit."""
        return torch.zeros(self.num_units, dtype=torch.int64)

    @property
    def on_scalars(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Weight, mean and standard deviation (N, K) of each Gaussian of the scalars, weight 0 for those not in use;
        None if there are no Gaussians of scalars."""
        return None

    def fit(self, scalars: Tensor, token_fn: TokenFn, seed: int, reduce: Reduce | None = None) -> None:
        """Fits all units to scalars (n, N); `token_fn` maps scalars (m, N) to tokens (m, N, D).

        `reduce` sums a tensor over processes that hold different images; all get the same anchors. Raises `UserError`
        with the number of the unit for scalars that are not finite.
        """

    def align(self, scalars: Tensor, tokens: Tensor, token_fn: TokenFn) -> Aligned:
        """Moves the units of a batch, scalars (B, N) and tokens (B, N, D), towards their anchors; the identity before
        the first fit."""
        del token_fn
        zero = torch.zeros_like(scalars)
        return Aligned(tokens, zero.long(), zero, zero)

    def responsibilities(self, scalars: Tensor, tokens: Tensor) -> Tensor:
        """Posterior probability of each Gaussian for units of scalars (B, N) and tokens (B, N, D): (B, N, K) float64.

        They sum to 1 over K; `align` chooses the largest. All zero before the first fit.
        """
        del tokens
        return torch.zeros(*scalars.shape, self.config.k_max, dtype=torch.float64, device=scalars.device)

    def draw(
        self, unit: int, gaussian: int, token_fn: TokenFn, num: int, spread: float, generator: torch.Generator
    ) -> Tensor:
        """Tokens (num, D) of a unit drawn from one of its Gaussians, with `spread` times its standard deviation (0: its
        mean), and aligned. Raises `UserError` for a unit or a Gaussian that does not exist."""
        del gaussian, token_fn, num, spread, generator
        self.require_unit(unit)
        raise UserError("the model has no anchors")

    def require_unit(self, unit: int) -> None:
        """Raises `UserError` for a unit that does not exist."""
        require(0 <= unit < self.num_units, f"there is no unit {unit}: choose from 0 to {self.num_units - 1}")

    def upgrade(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Converts buffers under `prefix` that an earlier version saved, of any kind of anchors, to this one's."""
        own = self.state_dict()
        for name in [name for name in state_dict if name.startswith(prefix)]:
            tensor = state_dict.pop(name)
            today = RENAMED.get(name.removeprefix(prefix), name.removeprefix(prefix))
            if today in own or today not in EARLIER:
                state_dict[prefix + today] = tensor


def _upgrade(anchors: Anchors, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    anchors.upgrade(state_dict, prefix)
