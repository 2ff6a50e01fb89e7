"""Variational auto-encoders that disentangle by a penalty on their codes: beta-VAE, beta-TCVAE, FactorVAE, DIP-VAE.

    image -> encoder -> a normal distribution for each of N units -> a sample -> decoder -> image

A unit's token is its scalar. B batch, N units.
"""

import itertools
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from unweave.config import Solver, VAEConfig
from unweave.models.base import Losses, UnitModel
from unweave.nn.critic import frozen
from unweave.nn.encoder import Extractor
from unweave.nn.penalties import (
    covariance_penalty,
    density_ratio,
    discriminator_loss,
    draw_normal,
    gaussian_kl,
    shuffle_units,
    total_correlation,
)


class VAE(UnitModel):
    """A VAE trained by the evidence lower bound with Bernoulli pixels, and a penalty on its codes."""

    config: VAEConfig

    def __init__(self, config: VAEConfig) -> None:
        super().__init__(config.num_units)
        self.config = config
        self.encoder = Extractor(config.encoder, config.image_size, variational=True)
        self.decoder = _decoder(config)
        widths = (config.num_units, *config.discriminator_widths)
        self.discriminator = _perceptron(widths, 2) if config.penalty == "factor_vae" else None

    def forward(self, images: Tensor, progress: float = 1.0) -> Losses:
        # the evidence lower bound, negative
        del progress
        mean, log_variance = self.encoder.posterior(images)
        codes = draw_normal(mean, log_variance)  # (B, N)
        pixels = F.binary_cross_entropy_with_logits(self.decoder(codes), (images + 1) / 2, reduction="none")
        reconstruction, kl = pixels.sum((1, 2, 3)).mean(), gaussian_kl(mean, log_variance).mean()
        bound, weight = reconstruction + kl, self.config.weight  # bound: of -log p(images), in nats per image
        parts = {"reconstruction": reconstruction, "kl": kl}

        # the penalty
        if self.config.penalty == "beta_vae":
            loss = bound + (weight - 1) * kl
        elif self.config.penalty == "beta_tcvae":
            parts["total_correlation"] = total_correlation(codes, mean, log_variance)
            loss = bound + (weight - 1) * parts["total_correlation"]
        elif self.config.penalty == "dip_vae":
            parts["covariance"] = covariance_penalty(mean, log_variance)
            loss = bound + weight * parts["covariance"]
        else:
            assert self.discriminator is not None
            parts["total_correlation"] = density_ratio(frozen(self.discriminator, codes))
            # the discriminator learns in the same step, from codes detached from the encoder
            joint, shuffled = codes.detach(), shuffle_units(codes.detach())
            parts["discriminator"] = discriminator_loss(self.discriminator(joint), self.discriminator(shuffled))
            loss = bound + weight * parts["total_correlation"] + parts["discriminator"]
        return Losses(loss, {"loss": loss.detach(), **{name: part.detach() for name, part in parts.items()}})

    def networks(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "decoder": self.decoder}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """FactorVAE's discriminator has its own learning rate and Adam(0.5, 0.9), as published."""
        groups = super().parameter_groups()
        if self.discriminator is not None:
            learned = [*self.discriminator.parameters()]
            groups.append({"params": learned, "lr_ratio": self.config.discriminator_lr_ratio, "betas": (0.5, 0.9)})
        return groups

    def units_of(self, images: Tensor) -> Tensor:
        return self.encoder.scalars(images)

    def images_of(self, tokens: Tensor, noise: Tensor, steps: int, solver: Solver) -> Tensor:
        """The means of the pixels, in one step and without noise."""
        del noise, steps, solver
        return self.decoder(tokens.squeeze(2)).sigmoid() * 2 - 1

    def features_of(self, images: Tensor) -> Tensor:
        return self.encoder.features(images)

    def describe(self) -> str:
        return f"{self.config.penalty.replace('_', '-')} with weight {self.config.weight:g}"


def _perceptron(widths: tuple[int, ...], out: int) -> nn.Sequential:
    """FactorVAE's discriminator (Kim and Mnih 2018, table 3)."""
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out))


def _decoder(config: VAEConfig) -> nn.Sequential:
    """Codes (B, N) -> logits of the pixels (B, 3, H, W); similar to that of Locatello et al. (2019), table 1."""
    channels = config.decoder_channels
    side = config.image_size // 2 ** len(channels)
    widths = (config.num_units, *config.decoder_hidden, channels[0] * side**2)
    full = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    pairs = itertools.pairwise((*channels, 3))
    grow = [layer for a, b in pairs for layer in (nn.ConvTranspose2d(a, b, 4, 2, 1), nn.ReLU())]
    return nn.Sequential(*full, nn.Unflatten(1, (channels[0], side, side)), *grow[:-1])
