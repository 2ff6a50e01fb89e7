"""A denoiser without convolutions: each position of the noisy latent attends to the units on its own.

B batch, N units, D token width, C h w of the latents, L = h w positions, W width of the network. Blocks follow DiT
(Peebles and Xie 2023), scaled and shifted by the time, with cross-attention to the units in place of self-attention.
Positions exchange no information, so all that they share must come from the units.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unweave.config import TransformerConfig
from unweave.nn.layers import Attention, TimeEmbedding, zero_init


class Block(nn.Module):
    """Optional self-attention, cross-attention to the tokens, feed-forward; each modulated by the time code."""

    def __init__(self, config: TransformerConfig, token_dim: int) -> None:
        super().__init__()
        width = config.width
        self.self_attention = Attention(width, width, config.num_heads) if config.self_attention else None
        self.cross_attention = Attention(width, token_dim, config.num_heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.film = zero_init(nn.Linear(width, 6 * width if config.self_attention else 4 * width))

    def forward(self, h: Tensor, time_code: Tensor, tokens: Tensor) -> Tensor:
        """h (B, L, W), time_code (B, W), tokens (B, N, D) -> (B, L, W)."""
        film = iter(self.film(time_code).unsqueeze(1).chunk(6 if self.self_attention else 4, dim=2))
        if self.self_attention is not None:
            x = _modulate(h, next(film), next(film))
            h = h + self.self_attention(x, x)
        h = h + self.cross_attention(_modulate(h, next(film), next(film)), tokens)
        return h + self.feed_forward(_modulate(h, next(film), next(film)))


class DenoisingTransformer(nn.Module):
    """The denoising network. Predicts `NoiseConfig.prediction` from a noisy latent, its time and tokens."""

    def __init__(self, config: TransformerConfig, latent_channels: int, latent_size: int, token_dim: int) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.Linear(latent_channels, width)
        self.positions = nn.Parameter(0.5 * torch.randn(1, latent_size**2, width))
        self.time_mlp = nn.Sequential(TimeEmbedding(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(config, token_dim) for _ in range(config.depth))
        self.film = zero_init(nn.Linear(width, 2 * width))
        self.head = zero_init(nn.Linear(width, latent_channels))

    def forward(self, noisy: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        """noisy (B, C, h, w), times (B,) from 0 to num_steps - 1, tokens (B, N, D) -> prediction (B, C, h, w)."""
        time_code = F.silu(self.time_mlp(times))  # (B, W)
        h = self.stem(noisy.flatten(2).transpose(1, 2)) + self.positions  # (B, L, W)
        for block in self.blocks:
            h = block(h, time_code, tokens)
        scale, shift = self.film(time_code).unsqueeze(1).chunk(2, dim=2)
        return self.head(_modulate(h, scale, shift)).transpose(1, 2).unflatten(2, noisy.shape[2:])


def _modulate(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm of h (B, L, W), then scale and shift (B, 1, W)."""
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]), 1 + scale)
