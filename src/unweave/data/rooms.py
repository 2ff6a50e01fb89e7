"""Shapes3D, drawn (Burgess & Kim 2018): a room with one object, its hues, size, shape and the camera's angle varied.

A picture depends on its three hues only through look-up: each of the 480 geometries is cast once and kept as layers,
the share of sky and the brightness of floor, wall and object for each value that a channel of a hue can take.
At 32 px a pixel is the mean of four.
"""

from collections.abc import Sequence

import numpy as np

from unweave.compiled import compiled
from unweave.data.base import StateSpace
from unweave.data.rooms_scene import ANGLES, FLOOR, LAYERS, OBJECT, SCALES, SIZE, SKY, WALL, draw

VERSION = 1  # raise when the pixels change
SKY_COLOUR = np.array([153.0, 226.0, 249.0]) / 255
UNIT = 64  # layers are kept in 1/64 of a grey level
# Level (0 to 5, in fifths) of the red, green and blue of the fully saturated hues 0, .1, ..., .9
HUE_LEVELS = np.array(
    [[5, 0, 0], [5, 3, 0], [4, 5, 0], [1, 5, 0], [0, 5, 2], [0, 5, 5], [0, 2, 5], [1, 0, 5], [4, 0, 5], [5, 0, 3]]
)


class Rooms:
    """The 480,000 images of Shapes3D at 64 or 32 px, in the published order."""

    name = "rooms"
    version = str(VERSION)

    def __init__(self, image_size: int = SIZE):
        assert image_size in (SIZE // 2, SIZE)
        self.image_size = image_size
        names = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
        self._space = StateSpace(names, (10, 10, 10, 8, 4, 15))
        self._forget()

    def _forget(self) -> None:
        num_geometries = int(np.prod(self._space.sizes[3:]))
        self._drawn = np.zeros(num_geometries, bool)
        self._layers = np.zeros((num_geometries, LAYERS, self.image_size, self.image_size), np.int16)

    def __getstate__(self) -> dict[str, int]:
        return {"image_size": self.image_size}  # the layers are drawn anew where they are needed

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
        geometries = np.asarray(np.ravel_multi_index(tuple(factors[:, 3:].T), self._space.sizes[3:]))
        self._draw_missing(geometries)
        levels = HUE_LEVELS[factors[:, :3]] + np.array([FLOOR, WALL, OBJECT])[:, None]  # (n, 3 surfaces, 3 channels)
        images = np.empty((len(factors), *self.image_shape), np.uint8)
        _colour(self._layers, geometries, levels, images)
        return images

    def _draw_missing(self, geometries: np.ndarray) -> None:
        for geometry in np.unique(geometries[~self._drawn[geometries]]):
            scale, shape, orientation = np.unravel_index(int(geometry), self._space.sizes[3:])
            layers = np.empty((LAYERS, SIZE, SIZE))
            draw(SCALES[scale], int(shape), ANGLES[orientation], layers)
            if self.image_size < SIZE:
                layers = layers.reshape(LAYERS, self.image_size, 2, self.image_size, 2).mean(axis=(2, 4))
            self._layers[geometry] = np.rint(layers * 255 * UNIT)
            self._drawn[geometry] = True


@compiled
def _colour(layers, geometries, levels, images):
    """Adds up layers (G, LAYERS, H, W) for each image; levels (n, 3, 3) names the layer per surface and channel."""
    for i in range(len(images)):
        kept = layers[geometries[i]]
        for channel in range(3):
            sky = SKY_COLOUR[channel]
            floor, wall, thing = levels[i, 0, channel], levels[i, 1, channel], levels[i, 2, channel]
            for y in range(images.shape[1]):
                for x in range(images.shape[2]):
                    value = sky * kept[SKY, y, x] + kept[floor, y, x] + kept[wall, y, x] + kept[thing, y, x]
                    images[i, y, x, channel] = min(max(value / UNIT + 0.5, 0.0), 255.0)
