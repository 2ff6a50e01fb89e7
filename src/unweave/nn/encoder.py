"""Feature extractor: image -> N scalars -> N tokens, by one small MLP per unit (Yang et al. 2024; Jun et al. 2025).

B batch, N units, D token width, H W image height and width.
Tokens have no positional or unit embedding: each unit has its own MLP, so its tokens lie on a curve of their own.
"""

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unweave.config import EncoderConfig, ExtractorConfig
from unweave.errors import require
from unweave.nn.penalties import draw_normal, gaussian_kl

FIRST_LOG_VARIANCE = -2.0
LOG_VARIANCES = (-12.0, 4.0)  # clamped to this range: outside it, noise is negligible or everything


class UnitMLPs(nn.Module):
    """N independent MLPs, one per unit, computed as one batched product per layer.

    `weights[l]` is (N, in, out) and `biases[l]` is (N, out): unit n's layer is x @ weights[l][n] + biases[l][n].
    """

    def __init__(
        self, num_units: int, widths: tuple[int, ...], final_relu: bool, activation: Literal["relu", "elu"] = "relu"
    ) -> None:
        super().__init__()
        self.activation = F.relu if activation == "relu" else F.elu
        self.final_relu = final_relu
        pairs = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList(torch.empty(num_units, fan_in, fan_out) for fan_in, fan_out in pairs)
        self.biases = nn.ParameterList(torch.empty(num_units, fan_out) for _, fan_out in pairs)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = weight.shape[1] ** -0.5  # that of nn.Linear, for both weights and biases
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, scalars: Tensor) -> Tensor:
        """Scalars (B, N) -> tokens (B, N, D)."""
        h = scalars.T.unsqueeze(-1)  # (N, B, 1)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias.unsqueeze(1), h, weight)  # (N, B, out)
            if layer < last:
                h = self.activation(h)
        return (h.relu() if self.final_relu else h).transpose(0, 1)  # (B, N, D)


class Residual(nn.Module):
    """A pre-activation residual block of a 3x3 and a 1x1 convolution (van den Oord et al. 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + self.layers(x)


class Extractor(nn.Module):
    """Convolutions and fully connected layers to N scalars.

    If `variational`, each scalar has a normal distribution, see `posterior`. Raises `UserError` if the images are too
    small for the number of convolutions.
    """

    def __init__(self, config: ExtractorConfig, image_size: int, variational: bool) -> None:
        super().__init__()
        # the size of the last feature map
        padding = (config.stem_kernel - 1) // 2
        size = (image_size + 2 * padding - config.stem_kernel) // config.stem_stride + 1
        size //= 2 ** (len(config.channels) - 1)
        require(
            size >= 1,
            f"encoder.channels has {len(config.channels)} convolutions: too many for {image_size} px images, use fewer",
        )

        # convolutions
        stem = _conv_block(3, config.channels[0], config.stem_kernel, config.stem_stride, padding)
        blocks = [stem, *(_conv_block(a, b, 4, 2, 1) for a, b in itertools.pairwise(config.channels))]
        self.convs = nn.Sequential(*blocks)
        if config.trunk == "residual":
            del blocks[-2][-1]  # its ReLU
            self.convs.extend(_residuals(config.channels[-1]))

        # fully connected layers
        widths = (config.channels[-1] * size**2, *config.hidden, config.num_units)
        layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU(inplace=True))]
        self.head = nn.Sequential(*layers[:-1])  # the scalars themselves have no activation
        self.log_variance = nn.Linear(widths[-2], config.num_units) if variational else None
        if self.log_variance is not None:
            nn.init.zeros_(self.log_variance.weight)
            nn.init.constant_(self.log_variance.bias, FIRST_LOG_VARIANCE)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> features (B, F) of the last hidden layer, in which scalars are linear."""
        return self.head[:-1](self.convs(images).flatten(1))

    def scalars(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> scalars (B, N)."""
        return self.head[-1](self.features(images))

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [-1, 1] -> mean, equal to `scalars`, and log variance of each scalar, both (B, N)
        (Kingma and Welling 2014)."""
        assert self.log_variance is not None
        features = self.features(images)
        return self.head[-1](features), self.log_variance(features).clamp(*LOG_VARIANCES)


class FeatureExtractor(Extractor):
    """An extractor, with an MLP per unit that maps its scalar to a token."""

    def __init__(self, config: EncoderConfig, image_size: int) -> None:
        super().__init__(config, image_size, variational=config.beta > 0)
        self.levels = config.levels
        self.units = UnitMLPs(
            config.num_units,
            (1, *config.unit_hidden, config.token_dim),
            final_relu=config.token_activation == "relu",
            activation=config.unit_activation,
        )

    def scalars(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> scalars (B, N), in [-1, 1] if they are rounded to levels."""
        scalars = super().scalars(images)
        return _nearest_level(scalars.tanh(), self.levels) if self.levels else scalars

    def drawn_scalars(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scalars (B, N) for training, and their KL divergence (B,) from the standard normal prior, in nats.

        With a variational bottleneck, in training mode, they are samples from the `posterior`. Without one they are
        `scalars` and the divergence is 0.
        """
        if self.log_variance is None:
            return self.scalars(images), images.new_zeros(len(images))
        mean, log_variance = self.posterior(images)
        divergence = gaussian_kl(mean, log_variance)
        return (draw_normal(mean, log_variance) if self.training else mean), divergence

    def tokens(self, scalars: Tensor) -> Tensor:
        """Scalars (B, N) -> tokens (B, N, D)."""
        return self.units(scalars)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [-1, 1] -> scalars (B, N) and tokens (B, N, D)."""
        scalars = self.scalars(images)
        return scalars, self.tokens(scalars)


def _nearest_level(x: Tensor, levels: int) -> Tensor:
    """The nearest of `levels` even steps from -1 to 1, with a straight-through gradient (Bengio et al. 2013)."""
    nearest = ((x + 1) / 2 * (levels - 1)).round() / (levels - 1) * 2 - 1
    return x + (nearest - x).detach()


def _conv_block(in_channels: int, out_channels: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _residuals(channels: int) -> list[nn.Module]:
    between = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    return [Residual(channels), between, Residual(channels)]
