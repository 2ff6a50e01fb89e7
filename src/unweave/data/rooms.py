"""Rooms, drawn: the scene of Shapes3D (Burgess and Kim 2018) by ray casting, in its factors, order and index.

A picture is linear in its three hues, so that each of the 480 geometries (scale, shape, orientation) is cast once and a
picture is a look-up. At 32 px a pixel is the mean of four.

n images, H W height and width in pixels.
"""

from collections.abc import Sequence

import numpy as np

from unweave.data.base import StateSpace
from unweave.data.scene import AZIMUTHS, RAYS, SCALES, SIZE, SKY, cast

CHUNK = 256  # images at a time: their weights are 20 MB


class Rooms:
    """The 480,000 images at 64 or 32 px."""

    name = "rooms"
    version = "1"

    def __init__(self, image_size: int = SIZE):
        assert image_size in (SIZE // 2, SIZE)
        self.image_size = image_size
        names = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
        self._space = StateSpace(names, (10, 10, 10, len(SCALES), 4, len(AZIMUTHS)))
        self._forget()

    def _forget(self) -> None:
        num_geometries = int(np.prod(self.factor_sizes[3:]))
        self._weights = np.zeros((num_geometries, self.image_size**2, 5), np.float32)
        self._is_cast = np.zeros(num_geometries, bool)

    def __getstate__(self) -> dict[str, int]:
        return {"image_size": self.image_size}  # geometries are cast anew where they are needed

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["image_size"])

    @property
    def factor_names(self) -> tuple[str, ...]:
        return self._space.names

    @property
    def factor_sizes(self) -> tuple[int, ...]:
        return self._space.sizes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    def __len__(self) -> int:
        return len(self._space)

    def factors(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self._space.factors(indices)

    def index(self, factors: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
        return self._space.index(factors)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        factors = self._space.factors(indices)
        pictures = np.empty((len(factors), *self.image_shape), np.uint8)
        for start in range(0, len(factors), CHUNK):
            rows = slice(start, start + CHUNK)
            pictures[rows] = self._draw(factors[rows])
        return pictures

    def _draw(self, factors: np.ndarray) -> np.ndarray:
        """Factors (n, 6) -> (n, H, W, 3): the weights of the geometries times the colours, cut off at white."""
        geometry = np.ravel_multi_index(tuple(factors[:, 3:].T), self.factor_sizes[3:])
        for missing in np.unique(geometry[~self._is_cast[geometry]]):
            self._weights[missing] = self._cast(*np.unravel_index(missing, self.factor_sizes[3:]))
            self._is_cast[missing] = True
        colours = np.empty((len(factors), 5, 3), np.float32)
        colours[:, :3] = HUES[factors[:, :3]]
        colours[:, 3:] = SKY, (1.0, 1.0, 1.0)
        light = np.matmul(self._weights[geometry], colours)  # (n, H W, 3)
        np.multiply(light, 255, out=light)
        np.minimum(light, 255, out=light)
        return np.rint(light, out=light).astype(np.uint8).reshape(len(factors), *self.image_shape)

    def _cast(self, scale: np.intp, shape: np.intp, orientation: np.intp) -> np.ndarray:
        """Weights (H W, 5) of floor, wall and object hue, sky and white in each pixel: the mean over its rays."""
        rays = cast(int(shape), float(SCALES[scale]), float(AZIMUTHS[orientation]))
        per_pixel = SIZE * RAYS // self.image_size
        return rays.reshape(self.image_size, per_pixel, self.image_size, per_pixel, 5).mean((1, 3)).reshape(-1, 5)


def _hues() -> np.ndarray:
    """The hues 0, 0.1, ..., 0.9 at full saturation and value as RGB (10, 3) in [0, 1]."""
    sector = (np.array([5, 3, 1]) + np.arange(10)[:, None] * 0.6) % 6
    return (1 - np.clip(np.minimum(sector, 4 - sector), 0, 1)).astype(np.float32)


HUES = _hues()
