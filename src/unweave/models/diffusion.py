"""EncDiff (Yang et al. 2024); with Dynamic Gaussian Anchoring and Skip Dropout it is DyGA (Jun et al. 2025).

    image -> tokenizer -> latent                          frozen
    image -> encoder -> N scalars -> N tokens -> anchors  each unit is aligned to its Gaussian
    latent + noise, tokens -> denoiser -> prediction      the loss compares it with the target

B batch, N units, D token width, C H W latent channels, height, width.
"""

import copy
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from unweave.config import DiffusionConfig, Sampling, Solver
from unweave.errors import require
from unweave.models.base import Losses, Progress, UnitModel, eval_mode
from unweave.models.pixels import check_images, normalise
from unweave.models.tokenizer import make_tokenizer
from unweave.nn.anchors import make_anchors
from unweave.nn.encoder import FeatureExtractor
from unweave.nn.layers import Attention
from unweave.nn.noise import Schedule
from unweave.nn.solver import Predict, find_sampler, invert
from unweave.nn.transformer import DenoisingTransformer
from unweave.nn.unet import UNet


class DiffusionModel(UnitModel):
    """A latent diffusion model conditioned on units by cross-attention."""

    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig) -> None:
        units = config.encoder
        anchors = make_anchors(config.anchors, units.num_units, units.token_dim)
        super().__init__(units.num_units, units.token_dim, anchors)
        self.config = config
        self.latent_shape = (config.tokenizer.channels, config.latent_size, config.latent_size)
        self.fit_every_images = config.anchors.fit_every_images
        self.tokenizer = make_tokenizer(config.tokenizer, config.image_size)
        self.encoder = FeatureExtractor(units, config.image_size)
        shape = config.tokenizer.channels, config.latent_size, units.token_dim
        self.denoiser = (
            UNet(config.unet, *shape) if config.denoiser == "unet" else DenoisingTransformer(config.transformer, *shape)
        )
        self.schedule = Schedule(config.noise)

    def forward(self, images: Tensor, progress: float = 1.0, encoded: Tensor | None = None) -> Losses:
        """The loss of a batch (B, 3, H, W) in [-1, 1] at `progress`, 0 to 1, of a run; noise and times are from torch's
        global generator. `encoded` are the unscaled latents of the images if they are known, see `training.latents`."""
        # latents, and the units as aligned tokens
        latents = self.tokenizer.encode(images) if encoded is None else encoded.float() * self.tokenizer.scale
        scalars, divergence = self.encoder.drawn_scalars(images)  # (B, N), (B,)
        aligned = self.anchors.align(scalars, self.encoder.tokens(scalars), self.encoder.tokens)  # tokens (B, N, D)

        # the prediction from noisy latents and tokens, and its target
        times = self.schedule.draw_times(len(images), images.device)
        noise = torch.randn_like(latents)
        noisy = self.schedule.add_noise(latents, noise, times)
        prediction = self.denoiser(noisy, times, aligned.tokens)
        target = self.schedule.target(latents, noise, times)

        # the loss, with the bottleneck of beta-VAE if there is one
        power = 1 if self.config.loss == "l1" else 2
        error = (prediction - target).abs() if power == 1 else (prediction - target).square()
        loss = (self.schedule.loss_weight(times, power) * error).mean()
        parts = {"loss": loss, "lambda": aligned.weight.mean(), "pull_distance": aligned.distance.mean()}
        if self.config.encoder.beta:
            parts["kl"] = divergence.mean()
            loss = loss + self.config.encoder.beta_at(progress) * divergence.mean() / latents[0].numel()
        return Losses(loss, {name: part.detach() for name, part in parts.items()})

    def networks(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "denoiser": self.denoiser}

    def prepare(self, images: Tensor) -> str:
        """Fits the tokenizer."""
        return self.tokenizer.fit(images)

    def units_of(self, images: Tensor) -> Tensor:
        return self.encoder.scalars(images)

    def tokens_of(self, scalars: Tensor) -> Tensor:
        return self.encoder.tokens(scalars)

    def features_of(self, images: Tensor) -> Tensor:
        return self.encoder.features(images)

    def images_of(self, tokens: Tensor, noise: Tensor, steps: int, solver: Solver) -> Tensor:
        """With a `vq` tokenizer sampling ends at abar_0, as in the published code, otherwise at abar = 1."""
        latents = find_sampler(solver).solve(self.schedule, self._predict(tokens), noise, steps, self._end)
        return self.tokenizer.decode(latents)

    @torch.no_grad()
    def invert(
        self,
        images: np.ndarray | Tensor,
        tokens: np.ndarray | Tensor,
        steps: int = Sampling.steps,
        batch_size: int = 64,
        progress: Progress | None = None,
        solver: Solver = Sampling.solver,
    ) -> Tensor:
        """See the base class; use the same steps and solver as in `decode`. Raises `UserError` as `encode` and `decode`
        do, and unless there are tokens for each image."""
        check_images(images, self.config.image_size)
        tokens = self._checked(tokens)
        require(len(tokens) == len(images), f"{len(images)} images and tokens of {len(tokens)}: need as many of each")
        noise = []
        with eval_mode(self):
            for start in range(0, len(tokens), batch_size):
                rows = slice(start, start + batch_size)
                latents = self.tokenizer.encode(normalise(torch.as_tensor(images[rows]).to(self.device)))
                predict = self._predict(tokens[rows].to(self.device))
                noise.append(invert(self.schedule, predict, latents, steps, self._end, solver).cpu())
                if progress:
                    progress(min(start + batch_size, len(tokens)))
        return torch.cat(noise)

    def untrained(self, seed: int) -> Self:
        """The same model with an extractor of initial weights, the only part that scalars and features depend on."""
        other = copy.copy(self)
        other._modules = dict(self._modules)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            other.encoder = FeatureExtractor(self.config.encoder, self.config.image_size).to(self.device).eval()
        return other

    def describe(self) -> str:
        return f"diffusion model, {self.config.denoiser}"

    def facts(self) -> list[tuple[str, str]]:
        anchors = f"{self.config.anchors.mode}, {int(self.anchors.num_alive.sum())} in use"
        return [*super().facts(), ("first stage", self.config.tokenizer.kind), ("anchors", anchors)]

    def attention_layers(self) -> list[Attention]:
        layers: Any = self.denoiser.named_modules()
        return [layer for name, layer in layers if name.endswith("cross_attention")]

    def _predict(self, tokens: Tensor) -> Predict:
        """The denoiser for these tokens."""
        return lambda noisy, times: self.denoiser(noisy, times, tokens)

    @property
    def _end(self) -> float:
        """signal^2 at the end of sampling."""
        return float(self.schedule.signal[0]) ** 2 if self.config.tokenizer.kind == "vq" else 1.0
