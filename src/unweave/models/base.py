"""What every model with units offers: images to units and back. Scores, pictures, pages and tables ask for this alone.

A model is a file here with a subclass of `UnitModel`, a class of options and a row of `config.MODELS`.

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
from unweave.models.images import check_images, normalise, to_uint8
from unweave.nn.anchors import Anchors
from unweave.nn.layers import Attention

Progress = Callable[[int], None]
"""Gets the number of images that are done."""


class Losses(NamedTuple):
    """What a training step minimises, and the named numbers that go into the record, `loss` among them."""

    total: Tensor
    parts: dict[str, Tensor]


class Codes(NamedTuple):
    """What the units say of n images."""

    scalars: np.ndarray
    """(n, N) float32: one number per unit, as the encoder gives it."""
    tokens: np.ndarray
    """(n, N, D) float32: the token of each scalar; of a model without tokens the scalar itself, D = 1."""
    aligned: np.ndarray
    """(n, N, D) float32: the token after the pull of its anchor, what the decoder was trained on."""
    anchors: np.ndarray
    """(n, N) int64: index of the Gaussian that each unit belongs to; 0 without anchors."""


class UnitModel(nn.Module, ABC):
    """Images to units and back.

    A subclass says how a batch is trained on (`forward`), which `networks` it has, and how images become scalars
    (`units_of`) and tokens images (`images_of`). The rest is here, and is replaced where a model has more to say.

    Examples:
        >>> model = unweave.load("rooms-cpu")
        >>> codes = model.encode(images)             # uint8 (n, H, W, 3) or float in [0, 1]
        >>> pictures = model.decode(codes.aligned)   # uint8 (n, H, W, 3)
    """

    config: Any
    """Its options, of the class in its row of `MODELS`."""
    latent_shape: tuple[int, ...] = (0,)
    """Shape of the noise that an image is drawn from; of size 0 where a decoder takes none."""
    fit_every_images: int = 0
    """The anchors are fitted each time this many images were trained on, and at the end; 0: only then."""

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
        """The loss of a batch (B, 3, H, W) in [-1, 1] when `progress`, 0 to 1, of a run is done; what is random comes
        from torch's global generator."""

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The learned parts by name. They have a moving average, `encoder` where the options of training say so."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups of the optimiser, each with an `lr_ratio`: its learning rate in units of `train.lr`."""
        learned = [weights for network in self.networks().values() for weights in network.parameters()]
        return [{"params": learned, "lr_ratio": 1.0}]

    def prepare(self, images: Tensor) -> str:
        """Fits what is fixed while training, on images (n, 3, H, W) in [-1, 1]; returns a line about it."""
        del images
        return f"training {self.describe()}"

    # Images to units and back

    @abstractmethod
    def units_of(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> scalars (B, N)."""

    @abstractmethod
    def images_of(self, tokens: Tensor, noise: Tensor, steps: int, solver: Solver) -> Tensor:
        """Tokens (B, N, D) -> images (B, 3, H, W), about [-1, 1], from noise (B, *latent_shape) where there is any."""

    def tokens_of(self, scalars: Tensor) -> Tensor:
        """Scalars (B, N) -> tokens (B, N, D)."""
        return scalars.unsqueeze(2)

    def features_of(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> (B, d): the space of the Frechet distance without Inception's weights."""
        return self.units_of(images)

    @torch.no_grad()
    def encode(self, images: np.ndarray | Tensor, batch_size: int = 256, progress: Progress | None = None) -> Codes:
        """The units of images: uint8 (n, H, W, 3), or float in [0, 1]; an image's units do not depend on the others.

        Raises `UserError` for other shapes, dtypes and ranges.
        """
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
        """The aligned tokens (n, N, D) of scalars (n, N): what `decode` takes."""
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

        A diffusion model draws them by `steps` steps of a solver from `noise` (n or 1, C, h, w), one
        row shared by all if there is one; without it each image draws its own under `seed`. A model without noise
        ignores these four. Raises `UserError` for another shape of tokens or noise, another solver, or a number of
        steps that it cannot take.
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
        """The noise (n, *latent_shape) from which `decode` draws images (n, H, W, 3) of tokens (n, N, D) again.

        What the tokens do not say of an image stands in it: decoded from its own noise, with one unit changed, an image
        keeps the rest. Of a model without noise, it is empty.
        """
        del images, steps, batch_size, progress, solver
        return self.draw_noise(len(tokens), 0)

    def draw_noise(self, num: int, seed: int | torch.Generator) -> Tensor:
        """(num, *latent_shape) standard normal start points; row i is the same whatever `num` is.

        A generator instead of a seed continues from its state.
        """
        generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        return torch.stack([torch.randn(self.latent_shape, generator=generator) for _ in range(num)])

    def untrained(self, seed: int) -> Self:
        """The same model with fresh weights under `seed`, to compare units with."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return type(self)(self.config).to(self.device).eval()

    # What pages say of it

    def describe(self) -> str:
        """The method in a few words."""
        return type(self).__name__

    def facts(self) -> list[tuple[str, str]]:
        """What a page or a card says of the model: headings, each with its text."""
        learned = sum(weights.numel() for network in self.networks().values() for weights in network.parameters())
        tokens = f" and a token of width {self.token_dim}" if self.token_dim > 1 else ""
        return [
            ("units", f"{self.num_units}, each one number{tokens}"),
            ("network", f"{self.describe()}, {learned:,} weights"),
        ]

    def attention_layers(self) -> list[Attention]:
        """The cross-attention layers that look at the tokens; none where units act otherwise."""
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
    """The model that options describe, with fresh weights."""
    module, name = next(kind.model for kind in MODELS.values() if kind.options is type(config)).rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(config)


def find_device(name: str = "auto") -> torch.device:
    """A torch device by name; `auto` is the fastest one present. Raises `UserError` for one that is not there."""
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found if found is not None else torch.device("cpu")
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device is {name!r}: {str(error).splitlines()[0]}") from None
    return chosen


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model into eval mode and back into the mode that it had."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)
