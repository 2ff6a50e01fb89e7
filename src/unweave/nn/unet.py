"""Cross-attention U-Net with Skip Dropout (Jun et al. 2025): noisy latent, time and tokens -> prediction.

B batch, N units, D token width, C channels, H W height and width of a feature map, L = H W, T width of the time code.
Residual blocks follow Dhariwal and Nichol (2021), transformer blocks Rombach et al. (2022). Tokens enter the network
only as the context of every cross-attention.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unweave.config import UNetConfig
from unweave.nn.layers import Attention, TimeEmbedding, zero_init

Resample = Literal["keep", "down", "up"]


class ResBlock(nn.Module):
    """Two 3x3 convolutions with a scale and shift by the time code between; may halve or double the width."""

    def __init__(self, in_channels: int, out_channels: int, config: UNetConfig, resample: Resample = "keep") -> None:
        super().__init__()
        self.resample: Resample = resample
        self.norm_in = _group_norm(in_channels, config)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.film = nn.Linear(4 * config.channels, 2 * out_channels)
        self.norm_out = _group_norm(out_channels, config)
        self.dropout = nn.Dropout(config.dropout)
        self.conv_out = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time_code: Tensor) -> Tensor:
        """x (B, C, H, W), time_code (B, T) after its SiLU -> (B, C', H', W')."""
        h = self.conv_in(self._resampled(F.silu(self.norm_in(x))))  # (B, C', H', W')
        scale, shift = self.film(time_code)[:, :, None, None].chunk(2, dim=1)  # (B, C', 1, 1) each
        h = torch.addcmul(shift, self.norm_out(h), 1 + scale)
        h = self.conv_out(self.dropout(F.silu(h)))
        return self.shortcut(self._resampled(x)) + h

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return x


class FeedForward(nn.Module):
    """Gated GELU layer, four times as wide as its input (Shazeer 2020, GEGLU)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, 8 * channels)
        self.contract = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.expand(x).chunk(2, dim=-1)
        return self.contract(value * F.gelu(gate))


class Transformer(nn.Module):
    """Self-attention over the positions of a feature map, cross-attention to the tokens, feed-forward."""

    def __init__(self, channels: int, token_dim: int, config: UNetConfig) -> None:
        super().__init__()
        self.norm = _group_norm(channels, config, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)  # equals a 1x1 convolution
        self.self_norm = nn.LayerNorm(channels) if config.self_attention else None
        self.self_attention = Attention(channels, channels, config.num_heads) if config.self_attention else None
        self.cross_norm = nn.LayerNorm(channels)
        self.cross_attention = Attention(channels, token_dim, config.num_heads)
        self.feed_norm = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels)
        self.proj_out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """x (B, C, H, W), tokens (B, N, D) -> (B, C, H, W)."""
        h = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # (B, L, C)
        if self.self_norm is not None and self.self_attention is not None:
            y = self.self_norm(h)
            h = h + self.self_attention(y, y)
        h = h + self.cross_attention(self.cross_norm(h), tokens)
        h = h + self.feed_forward(self.feed_norm(h))
        return x + self.proj_out(h).transpose(1, 2).unflatten(2, x.shape[2:])


class Stage(nn.Module):
    """A residual block, optionally attention, optionally a second residual block."""

    def __init__(self, first: ResBlock, attention: Transformer | None = None, second: ResBlock | None = None) -> None:
        super().__init__()
        self.first = first
        self.attention = attention
        self.second = second

    def forward(self, x: Tensor, time_code: Tensor, tokens: Tensor) -> Tensor:
        h = self.first(x, time_code)
        if self.attention is not None:
            h = self.attention(h, tokens)
        if self.second is not None:
            h = self.second(h, time_code)
        return h


class SkipDropout(nn.Module):
    """Skip Dropout (Jun et al. 2025): drops channels (or elements) of skips of the configured widths, in training."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.p = config.skip_dropout
        self.widths = config.skip_dropout_widths
        self.mode = config.skip_dropout_mode

    def forward(self, skip: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape; what is kept is scaled by 1 / (1 - p), which preserves the mean."""
        if skip.shape[-1] not in self.widths:
            return skip
        drop = F.dropout2d if self.mode == "channel" else F.dropout
        return drop(skip, self.p, self.training)


class UNet(nn.Module):
    """The denoising network. Predicts `NoiseConfig.prediction` from a noisy latent, its time and tokens.

    It attends to the tokens at `attention_widths` and in the middle block, and drops skips at `skip_dropout_widths`.
    """

    def __init__(self, config: UNetConfig, latent_channels: int, latent_size: int, token_dim: int) -> None:
        super().__init__()
        # time code and stem
        self.time_embedding = TimeEmbedding(config.channels)
        time_width = 4 * config.channels
        self.time_mlp = nn.Sequential(
            nn.Linear(config.channels, time_width), nn.SiLU(), nn.Linear(time_width, time_width)
        )
        self.stem = nn.Conv2d(latent_channels, config.channels, 3, padding=1)
        self.skip_dropout = SkipDropout(config)

        # down-sampling stages, the middle block, up-sampling stages
        self.down, skips = _down_stages(config, latent_size, token_dim)
        deepest = skips[-1]
        self.middle = Stage(
            ResBlock(deepest, deepest, config),
            Transformer(deepest, token_dim, config),
            ResBlock(deepest, deepest, config),
        )
        self.up = _up_stages(config, latent_size, token_dim, skips)

        # output layer
        out_channels = config.channels * config.multipliers[0]
        self.head = nn.Sequential(
            _group_norm(out_channels, config),
            nn.SiLU(),
            zero_init(nn.Conv2d(out_channels, latent_channels, 3, padding=1)),
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """noisy (B, C, h, w), timesteps (B,) from 0 to num_steps - 1, tokens (B, N, D) -> prediction (B, C, h, w)."""
        time_code = F.silu(self.time_mlp(self.time_embedding(timesteps)))  # (B, T)
        h = self.stem(noisy)
        skips = [h]
        for stage in self.down:
            h = stage(h, time_code, tokens)
            skips.append(h)
        h = self.middle(h, time_code, tokens)
        for stage in self.up:
            h = torch.cat([h, self.skip_dropout(skips.pop())], dim=1)
            h = stage(h, time_code, tokens)
        return self.head(h)


def _down_stages(config: UNetConfig, latent_size: int, token_dim: int) -> tuple[nn.ModuleList, list[int]]:
    """The down-sampling stages, and the channels of the skips: the stem's, then each stage's."""
    stages, skips = nn.ModuleList(), [config.channels]
    for level, multiplier in enumerate(config.multipliers):
        channels = config.channels * multiplier
        attends = latent_size // 2**level in config.attention_widths
        for _ in range(config.num_res_blocks):
            attention = Transformer(channels, token_dim, config) if attends else None
            stages.append(Stage(ResBlock(skips[-1], channels, config), attention))
            skips.append(channels)
        if level < len(config.multipliers) - 1:
            stages.append(Stage(ResBlock(channels, channels, config, "down")))
            skips.append(channels)
    return stages, skips


def _up_stages(config: UNetConfig, latent_size: int, token_dim: int, skips: list[int]) -> nn.ModuleList:
    """The up-sampling stages, one per skip, from the last skip to the first."""
    stages, below = nn.ModuleList(), skips[-1]
    for level, multiplier in reversed(list(enumerate(config.multipliers))):
        channels = config.channels * multiplier
        attends = latent_size // 2**level in config.attention_widths
        for _ in range(config.num_res_blocks + 1):
            attention = Transformer(channels, token_dim, config) if attends else None
            stages.append(Stage(ResBlock(below + skips.pop(), channels, config), attention))
            below = channels
        if level > 0:
            stages[-1].second = ResBlock(channels, channels, config, "up")
    assert not skips
    return stages


def _group_norm(channels: int, config: UNetConfig, eps: float = 1e-5) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(config.norm_groups, channels), channels, eps)
