"""Perceptual distance of two images in the features of VGG16 (LPIPS, Zhang et al. 2018).

B batch, H W height, width, C h w those of a feature map.
"""

import itertools
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unweave.errors import UserError
from unweave.nn.weights import Tensors, read_tensors

STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions of VGG16 between poolings, their channels
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # of the convolutions among torchvision's `features`
SHIFT = (-0.030, -0.088, -0.188)  # LPIPS standardises images in [-1, 1] by these
SCALE = (0.458, 0.448, 0.450)
PREFIX = r"^(features|net\.slice\d)\."  # of the backbone in torchvision's file, and in one of all of LPIPS
EPSILON = 1e-10


class Perceptual:
    """LPIPS-VGG, version 0.1, as a function of two batches of images.

    Not a module: its weights are never trained, and no checkpoint has them.
    """

    def __init__(self, backbone: Tensors, heads: Tensors, device: torch.device | str = "cpu") -> None:
        """`backbone` has features.0.weight, ..., or net.slice1.0.weight, ...; `heads` has lin0.model.1.weight, ...
        Raises `UserError` for weights that are missing or have another shape."""
        by_place = {re.sub(PREFIX, "", name): value for name, value in backbone.items()}
        places, before = iter(PLACES), 3
        self.stages: list[list[tuple[Tensor, Tensor]]] = []
        self.heads: list[Tensor] = []
        for stage, (num, width) in enumerate(STAGES):
            convolutions = []
            for place in itertools.islice(places, num):
                weight = _entry(by_place, f"{place}.weight", (width, before, 3, 3), "features.")
                bias = _entry(by_place, f"{place}.bias", (width,), "features.")
                convolutions.append((weight.to(device), bias.to(device)))
                before = width
            self.stages.append(convolutions)
            self.heads.append(_entry(heads, f"lin{stage}.model.1.weight", (1, width, 1, 1)).to(device))
        self.shift, self.scale = (torch.tensor(values, device=device)[:, None, None] for values in (SHIFT, SCALE))

    @classmethod
    def read(cls, backbone: Path, heads: Path, device: torch.device | str = "cpu") -> "Perceptual":
        """From two files of torch (which may be the same), read as weights only: no code in them is run. Raises
        `UserError` if one cannot be read or has other content."""
        return cls(read_tensors(backbone, "perceptual.backbone"), read_tensors(heads, "perceptual.heads"), device)

    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        """LPIPS distances (B,) of images (B, 3, H, W) in [-1, 1] from others of the same shape; 0 for equal images."""
        distance = torch.zeros(len(images), device=images.device)
        for ours, theirs, head in zip(self.features(images), self.features(others), self.heads):
            squares = (F.normalize(ours, eps=EPSILON) - F.normalize(theirs, eps=EPSILON)).square()  # (B, C, h, w)
            distance = distance + F.conv2d(squares, head).mean((1, 2, 3))
        return distance

    def features(self, images: Tensor) -> list[Tensor]:
        """The five feature maps (B, C, h, w), C = 64, 128, 256, 512, 512, each half as wide as the one before."""
        maps: list[Tensor] = []
        x = (images - self.shift) / self.scale
        for stage, convolutions in enumerate(self.stages):
            if stage > 0:
                x = F.max_pool2d(x, 2)
            for weight, bias in convolutions:
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            maps.append(x)
        return maps


def _entry(weights: Tensors, name: str, shape: tuple[int, ...], prefix: str = "") -> Tensor:
    tensor = weights.get(name)
    if tensor is None or tuple(tensor.shape) != shape:
        has = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
        raise UserError(f"the perceptual weights are not those of LPIPS-VGG: {prefix}{name} {has}, not {shape}")
    return tensor.detach().float()
