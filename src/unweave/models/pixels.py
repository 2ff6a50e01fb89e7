"""Conversion of images: uint8 or [0, 1], channels last, outside; [-1, 1], channels first, for the networks."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unweave.errors import UserError, require


def check_images(images: np.ndarray | Tensor, image_size: int) -> None:
    """Raises `UserError` with the reason unless images are uint8 or float in [0, 1], (n, image_size, image_size, 3)."""
    shape: Any = tuple(getattr(images, "shape", ()))
    wanted = f"(n, {image_size}, {image_size}, 3)"
    require(hasattr(images, "dtype"), f"images are a {type(images).__name__}: give a numpy or torch array {wanted}")
    if len(shape) == 3:
        raise UserError(f"images have shape {shape}: for a single image add a first axis, images[None]")
    require(len(shape) == 4, f"images have shape {shape}: should be {wanted}")
    require(shape[0] > 0, f"there are no images: shape {shape}, should be {wanted} with n at least 1")
    if shape[1] == 3 and shape[3] != 3:
        raise UserError(f"images have shape {shape}: channels come last, should be {wanted}")
    require(shape[1:] == (image_size, image_size, 3), f"images have shape {shape}: this model takes {wanted}")
    values = torch.as_tensor(images[:0])
    if values.dtype == torch.uint8:
        return
    require(values.is_floating_point(), f"images have dtype {images.dtype}: should be uint8, or float in [0, 1]")
    low, high = float(images.min()), float(images.max())
    require(
        low >= 0 and high <= 1,  # false for NaN too
        f"images are {images.dtype} from {low:.4g} to {high:.4g}: floats should be in [0, 1]; give uint8 for 0 to 255",
    )


def normalise(images: Tensor) -> Tensor:
    """uint8 or float [0, 1] (n, H, W, 3) to float32 (n, 3, H, W) in [-1, 1]."""
    unit = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    return (unit * 2 - 1).permute(0, 3, 1, 2).contiguous()


def to_uint8(images: Tensor) -> np.ndarray:
    """(n, 3, H, W) in [-1, 1] to uint8 (n, H, W, 3), by rounding (the published code truncates)."""
    scaled = ((images + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
