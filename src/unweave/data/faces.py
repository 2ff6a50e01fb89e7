"""Generated pictures and attributes in CelebA's format, with a room in place of a face.

Each attribute is a factor that takes values from two groups only. Hues are limited because all hues form a circle, on
which no threshold separates warm from cold. Shape and angle are constant.

list_attr_celeba.txt   the number of pictures, names of attributes, then -1 or 1 for each
img_align_celeba.zip   pictures of 178 x 218 px; `data.crop celeba_128` cuts the room out of them
"""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from unweave.data.sets.rooms import Rooms
from unweave.files import write_atomically, write_text

WIDTH, HEIGHT = 178, 218
LEFT, TOP, SIDE = 25, 57, 128
COLD, WARM = (4, 5, 6, 7), (0, 1, 2, 9)
ATTRIBUTES = {  # the factor, its values for attribute -1, and those for attribute 1
    "Floor_Warm": ("floor_hue", COLD, WARM),
    "Wall_Warm": ("wall_hue", COLD, WARM),
    "Object_Warm": ("object_hue", COLD, WARM),
    "Large": ("scale", (0, 1), (6, 7)),
}


def draw_faces(pictures: Path, attributes: Path, num: int, seed: int = 0) -> None:
    """Writes both files, of `num` rooms, unless they exist."""
    if attributes.exists():
        return
    rooms, rng = Rooms(64), np.random.default_rng(seed)
    attribute_values = rng.integers(0, 2, (num, len(ATTRIBUTES)))
    factors = np.zeros((num, len(rooms.factor_names)), dtype=np.int64)
    factors[:, rooms.factor_names.index("orientation")] = 7
    for column, (factor, *kinds) in zip(attribute_values.T, ATTRIBUTES.values()):
        factors[:, rooms.factor_names.index(factor)] = [rng.choice(kinds[value]) for value in column]
    images = rooms.images(rooms.index(factors))
    names = [f"{number:06d}.png" for number in range(1, num + 1)]
    write_atomically(pictures, lambda path: _zip(path, names, images))
    rows = [f"{name} {' '.join(map(str, row))}" for name, row in zip(names, 2 * attribute_values - 1)]
    write_text(attributes, "\n".join([str(num), " ".join(ATTRIBUTES), *rows]) + "\n")


def _zip(path: Path, names: list[str], images: np.ndarray) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in zip(names, images):
            canvas = Image.new("RGB", (WIDTH, HEIGHT))
            canvas.paste(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.NEAREST), (LEFT, TOP))
            buffer = io.BytesIO()
            canvas.save(buffer, "PNG", compress_level=1)
            archive.writestr(f"img_align_celeba/{name}", buffer.getvalue())
