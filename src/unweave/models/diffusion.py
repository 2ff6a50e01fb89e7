"""EncDiff; with Dynamic Gaussian Anchoring and Skip Dropout it is DyGA (Jun et al., WACV 2025).

    image -> tokenizer -> latent                          frozen
    image -> encoder -> N scalars -> N tokens -> anchors  each token pulled towards its Gaussian
    latent + noise, tokens -> denoiser -> prediction      the loss compares it with the target

B batch, N units, D token width, C H W latent channels, height, width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unweave.config import DataConfig, ModelConfig, Sampling, Solver
from unweave.errors import require
from unweave.models.base import Losses, evaluating
from unweave.models.images import check_images, normalise, to_uint8
from unweave.models.tokenizer import make_tokenizer
from unweave.nn.anchors import Anchors
from unweave.nn.encoder import FeatureExtractor
from unweave.nn.noise import Schedule
from unweave.nn.solver import Predict, invert, method
from unweave.nn.transformer import DenoisingTransformer
from unweave.nn.unet import UNet


class Codes(NamedTuple):
    """What the units say of n images."""

    scalars: np.ndarray
    """(n, N) float32: one number per unit, as the encoder gives it."""
    tokens: np.ndarray
    """(n, N, D) float32: the token of each scalar."""
    aligned: np.ndarray
    """(n, N, D) float32: the token after the pull of its anchor, what the denoiser was trained on."""
    anchors: np.ndarray
    """(n, N) int64: index of the Gaussian that each unit belongs to."""


class DiffusionModel(nn.Module):
    """Images to units and back.

    Examples:
        >>> model = unweave.load("rooms-cpu")
        >>> codes = model.encode(images)             # uint8 (n, H, W, 3) or float in [0, 1]
        >>> pictures = model.decode(codes.aligned)   # uint8 (n, H, W, 3)
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        units = config.encoder
        self.tokenizer = make_tokenizer(config.tokenizer, config.image_size)
        self.encoder = FeatureExtractor(units, config.image_size)
        self.anchors = Anchors(config.anchors, units.num_units, units.token_dim)
        shape = config.tokenizer.channels, config.latent_size, units.token_dim
        self.denoiser = (
            UNet(config.unet, *shape) if config.denoiser == "unet" else DenoisingTransformer(config.transformer, *shape)
        )
        self.schedule = Schedule(config.noise)
        self.trained_on: DataConfig | None = None
        self.history: dict[str, Any] = {}
        self.unit_names: dict[int, str] = {}

    def forward(self, images: Tensor, progress: float = 1.0, encoded: Tensor | None = None) -> Losses:
        """The loss of a batch (B, 3, H, W) in [-1, 1] when `progress`, 0 to 1, of a run is done; noise and noise levels
        come from torch's global generator. `encoded` are the images' latents where they are known, see `latents`."""
        latents = self.tokenizer.encode(images) if encoded is None else encoded.float() * self.tokenizer.scale
        scalars, cost = self.encoder.drawn_scalars(images)  # (B, N), (B,)
        pulled = self.anchors.pull(scalars, self.encoder.tokens(scalars), self.encoder.tokens)  # tokens (B, N, D)

        times = self.schedule.draw_times(len(images), images.device)
        noise = torch.randn_like(latents)
        noisy = self.schedule.add_noise(latents, noise, times)
        prediction = self.denoiser(noisy, times, pulled.tokens)
        target = self.schedule.target(latents, noise, times)

        power = 1 if self.config.loss == "l1" else 2
        error = (prediction - target).abs() if power == 1 else (prediction - target).square()
        loss = (self.schedule.loss_weight(times, power) * error).mean()
        parts = {"loss": loss, "lambda": pulled.weight.mean(), "pull_distance": pulled.distance.mean()}
        if self.config.encoder.beta:
            parts["kl"] = cost.mean()
            loss = loss + self.config.encoder.beta_at(progress) * cost.mean() / latents[0].numel()
        return Losses(loss, {name: part.detach() for name, part in parts.items()})

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @torch.no_grad()
    def encode(
        self, images: np.ndarray | Tensor, batch_size: int = 256, progress: Callable[[int], None] | None = None
    ) -> Codes:
        """The units of images: uint8 (n, H, W, 3), or float in [0, 1]; an image's units do not depend on the others.

        `progress` is told how many images are done. Raises `UserError` for other shapes, dtypes and ranges.
        """
        check_images(images, self.config.image_size)
        found: list[tuple[Tensor, ...]] = []
        with evaluating(self):
            for start in range(0, len(images), batch_size):
                batch = normalise(torch.as_tensor(images[start : start + batch_size]).to(self.device))
                scalars, tokens = self.encoder(batch)
                pulled = self.anchors.pull(scalars, tokens, self.encoder.tokens)
                found.append(tuple(part.cpu() for part in (scalars, tokens, pulled.tokens, pulled.gaussian)))
                if progress:
                    progress(min(start + batch_size, len(images)))
        return Codes(*(torch.cat(parts).numpy() for parts in zip(*found)))

    @torch.no_grad()
    def scalars(self, images: np.ndarray | Tensor, batch_size: int = 256) -> np.ndarray:
        """Only the scalars of `encode`, (n, N) float32."""
        check_images(images, self.config.image_size)
        with evaluating(self):
            parts = [
                self.encoder.scalars(normalise(torch.as_tensor(images[i : i + batch_size]).to(self.device))).cpu()
                for i in range(0, len(images), batch_size)
            ]
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def align(self, scalars: np.ndarray | Tensor) -> np.ndarray:
        """The aligned tokens (n, N, D) that scalars (n, N) lead to: through the units' MLPs and the anchors."""
        values = torch.as_tensor(scalars, dtype=torch.float32).to(self.device)
        with evaluating(self):
            return self.anchors.pull(values, self.encoder.tokens(values), self.encoder.tokens).tokens.cpu().numpy()

    @torch.no_grad()
    def decode(
        self,
        tokens: np.ndarray | Tensor,
        steps: int = Sampling.steps,
        seed: int = 0,
        noise: Tensor | None = None,
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
        solver: Solver = Sampling.solver,
    ) -> np.ndarray:
        """Images of tokens (n, N, D) by `steps` steps of a solver (method section 7); uint8 (n, H, W, 3).

        `noise` (n or 1, C, h, w) is where sampling starts, one row shared by all if there is one; without it each
        image draws its own under `seed`. Latents of a decoder (`vq`) end at abar_0 as the official code does, others
        at abar = 1. Raises `UserError` for another shape of tokens or noise, another solver, or a number of steps that
        it cannot take.
        """
        tokens = self._checked(tokens)
        if noise is None:
            noise = self.draw_noise(len(tokens), seed)
        noise = noise.expand(len(tokens), *self.latent_shape)
        pictures = []
        with evaluating(self):
            for start in range(0, len(tokens), batch_size):
                rows = slice(start, start + batch_size)
                predict, begin = self._predict(tokens[rows]), noise[rows].to(self.device)
                latents = method(solver).solve(self.schedule, predict, begin, steps, self._end)
                pictures.append(to_uint8(self.tokenizer.decode(latents)))
                if progress:
                    progress(min(start + batch_size, len(tokens)))
        return np.concatenate(pictures)

    @torch.no_grad()
    def invert(
        self,
        images: np.ndarray | Tensor,
        tokens: np.ndarray | Tensor,
        steps: int = Sampling.steps,
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
        solver: Solver = Sampling.solver,
    ) -> Tensor:
        """The noise (n, C, h, w) from which `decode` draws images (n, H, W, 3) of tokens (n, N, D) again.

        With the same steps and solver, that is. What the tokens do not say of an image stands in it: decoded from its
        own noise, with one unit changed, an image keeps the rest.

        Raises `UserError` as `encode` and `decode` do, and without tokens for each image.
        """
        check_images(images, self.config.image_size)
        tokens = self._checked(tokens)
        require(len(tokens) == len(images), f"{len(images)} images and tokens of {len(tokens)}: need as many of each")
        found = []
        with evaluating(self):
            for start in range(0, len(tokens), batch_size):
                rows = slice(start, start + batch_size)
                latents = self.tokenizer.encode(normalise(torch.as_tensor(images[rows]).to(self.device)))
                found.append(
                    invert(self.schedule, self._predict(tokens[rows]), latents, steps, self._end, solver).cpu()
                )
                if progress:
                    progress(min(start + batch_size, len(tokens)))
        return torch.cat(found)

    def _checked(self, tokens: np.ndarray | Tensor) -> Tensor:
        """Tokens as float32. Raises `UserError` for another shape than (n, N, D)."""
        tokens = torch.as_tensor(tokens, dtype=torch.float32)
        expected = (self.config.encoder.num_units, self.config.encoder.token_dim)
        require(
            tokens.ndim == 3 and tuple(tokens.shape[1:]) == expected and len(tokens) > 0,
            f"tokens have shape {tuple(tokens.shape)}: should be (n, {expected[0]}, {expected[1]})",
        )
        return tokens

    def _predict(self, tokens: Tensor) -> Predict:
        """The denoiser, told these tokens."""
        context = tokens.to(self.device)
        return lambda noisy, times: self.denoiser(noisy, times, context)

    @property
    def _end(self) -> float:
        """signal^2 where sampling ends."""
        return float(self.schedule.signal[0]) ** 2 if self.config.tokenizer.kind == "vq" else 1.0

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a latent."""
        return (self.config.tokenizer.channels, self.config.latent_size, self.config.latent_size)

    def draw_noise(self, num: int, seed: int | torch.Generator) -> Tensor:
        """(num, C, h, w) standard normal start points; row i is the same whatever `num` is.

        A generator in the place of a seed goes on from where it stands.
        """
        generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        return torch.stack([torch.randn(self.latent_shape, generator=generator) for _ in range(num)])
