"""Pictures and attributes in CelebA's format, drawn here: rooms where a face would be.

list_attr_celeba.txt   the number of pictures, names of attributes, then -1 or 1 for each
img_align_celeba.zip   pictures of 178 x 218 px; what `data.fit celeba_128` takes of them is the room
"""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from unweave.data.rooms import Rooms
from unweave.files import write_atomically, write_text

WIDTH, HEIGHT = 178, 218
LEFT, TOP, SIDE = 25, 57, 128
ATTRIBUTES = ("Wall_Warm", "Object_Warm", "Large", "Round")


def draw_faces(pictures: Path, attributes: Path, num: int, seed: int = 0) -> None:
    """Writes both files, of `num` rooms with one floor and one angle; leaves them alone where they are."""
    if attributes.exists():
        return
    rooms, rng = Rooms(64), np.random.default_rng(seed)
    factors = np.stack([rng.integers(0, size, num) for size in rooms.factor_sizes], axis=1)
    factors[:, 0], factors[:, 5] = 0, 7
    images = rooms.images(rooms.index(factors))
    names = [f"{number:06d}.png" for number in range(1, num + 1)]
    write_atomically(pictures, lambda path: _zip(path, names, images))
    wall, thing, scale, shape = factors[:, 1], factors[:, 2], factors[:, 3], factors[:, 4]
    said = np.where(np.stack([wall < 5, thing < 5, scale >= 4, shape % 2 == 1], axis=1), 1, -1)
    rows = [f"{name} {' '.join(map(str, row))}" for name, row in zip(names, said)]
    write_text(attributes, "\n".join([str(num), " ".join(ATTRIBUTES), *rows]) + "\n")


def _zip(path: Path, names: list[str], images: np.ndarray) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in zip(names, images):
            canvas = Image.new("RGB", (WIDTH, HEIGHT))
            canvas.paste(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.NEAREST), (LEFT, TOP))
            buffer = io.BytesIO()
            canvas.save(buffer, "PNG", compress_level=1)
            archive.writestr(f"img_align_celeba/{name}", buffer.getvalue())
