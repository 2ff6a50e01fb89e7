"""What a trained model's units do: reconstruction, swaps, traversals, draws from anchors, attention maps.

Functions of a model, without plotting. n images, N units, D token width, C h w of latents; images are uint8
(n, H, W, 3).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from unweave.config import Sampling
from unweave.errors import require
from unweave.models.base import Codes, UnitModel, eval_mode
from unweave.nn.layers import Attention

Progress = Callable[[int], None]

CHUNK = 64


def reconstruct(model: UnitModel, images: np.ndarray, sampling: Sampling = Sampling()) -> np.ndarray:
    """Reconstructions (n, H, W, 3) of images from their units, all from the same noise."""
    return _decode_grid(model, model.encode(images).aligned[:, None], sampling)[:, 0]


def swap(
    model: UnitModel,
    source: np.ndarray,
    target: np.ndarray,
    sampling: Sampling = Sampling(),
    inverted: bool = False,
    progress: Progress | None = None,
) -> np.ndarray:
    """The source images with each unit in turn exchanged for the target's: (n, N + 2, H, W, 3).

    Along the second axis: the source's reconstruction, the target's, then unit 0, 1, ... exchanged. All start from the
    same noise, so that columns differ by the exchange alone (the published script draws new noise for each, see
    docs/fidelity.md). With `inverted` each row starts from the noise that generates its source (DDIM inversion, Song et
    al. 2021), which also keeps what the units do not hold. Raises `UserError` for unequal numbers of images.
    """
    require(
        len(source) == len(target), f"{len(source)} source images and {len(target)} target images: need as many of each"
    )
    from_tokens, to_tokens = model.encode(source).aligned, model.encode(target).aligned  # (n, N, D)
    num_units = from_tokens.shape[1]
    mixed = np.repeat(from_tokens[:, None], num_units, axis=1)  # (n, N, N, D)
    for unit in range(num_units):
        mixed[:, unit, unit] = to_tokens[:, unit]
    rows = np.concatenate([from_tokens[:, None], to_tokens[:, None], mixed], axis=1)  # (n, N + 2, N, D)
    noise = model.invert(source, from_tokens, sampling.steps, solver=sampling.solver) if inverted else None
    return _decode_grid(model, rows, sampling, progress, noise)


def traverse(
    model: UnitModel,
    image: np.ndarray,
    values: np.ndarray,
    sampling: Sampling = Sampling(),
    progress: Progress | None = None,
) -> np.ndarray:
    """Latent traversals: one image with each unit's scalar set to m values in turn: (N, m, H, W, 3).

    `image` (H, W, 3); `values` (N, m) are the values of each unit's scalar, see `unit_range`. Raises `UserError` for
    other shapes.
    """
    require(image.ndim == 3, f"image has shape {image.shape}: traverse takes one image (H, W, 3)")
    num_units = model.num_units
    require(
        values.ndim == 2 and len(values) == num_units, f"values have shape {values.shape}: should be ({num_units}, m)"
    )
    scalars = np.broadcast_to(model.encode(image[None]).scalars, (num_units, values.shape[1], num_units)).copy()
    for unit in range(num_units):
        scalars[unit, :, unit] = values[unit]
    tokens = model.align(scalars.reshape(-1, num_units)).reshape(*scalars.shape, -1)  # (N, m, N, D)
    return _decode_grid(model, tokens, sampling, progress)


def unit_range(scalars: np.ndarray, num: int, tail: float = 0.01) -> np.ndarray:
    """`num` evenly spaced values per unit between the quantiles `tail` and 1 - `tail` of scalars (n, N): (N, num)."""
    low, high = np.quantile(scalars, [tail, 1 - tail], axis=0)
    return np.linspace(low, high, num, axis=1).astype(np.float32)


def exchange_unit(
    model: UnitModel,
    images: np.ndarray,
    unit: int,
    tokens: np.ndarray,
    sampling: Sampling = Sampling(),
    progress: Progress | None = None,
) -> np.ndarray:
    """Images with one unit's token replaced by each of `tokens` (m, D): (n, m, H, W, 3), all from the same noise."""
    model.anchors.require_unit(unit)
    mixed = np.repeat(model.encode(images).aligned[:, None], len(tokens), axis=1)  # (n, m, N, D)
    mixed[:, :, unit] = tokens
    return _decode_grid(model, mixed, sampling, progress)


def anchor_means(model: UnitModel, unit: int) -> np.ndarray:
    """The tokens (K, D) of the means of a unit's anchors. Raises `UserError` for a model without anchors."""
    model.anchors.require_unit(unit)
    num = max(1, int(model.anchors.num_alive[unit]))  # if there are none, drawing from the first raises the error
    return np.concatenate([anchor_draws(model, unit, anchor, 1, spread=0) for anchor in range(num)])


def anchor_draws(model: UnitModel, unit: int, anchor: int, num: int, spread: float = 1.0, seed: int = 0) -> np.ndarray:
    """Tokens (num, D) of a unit drawn from the Gaussian of an anchor, its standard deviation times `spread`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad(), eval_mode(model):
        return model.anchors.draw(unit, anchor, model.tokens_of, num, spread, generator).cpu().numpy()


def anchor_members(codes: Codes, unit: int, anchor: int, num: int, seed: int = 0) -> np.ndarray:
    """Tokens (num, D) of real images at an anchor, drawn with replacement; closer to the training data than a Gaussian.

    `codes` are those of the images to choose from. Raises `UserError` if none of them belongs to the anchor.
    """
    rows = np.flatnonzero(codes.anchors[:, unit] == anchor)
    require(len(rows) > 0, f"none of these {len(codes.anchors):,} images belongs to anchor {anchor} of unit {unit}")
    return codes.aligned[np.random.default_rng(seed).choice(rows, num), unit]


def attention(
    model: UnitModel, images: np.ndarray, sampling: Sampling = Sampling(), progress: Progress | None = None
) -> np.ndarray:
    """The attention maps of each unit while images are reconstructed from the same noise: (n, N, h, w).

    A map has the cross-attention weights from each position to the unit's token, averaged over heads, layers and
    sampling steps; smaller feature maps are enlarged to the size of the latent. At each position the weights of the
    units sum to 1; 1 / N is no preference. Raises `UserError` for a model without cross-attention.
    """
    require(bool(model.attention_layers()), f"a {model.describe()} has no cross-attention: there are no maps to draw")
    tokens, means = model.encode(images).aligned, []
    noise = model.draw_noise(1, sampling.seed)
    for start in range(0, len(images), CHUNK):
        with _watching(model) as maps:
            rows = tokens[start : start + CHUNK]
            model.decode(rows, sampling.steps, noise=noise, batch_size=CHUNK, solver=sampling.solver)
        means.append(maps.total / maps.count)
        if progress:
            progress(min(start + CHUNK, len(images)))
    return torch.cat(means).cpu().numpy()


class _Maps:
    """A running sum of attention maps (B, N, h, w)."""

    def __init__(self, size: int) -> None:
        self.size, self.total, self.count = size, torch.zeros(()), 0

    def add(self, layer: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        """Called before a layer's `forward`, with its inputs: x (B, L, C) and context (B, N, D)."""
        assert isinstance(layer, Attention)
        weights = layer.weights(*inputs).mean(1).mT  # (B, N, L)
        width = math.isqrt(weights.shape[2])
        maps = nn.functional.interpolate(weights.unflatten(2, (width, width)), (self.size, self.size))
        self.total, self.count = self.total.to(maps.device) + maps, self.count + 1


@contextmanager
def _watching(model: UnitModel) -> Iterator[_Maps]:
    """Sums the weights of every cross-attention that runs inside the context; outside it, nothing is slower."""
    maps = _Maps(model.latent_shape[-1])
    hooks = [layer.register_forward_pre_hook(maps.add) for layer in model.attention_layers()]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def _decode_grid(
    model: UnitModel,
    tokens: np.ndarray,
    sampling: Sampling,
    progress: Progress | None = None,
    noise: Tensor | None = None,
) -> np.ndarray:
    """Decodes tokens (a, b, N, D) to (a, b, H, W, 3), all from the same noise or each row from `noise` (a, C, h, w)."""
    noise = model.draw_noise(1, sampling.seed) if noise is None else noise.repeat_interleave(tokens.shape[1], dim=0)
    flat = tokens.reshape(-1, *tokens.shape[2:])
    pictures = model.decode(flat, sampling.steps, noise=noise, progress=progress, solver=sampling.solver)
    return pictures.reshape(*tokens.shape[:2], *pictures.shape[1:])
