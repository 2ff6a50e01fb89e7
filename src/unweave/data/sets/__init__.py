"""The table of data sets that have a name here, a row per set, and look-ups in it.

CONTRIBUTING.md says how to add one.
"""

from pathlib import Path

from unweave.data.base import FactorDataset
from unweave.data.sets.card import Card
from unweave.data.sets.cars3d import CARS3D
from unweave.data.sets.celeba import CELEBA
from unweave.data.sets.dsprites import DSPRITES
from unweave.data.sets.mpi3d import MPI3D
from unweave.data.sets.reading import PublishedImages, refuse_web_page
from unweave.data.sets.rooms import ROOMS
from unweave.data.sets.shapes3d import SHAPES3D
from unweave.data.sets.smallnorb import SMALLNORB
from unweave.errors import UserError, require

ROWS = (
    ROOMS,
    DSPRITES,
    SHAPES3D,
    CARS3D,
    *MPI3D,
    SMALLNORB,
    CELEBA,
)
SETS = {card.name: card for card in ROWS}
DRAWN = tuple(card.name for card in ROWS if card.draw)
IMAGE_SIZES = (32, 64)


def find(name: str) -> Card:
    """The card of a set. Raises `UserError` with the known names for another one."""
    if name not in SETS:
        raise UserError(f"{name!r} is no known data set: choose {', '.join(SETS)}")
    return SETS[name]


def check_drawn(name: str) -> None:
    """Raises `UserError`, with the way to a published set, unless `name` is a generated set."""
    files = f", or download {name} and name its files in data.folder: unweave data get {name}" if name in SETS else ""
    require(name in DRAWN, f"data.name is {name!r}: choose {' or '.join(DRAWN)}{files}")


def draw(name: str, image_size: int) -> FactorDataset:
    """The generated set of a name. Raises `UserError` for another name, and for sizes other than 32 and 64."""
    check_drawn(name)
    sizes = " or ".join(map(str, IMAGE_SIZES))
    require(image_size in IMAGE_SIZES, f"model.image_size is {image_size}: {name} is generated at {sizes} px")
    make = SETS[name].draw
    assert make is not None
    return make(image_size)


def open_published(path: Path, size: int) -> PublishedImages | None:
    """The images of a published set at `size` px; None for a path that is none.

    The last row of the table comes first: shapes3d and cars3d open any file of their format, to report what is wrong
    with it. Raises `UserError` for a file that is cut short, a web page, or has labels that are no grid in order.
    """
    if not path.is_dir():
        refuse_web_page(path)
    for card in reversed(ROWS):
        if card.opens and card.read and card.opens(path):
            return card.read(path, size)
    return None
