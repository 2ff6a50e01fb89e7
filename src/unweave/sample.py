"""What can be done with a trained model's units: reconstruct, swap, traverse. Functions of a model, no plotting.

n images, N units, D token width; images are uint8 (n, H, W, 3).
"""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from unweave.config import Sampling
from unweave.errors import require
from unweave.models.diffusion import DiffusionModel

Progress = Callable[[int], None]


def reconstruct(model: DiffusionModel, images: np.ndarray, sampling: Sampling = Sampling()) -> np.ndarray:
    """Images to units and back, (n, H, W, 3): what the units keep of each image. One noise is shared by all."""
    return _decode_grid(model, model.encode(images).aligned[:, None], sampling)[:, 0]


def swap(
    model: DiffusionModel,
    source: np.ndarray,
    target: np.ndarray,
    sampling: Sampling = Sampling(),
    inverted: bool = False,
    progress: Progress | None = None,
) -> np.ndarray:
    """Each unit of the source images exchanged for the target's, one at a time: (n, N + 2, H, W, 3).

    Along the second axis: the source's own reconstruction, the target's, then unit 0, 1, ... exchanged. All start
    from one noise, so that columns differ by the exchange alone (method section 7; the official script draws anew); or,
    `inverted`, each row from the noise that its source comes from, so that what the units do not hold stays too.
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
    model: DiffusionModel,
    image: np.ndarray,
    values: np.ndarray,
    sampling: Sampling = Sampling(),
    progress: Progress | None = None,
) -> np.ndarray:
    """One image with each unit's scalar set to given values in turn: (N, m, H, W, 3).

    `image` (H, W, 3); `values` (N, m) are the scalars that each unit takes, see `unit_range`.
    """
    require(image.ndim == 3, f"image has shape {image.shape}: traverse takes one image (H, W, 3)")
    num_units = model.config.encoder.num_units
    require(
        values.ndim == 2 and len(values) == num_units, f"values have shape {values.shape}: should be ({num_units}, m)"
    )
    scalars = np.broadcast_to(model.encode(image[None]).scalars, (num_units, values.shape[1], num_units)).copy()
    for unit in range(num_units):
        scalars[unit, :, unit] = values[unit]
    tokens = model.align(scalars.reshape(-1, num_units)).reshape(*scalars.shape, -1)  # (N, m, N, D)
    return _decode_grid(model, tokens, sampling, progress)


def unit_range(scalars: np.ndarray, num: int, tail: float = 0.01) -> np.ndarray:
    """`num` values of each unit's scalar, evenly from one quantile `tail` to the other of (n, N): (N, num)."""
    low, high = np.quantile(scalars, [tail, 1 - tail], axis=0)
    return np.linspace(low, high, num, axis=1).astype(np.float32)


def _decode_grid(
    model: DiffusionModel,
    tokens: np.ndarray,
    sampling: Sampling,
    progress: Progress | None = None,
    noise: Tensor | None = None,
) -> np.ndarray:
    """Decodes tokens (a, b, N, D): (a, b, H, W, 3). From one noise, or row by row from `noise` (a, C, h, w)."""
    noise = model.draw_noise(1, sampling.seed) if noise is None else noise.repeat_interleave(tokens.shape[1], dim=0)
    flat = tokens.reshape(-1, *tokens.shape[2:])
    pictures = model.decode(flat, sampling.steps, noise=noise, progress=progress, solver=sampling.solver)
    return pictures.reshape(*tokens.shape[:2], *pictures.shape[1:])
