"""The scikit-learn interface of the library: `fit(images)`, `transform(images)`."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from unweave.data.arrays import ArrayImages
from unweave.errors import require
from unweave.models.base import find_device
from unweave.models.folder import load
from unweave.models.pixels import check_images
from unweave.presets import PRESETS
from unweave.training.main import train


class UnitEncoder(TransformerMixin, BaseEstimator):
    """Learns the units of images; transforms an image to one number per unit.

    Examples:
        >>> units = UnitEncoder("rooms-cpu", num_images=300_000).fit(images).transform(images)   # (n, N)

    `preset` names a row of the preset table; `num_images` is the number of images to train on, all passes counted (None
    takes the preset's); `device` is cpu, cuda, mps or auto. After `fit`, `model_` is the trained `UnitModel`. Images
    are uint8 (n, H, W, 3) of the preset's size, or float in [0, 1].
    """

    def __init__(
        self,
        preset: str = "rooms-cpu",
        num_images: int | None = None,
        batch_size: int = 64,
        device: str = "auto",
        seed: int = 0,
    ):
        self.preset = preset
        self.num_images = num_images
        self.batch_size = batch_size
        self.device = device
        self.seed = seed

    def fit(self, images: np.ndarray, y: None = None) -> "UnitEncoder":  # noqa: ARG002 (scikit-learn passes it)
        """Trains on images. Raises `UserError` for an unknown preset or images of another shape or dtype."""
        require(self.preset in PRESETS, f"preset is {self.preset!r}: choose from {', '.join(PRESETS)}")
        config = PRESETS[self.preset].config
        check_images(images, config.model.image_size)
        pixels = images if images.dtype == np.uint8 else np.round(images * 255).astype(np.uint8)
        options = replace(
            config.train,
            images=self.num_images or config.train.images,
            batch_size=self.batch_size,
            seed=self.seed,
            accelerator=find_device(self.device).type,  # pyright: ignore[reportArgumentType]
        )
        with tempfile.TemporaryDirectory() as folder:
            model = train(replace(config, train=options), Path(folder) / "run", dataset=ArrayImages(pixels))
            self.model_ = load(model, find_device(self.device))
        return self

    def transform(self, images: np.ndarray) -> np.ndarray:
        """The scalars (n, N) of the units, float32."""
        check_is_fitted(self)
        return self.model_.scalars(images, self.batch_size)
