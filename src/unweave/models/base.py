"""The interface of all models with units, which is all that scores, pictures, pages and tables use.

A new model needs a file here with a subclass of `UnitModel`, a class of options and a row of `config.MODELS`.

n images, B batch, N units, D token width, H W height and width of an image.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from unweave.config import MODELS, AnchorConfig, DataConfig, ModelConfig, Sampling, Solver
from unweave.errors import UserError, require
from unweave.models.pixels import check_images, normalise, to_uint8
from unweave.nn.anchors import Anchors
from unweave.nn.layers import Attention

Progress = Callable[[int], None]
"""Called with the number of images done."""


class Losses(NamedTuple):
    """The loss that a training step minimises, and the named numbers for the record, which include `loss`."""

    total: Tensor
    parts: dict[str, Tensor]


class Codes(NamedTuple):
    """The units of n images."""

    scalars: np.ndarray
    """(n, N) float32: one number per unit, the output of the encoder."""
    tokens: np.ndarray
    """(n, N, D) float32: the token of each scalar; in a model without tokens the scalar itself, D = 1."""
    aligned: np.ndarray
    """(n, N, D) float32: the token aligned to its anchor, on which the decoder was trained."""
    anchors: np.ndarray
    """(n, N) int64: index of the Gaussian that each unit belongs to; 0 without anchors."""


class UnitModel(nn.Module, ABC):
    """Images to units and back.

    A subclass defines the loss of a batch (`forward`), its `networks`, and the maps from images to scalars (`units_of`)
    and from tokens to images (`images_of`). All other methods have defaults, which a subclass can override.

    Examples:
        >>> model = unweave.load("rooms-cpu")
        >>> codes = model.encode(images)             # uint8 (n, H, W, 3) or float in [0, 1]
        >>> pictures = model.decode(codes.aligned)   # uint8 (n, H, W, 3)
    """

    config: Any
    """The options, of the class in the model's row of `MODELS`."""
    latent_shape: tuple[int, ...] = (0,)
    """Shape of the noise that an image is generated from; of size 0 if the decoder takes none."""
    fit_every_images: int = 0
    """The anchors are fitted every time this many images have been trained on, and at the end; 0: at the end only."""

    def __init__(self, num_units: int, token_dim: int = 1, anchors: Anchors | None = None) -> None:
        super().__init__()
        self.num_units, self.token_dim = num_units, token_dim
        self.anchors = anchors or Anchors(AnchorConfig(mode="off"), num_units, token_dim)
        self.trained_on: DataConfig | None = None
        self.history: dict[str, Any] = {}
        self.unit_names: dict[int, str] = {}

    # Training

    @abstractmethod
    def forward(self, images: Tensor, progress: float = 1.0) -> Losses:
        """The loss of a batch (B, 3, H, W) in [-1, 1] at `progress`, 0 to 1, of a run; random numbers come from torch's
        global generator."""

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The trained networks by name. Each has a moving average, `encoder` only with `train.ema_encoder`."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups of the optimiser, each with an `lr_ratio`: its learning rate in units of `train.lr`."""
        learned = [weights for network in self.networks().values() for weights in network.parameters()]
        return [{"params": learned, "lr_ratio": 1.0}]

    def prepare(self, images: Tensor) -> str:
        """Fits all that is fixed in training, to images (n, 3, H, W) in [-1, 1]; returns a line for the log."""
        del images
        return f"training {self.describe()}"

    # Images to units and back

    @abstractmethod
    def units_of(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> scalars (B, N)."""

    @abstractmethod
    def images_of(self, tokens: Tensor, noise: Tensor, steps: int, solver: Solver) -> Tensor:
        """Tokens (B, N, D) and noise (B, *latent_shape) -> images (B, 3, H, W), about in [-1, 1]."""

    def tokens_of(self, scalars: Tensor) -> Tensor:
        """Scalars (B, N) -> tokens (B, N, D)."""
        return scalars.unsqueeze(2)

    def features_of(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> features (B, d) for the Frechet distance without Inception's weights."""
        return self.units_of(images)

    @torch.no_grad()
    def encode(self, images: np.ndarray | Tensor, batch_size: int = 256, progress: Progress | None = None) -> Codes:
        """The units of images, uint8 (n, H, W, 3) or float in [0, 1]. They do not depend on the other images. Raises
        `UserError` for other shapes, dtypes and ranges."""
        check_images(images, self.config.image_size)
        batches: list[tuple[Tensor, ...]] = []
        with eval_mode(self):
            for start in range(0, len(images), batch_size):
                scalars = self.units_of(normalise(torch.as_tensor(images[start : start + batch_size]).to(self.device)))
                tokens = self.tokens_of(scalars)
                aligned = self.anchors.align(scalars, tokens, self.tokens_of)
                batches.append(tuple(part.cpu() for part in (scalars, tokens, aligned.tokens, aligned.gaussian)))
                if progress:
                    progress(min(start + batch_size, len(images)))
        return Codes(*(torch.cat(parts).numpy() for parts in zip(*batches)))

    @torch.no_grad()
    def scalars(self, images: np.ndarray | Tensor, batch_size: int = 256) -> np.ndarray:
        """Only the scalars of `encode`, (n, N) float32."""
        check_images(images, self.config.image_size)
        with eval_mode(self):
            parts = [
                self.units_of(normalise(torch.as_tensor(images[i : i + batch_size]).to(self.device))).cpu()
                for i in range(0, len(images), batch_size)
            ]
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def align(self, scalars: np.ndarray | Tensor) -> np.ndarray:
        """The aligned tokens (n, N, D) of scalars (n, N), the input of `decode`."""
        values = torch.as_tensor(scalars, dtype=torch.float32).to(self.device)
        with eval_mode(self):
            return self.anchors.align(values, self.tokens_of(values), self.tokens_of).tokens.cpu().numpy()

    @torch.no_grad()
    def decode(
        self,
        tokens: np.ndarray | Tensor,
        steps: int = Sampling.steps,
        seed: int = 0,
        noise: Tensor | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
        solver: Solver = Sampling.solver,
    ) -> np.ndarray:
        """Images of tokens (n, N, D), uint8 (n, H, W, 3).

        A diffusion model samples them in `steps` steps of a solver from `noise` (n or 1, C, h, w), where one row is
        shared by all images; without it each image has its own noise from `seed`. A model without noise ignores these
        four. Raises `UserError` for another shape of tokens or noise, an unknown solver, or an impossible number of
        steps.
        """
        tokens = self._checked(tokens)
        if noise is None:
            noise = self.draw_noise(len(tokens), seed)
        noise = noise.expand(len(tokens), *self.latent_shape)
        pictures = []
        with eval_mode(self):
            for start in range(0, len(tokens), batch_size):
                rows = slice(start, start + batch_size)
                batch = self.images_of(tokens[rows].to(self.device), noise[rows].to(self.device), steps, solver)
                pictures.append(to_uint8(batch))
                if progress:
                    progress(min(start + batch_size, len(tokens)))
        return np.concatenate(pictures)

    def invert(
        self,
        images: np.ndarray | Tensor,
        tokens: np.ndarray | Tensor,
        steps: int = Sampling.steps,
        batch_size: int = 64,
        progress: Progress | None = None,
        solver: Solver = Sampling.solver,
    ) -> Tensor:
        """The noise (n, *latent_shape) from which `decode` reconstructs images (n, H, W, 3) with tokens (n, N, D).

        It holds what the tokens do not: an image decoded from its own noise with one unit changed keeps the rest. For a
        model without noise it is empty.
        """
        del images, steps, batch_size, progress, solver
        return self.draw_noise(len(tokens), 0)

    def draw_noise(self, num: int, seed: int | torch.Generator) -> Tensor:
        """(num, *latent_shape) standard normal noise; row i does not depend on `num`.

        A generator in place of a seed is used, and advanced, as it is.
        """
        generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        return torch.stack([torch.randn(self.latent_shape, generator=generator) for _ in range(num)])

    def untrained(self, seed: int) -> Self:
        """The same model with initial weights from `seed`, as a baseline of its units."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return type(self)(self.config).to(self.device).eval()

    # Descriptions

    def describe(self) -> str:
        """The method in a few words."""
        return type(self).__name__

    def facts(self) -> list[tuple[str, str]]:
        """Facts about the model for a page or a card: headings, each with its text."""
        learned = sum(weights.numel() for network in self.networks().values() for weights in network.parameters())
        tokens = f" and a token of width {self.token_dim}" if self.token_dim > 1 else ""
        return [
            ("units", f"{self.num_units}, each one number{tokens}"),
            ("network", f"{self.describe()}, {learned:,} weights"),
        ]

    def attention_layers(self) -> list[Attention]:
        """The layers of cross-attention to the tokens; empty if the model has none."""
        return []

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def _checked(self, tokens: np.ndarray | Tensor) -> Tensor:
        """Tokens as float32. Raises `UserError` for another shape than (n, N, D)."""
        tokens = torch.as_tensor(tokens, dtype=torch.float32)
        require(
            tokens.ndim == 3 and tuple(tokens.shape[1:]) == (self.num_units, self.token_dim) and len(tokens) > 0,
            f"tokens have shape {tuple(tokens.shape)}: should be (n, {self.num_units}, {self.token_dim})",
        )
        return tokens


def make_model(config: ModelConfig) -> UnitModel:
    """The model for some options, with initial weights."""
    module, name = next(kind.model for kind in MODELS.values() if kind.options is type(config)).rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(config)


def find_device(name: str = "auto") -> torch.device:
    """A torch device by name; `auto` is the accelerator if there is one. Raises `UserError` for a missing device."""
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator if accelerator is not None else torch.device("cpu")
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device is {name!r}: {str(error).splitlines()[0]}") from None
    return chosen


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model into eval mode, and afterwards back into its mode."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)
