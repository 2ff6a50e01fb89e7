"""Shapes3D (Burgess and Kim 2018), generated: a room with one object, of varying hues, size, shape and camera angle.

Each of the 480 geometries is ray cast once and kept as layers: the share of sky, and the brightness of floor, wall and
object for each value that a channel of a hue can take. A picture of any hues is a sum of layers. As in the published
images, 192 x 192 rays become 64 x 64 pixels by Lanczos's filter. At 32 px a pixel is the mean of four.
"""

from collections.abc import Sequence

import numpy as np

from unweave.compiled import compiled
from unweave.data.base import FactorDataset, StateSpace
from unweave.data.sets.card import Card
from unweave.data.sets.rooms_scene import ANGLES, FLOOR, OBJECT, SCALES, SKY, WALL, cast
from unweave.data.sets.shapes3d import FACTORS

VERSION = 2  # raise when the pixels change
SIZE = 64
RAYS = 3 * SIZE  # along each side
SKY_COLOUR = np.array([153.0, 226.0, 249.0]) / 255
UNIT = 64  # layers are kept in 1/64 of a grey level
LEVELS = np.linspace(0, 1, 6)  # what a channel of the fully saturated hues 0, .1, ..., .9 can be
HUE_LEVELS = np.array(  # their red, green and blue, as places in LEVELS
    [[5, 0, 0], [5, 3, 0], [4, 5, 0], [1, 5, 0], [0, 5, 2], [0, 5, 5], [0, 2, 5], [1, 0, 5], [4, 0, 5], [5, 0, 3]]
)
FIRST_LAYERS = np.array([1, 1 + len(LEVELS), 1 + 2 * len(LEVELS)])  # of floor, wall, object; layer 0 is the sky
NUM_LAYERS = 1 + 3 * len(LEVELS)


class Rooms(FactorDataset):
    """The 480,000 images of Shapes3D at 64 or 32 px, in the published order."""

    name = "rooms"
    version = str(VERSION)

    def __init__(self, image_size: int = SIZE):
        assert image_size in (SIZE // 2, SIZE)
        super().__init__(StateSpace(tuple(FACTORS), tuple(FACTORS.values())))
        self.image_shape = (image_size, image_size, 3)
        num_geometries = int(np.prod(self.space.sizes[3:]))
        self._drawn = np.zeros(num_geometries, bool)
        self._layers = np.zeros((num_geometries, NUM_LAYERS, SIZE, SIZE), np.int16)

    def __getstate__(self) -> dict[str, int]:
        return {"image_size": self.image_shape[0]}  # the layers are made again when they are needed

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["image_size"])

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        factors = self.space.factors(indices)
        geometries = np.asarray(np.ravel_multi_index(tuple(factors[:, 3:].T), self.space.sizes[3:]))
        self._draw_missing(geometries)
        levels = HUE_LEVELS[factors[:, :3]] + FIRST_LAYERS[:, None]  # (n, 3 surfaces, 3 channels)
        images = np.empty((len(factors), SIZE, SIZE, 3), np.uint8)
        _colour(self._layers, geometries, levels, images)
        if self.image_shape == images.shape[1:]:
            return images
        halves = np.empty((len(factors), *self.image_shape), np.uint8)
        _halve(images, halves)
        return halves

    def _draw_missing(self, geometries: np.ndarray) -> None:
        for geometry in np.unique(geometries[~self._drawn[geometries]]):
            scale, shape, orientation = np.unravel_index(int(geometry), self.space.sizes[3:])
            layers = _layers(int(shape), SCALES[scale], ANGLES[orientation])
            self._layers[geometry] = np.rint(layers * 255 * UNIT)
            self._drawn[geometry] = True


def _layers(shape: int, scale: float, angle: float) -> np.ndarray:
    """Layers (NUM_LAYERS, 64, 64) of one geometry, from about 0 to 1: the filter overshoots a little at edges."""
    surface, shade, gloss = np.empty((3, RAYS, RAYS), np.float32)
    cast(shape, scale, angle, surface, shade, gloss)
    rays = np.empty((NUM_LAYERS, RAYS, RAYS), np.float32)
    rays[0] = surface == SKY
    for first, kind in zip(FIRST_LAYERS, (FLOOR, WALL, OBJECT)):
        lit = np.minimum(LEVELS[:, None, None].astype(np.float32) * shade + gloss, 1)
        rays[first : first + len(LEVELS)] = np.where(surface == kind, lit, 0)
    return LANCZOS @ rays @ LANCZOS.T


def _lanczos() -> np.ndarray:
    """Lanczos's filter (64, 192), three lobes a side."""
    distance = (np.arange(RAYS) + 0.5) * SIZE / RAYS - np.arange(SIZE)[:, None] - 0.5  # in pixels
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


LANCZOS = _lanczos()


@compiled
def _colour(layers, geometries, levels, images):
    """Sums layers (G, NUM_LAYERS, H, W) for each image; levels (n, 3, 3) has the layer of each surface and channel."""
    for i in range(len(images)):
        kept = layers[geometries[i]]
        for channel in range(3):
            sky = SKY_COLOUR[channel]
            floor, wall, thing = levels[i, 0, channel], levels[i, 1, channel], levels[i, 2, channel]
            for y in range(images.shape[1]):
                for x in range(images.shape[2]):
                    value = sky * kept[0, y, x] + kept[floor, y, x] + kept[wall, y, x] + kept[thing, y, x]
                    images[i, y, x, channel] = min(max(value / UNIT + 0.5, 0.0), 255.0)


@compiled
def _halve(images, halves):
    """The mean of four pixels, for images (n, 2 H, 2 W, 3)."""
    for i in range(len(halves)):
        for y in range(halves.shape[1]):
            for x in range(halves.shape[2]):
                for channel in range(3):
                    four = 2  # so that dividing rounds
                    for dy in range(2):
                        for dx in range(2):
                            four += images[i, 2 * y + dy, 2 * x + dx, channel]
                    halves[i, y, x, channel] = four // 4


ROOMS = Card(
    name="rooms",
    title="rooms",
    about="Shapes3D, generated: a room with one object in the colours, sizes and angles of the published images.",
    factors=FACTORS,
    pixels="64 x 64 or 32 x 32, colour",
    licence="Apache-2.0",
    source="generated by unweave",
    citation="Burgess and Kim, 3D Shapes Dataset, 2018, for the original set",
    use="unweave train rooms-cpu --run runs/rooms",
    picture="Thirty random images, then each factor over its values.",
    draw=Rooms,
)
