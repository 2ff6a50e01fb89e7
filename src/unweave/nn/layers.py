"""Layers of both denoisers.

B batch, C channels, L positions, M tokens of a context, D their width.
"""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", nn.Conv2d, nn.Linear)


class Attention(nn.Module):
    """Multi-head attention from a feature map to a context (Vaswani et al. 2017)."""

    def __init__(self, channels: int, context_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(context_dim, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, L, C), context (B, M, D) -> (B, L, C)."""
        key, value = self.key_value(context).chunk(2, dim=-1)  # (B, M, C) each
        query, key, value = (self._split(y) for y in (self.query(x), key, value))  # (B, heads, ..., C / heads)
        h = F.scaled_dot_product_attention(query, key, value)
        return self.out(h.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, context: Tensor) -> Tensor:
        """The attention weights (B, heads, L, M), which sum to 1 over M; `forward` does not return them."""
        query, key = self._split(self.query(x)), self._split(self.key_value(context).chunk(2, dim=-1)[0])
        return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of the time, cosines first, longest period 10,000 (Vaswani et al. 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor

    def forward(self, times: Tensor) -> Tensor:
        """(B,) -> (B, width)."""
        angles = times[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)


def zero_init(module: M) -> M:
    """The module with all its parameters set to 0: the branch that it ends has no effect at first."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
