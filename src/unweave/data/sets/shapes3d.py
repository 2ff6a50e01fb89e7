"""Shapes3D (Burgess and Kim 2018): an .h5 with `images` and `labels`."""

from pathlib import Path

import h5py
import numpy as np

from unweave.data.pictures import resized
from unweave.data.sets.card import Card, Remote
from unweave.data.sets.reading import PublishedImages, check_pixels, grid_of
from unweave.data.store import Skipped, explain_damage
from unweave.errors import UserError

FACTORS = {"floor_hue": 10, "wall_hue": 10, "object_hue": 10, "scale": 8, "shape": 4, "orientation": 15}


def opens(path: Path) -> bool:
    """Any HDF5 file, so that `read` reports what another layout lacks."""
    return path.suffix in (".h5", ".hdf5")


def read(path: Path, size: int) -> PublishedImages:
    """The images of the file, in the grid of its labels. Raises `UserError` for another layout."""
    with explain_damage(path, "cannot be read as HDF5"), h5py.File(path, "r") as file:
        images, labels = file.get("images"), file.get("labels")
        if not isinstance(images, h5py.Dataset) or not isinstance(labels, h5py.Dataset):
            raise UserError(f"{path} has {sorted(file)}: Shapes3D has `images` and `labels`")
        space = grid_of(labels[:], FACTORS, path)
        check_pixels(path, "images", images.shape, images.dtype, len(space))
    return _Images(path, "shapes3d", space, size)


class _Images(PublishedImages):
    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Skipped]]:
        with explain_damage(self.path, "is damaged"), h5py.File(self.path, "r") as file:
            images = file["images"]
            assert isinstance(images, h5py.Dataset)
            return resized(images[start:stop], self.image_shape[0]), []


SHAPES3D = Card(
    name="shapes3d",
    title="Shapes3D",
    about="Renderings of a room with one object: its size, shape and three hues, and the angle of the camera.",
    factors=FACTORS,
    pixels="64 x 64, colour",
    licence="Apache-2.0",
    source="https://github.com/google-deepmind/3d-shapes",
    citation="Burgess and Kim, 3D Shapes Dataset, 2018",
    use="unweave train rooms-cpu-long --run runs/shapes3d --data.folder data/shapes3d/3dshapes.h5",
    files=(
        Remote(  # TensorFlow Datasets, url_checksums/shapes3d.txt
            "3dshapes.h5",
            ("https://storage.googleapis.com/3d-shapes/3dshapes.h5",),
            267_573_662,
            "sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
        ),
    ),
    layout="`images`, `labels`: the values of the factors, from which the grid is read.",
    picture="Frames of the publishers' animation, Apache-2.0; its colours are those of a GIF.",
    opens=opens,
    read=read,
)
