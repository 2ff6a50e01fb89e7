"""The latents of a data set, encoded once and stored beside its images.

B batch, C h w latent channels, height, width.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import torch

from unweave.config import DataConfig
from unweave.data.base import ImageSet
from unweave.data.cache import cache_folder
from unweave.data.store import Skipped, Store, converted, fingerprint
from unweave.models.pixels import normalise
from unweave.models.tokenizer import VQ
from unweave.record import Log

BATCH = 64


class LatentSource:
    """The unscaled latents of all images, float16 (C, h, w), as the bytes (C, h, 2 w) that a store keeps."""

    def __init__(self, tokenizer: VQ, dataset: ImageSet):
        self.tokenizer, self.dataset = tokenizer, dataset
        self.name = f"latents of {dataset.name}"

    @property
    def version(self) -> str:
        """Depends on images and VQModel; not on the scale, which is from the first images of a run."""
        weights = hashlib.sha256()
        for name, tensor in sorted(self.tokenizer.vq.state_dict().items()):
            weights.update(name.encode() + tensor.cpu().numpy().tobytes())
        return fingerprint(self.dataset.name, self.dataset.version, self.dataset.image_shape, weights.hexdigest())

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, h, 2 w)."""
        return self.read(0, 1)[0].shape[1:]

    def __len__(self) -> int:
        return len(self.dataset)

    @torch.no_grad()
    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Skipped]]:
        images, device = torch.from_numpy(self.dataset.images(np.arange(start, stop))), self.tokenizer.vq.device
        encoded = [self.tokenizer.encode_unscaled(normalise(part.to(device))).half() for part in images.split(BATCH)]
        return torch.cat(encoded).cpu().numpy().view(np.uint8), []


class Latents(NamedTuple):
    """An open store of latents."""

    store: Store

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """(B,) -> float16 (B, C, h, w), unscaled."""
        return self.store.pixels[indices].view(np.float16)


def cached_latents(tokenizer: VQ, dataset: ImageSet, config: DataConfig, log: Log) -> Latents:
    """The latents of all images, encoded now unless a process did so before; see `data.store.converted`."""
    source = LatentSource(tokenizer, dataset)
    path = cache_folder(config.cache) / f"latents-{source.version}.npy"
    return Latents(converted(source, path, config, log))
