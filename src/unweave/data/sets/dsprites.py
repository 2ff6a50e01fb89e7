"""dSprites (Matthey et al. 2017), generated: a square, ellipse or heart, rotated, scaled and moved, white on black.

Shapes and sizes were measured on the published frames. A pixel is white if its centre lies inside: the published images
have no grey. At 32 px a pixel is the mean of four.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unweave.data.base import FactorDataset, StateSpace
from unweave.data.sets.card import Card, Remote
from unweave.data.sets.reading import NpzImages, grid_of, npz_array, npz_names

FACTORS = {"shape": 3, "scale": 6, "orientation": 40, "pos_x": 32, "pos_y": 32}
FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"

SIZE = 64
SCALES = np.linspace(0.5, 1.0, 6)
ANGLES = np.linspace(0, 2 * np.pi, 40)  # both ends: the last orientation looks like the first
POSITIONS = np.linspace(16.0, 48.0, 32)  # centre of the sprite in pixels from the edge
WINDOW = 30  # no sprite reaches further than 13.6 px from its centre
CHUNK = 1024

SQUARE_HALF = 9.6
ELLIPSE_RADII = (12.8, 7.2)
HEART_LOBE = (4.78, -4.05)  # centre of the right lobe, y downwards
HEART_RADII = (4.81, 5.29)
HEART_SIDE = (8.85, -0.60)  # where the straight edge leaves the lobe
HEART_TIP = 8.58


class DSprites(FactorDataset):
    """The 737,280 images of dSprites (its constant colour left out) at 64 or 32 px."""

    name = "dsprites"
    version = "1"

    def __init__(self, image_size: int = SIZE):
        assert image_size in (SIZE // 2, SIZE)
        super().__init__(StateSpace(tuple(FACTORS), tuple(FACTORS.values())))
        self.image_shape = (image_size, image_size, 3)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        factors = self.space.factors(indices)
        masks = np.zeros((len(factors), SIZE, SIZE), np.uint8)
        for start in range(0, len(factors), CHUNK):
            _draw(factors[start : start + CHUNK], masks[start : start + CHUNK])
        if self.image_shape[0] == SIZE:
            grey = masks * np.uint8(255)
        else:
            sums = masks.reshape(len(masks), SIZE // 2, 2, SIZE // 2, 2).sum(axis=(2, 4), dtype=np.uint16)
            grey = (sums * 255 // 4).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)


def _draw(factors: np.ndarray, masks: np.ndarray) -> None:
    """Sets the pixels of the sprites in `masks` (n, 64, 64), testing those in a window around each centre."""
    shape, scale, angle = factors[:, 0], SCALES[factors[:, 1]], ANGLES[factors[:, 2]]
    columns, dx = _window(POSITIONS[factors[:, 3]])
    rows, dy = _window(POSITIONS[factors[:, 4]])
    cos, sin = (np.cos(angle) / scale)[:, None, None], (np.sin(angle) / scale)[:, None, None]
    u = cos * dx[:, None, :] - sin * dy[:, :, None]  # (n, window, window), counter-clockwise on screen
    v = sin * dx[:, None, :] + cos * dy[:, :, None]
    images = np.arange(len(factors))[:, None, None]
    for kind, inside in enumerate((_in_square, _in_ellipse, _in_heart)):
        chosen = shape == kind
        masks[images[chosen], rows[chosen, :, None], columns[chosen, None, :]] = inside(u[chosen], v[chosen])


def _window(centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels (n, window) around a centre, and the distances of their centres from it."""
    pixels = np.floor(centre).astype(np.int64)[:, None] - WINDOW // 2 + np.arange(WINDOW)
    return pixels, pixels + 0.5 - centre[:, None]


def _in_square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) <= SQUARE_HALF


def _in_ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u / ELLIPSE_RADII[0]) ** 2 + (v / ELLIPSE_RADII[1]) ** 2 <= 1


def _in_heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Two lobes, and the kite below them between their centres, their sides and the tip."""
    u = np.abs(u)
    lobe = ((u - HEART_LOBE[0]) / HEART_RADII[0]) ** 2 + ((v - HEART_LOBE[1]) / HEART_RADII[1]) ** 2 <= 1
    slope = (HEART_TIP - HEART_SIDE[1]) / HEART_SIDE[0]
    kite = (v <= HEART_TIP - slope * u) & ((v >= HEART_SIDE[1]) | ((v >= HEART_LOBE[1]) & (u <= HEART_LOBE[0])))
    return lobe | kite


def opens(path: Path) -> bool:
    """The published file: an .npz with `imgs` and `latents_classes`."""
    return {"imgs", "latents_classes"} <= npz_names(path)


def read(path: Path, size: int) -> NpzImages:
    """The images of the published file, in the grid of its labels."""
    space = grid_of(npz_array(path, "latents_classes"), ("color", *FACTORS), path)
    return NpzImages(path, "dsprites", "imgs", space, size, brightest=1)


DSPRITES = Card(
    name="dsprites",
    title="dSprites",
    about="A white square, ellipse or heart on black, rotated, scaled and moved. Generated under this name; the "
    "published file can be opened too.",
    factors=FACTORS,
    pixels="64 x 64 (generated also 32 x 32), black and white",
    licence="Apache-2.0",
    source="https://github.com/google-deepmind/dsprites-dataset",
    citation="Matthey, Higgins, Hassabis and Lerchner, dSprites: Disentanglement testing Sprites dataset, 2017",
    use="unweave train sprites-cpu --run runs/dsprites",
    files=(
        Remote(  # the MD5 is in ten loaders, among them vaetc and latte
            FILE,
            (f"https://github.com/google-deepmind/dsprites-dataset/raw/master/{FILE}",),
            digest="md5:7da33b31b13a06f4b04a70402ce90c2e",
        ),
    ),
    layout="`imgs` of 0 and 1, `latents_classes`; the constant colour is left out of the factors.",
    picture="As generated here: thirty random images, then each factor over its values.",
    draw=DSprites,
    opens=opens,
    read=read,
)
