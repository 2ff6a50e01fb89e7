"""smallNORB (LeCun et al. 2004): a folder of binary matrices, packed or not, of its training part, its testing part or
both."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from unweave.data.pictures import resized
from unweave.data.sets.binary_matrix import read_blocks, read_header, read_matrix
from unweave.data.sets.card import Card, Remote
from unweave.data.sets.reading import PublishedImages, grid_of
from unweave.data.store import Skipped
from unweave.errors import UserError, require

FACTORS = {"category": 5, "instance": 10, "elevation": 9, "azimuth": 18, "lighting": 6}
MOST_PIXELS = 1024  # along a side: more is a damaged header
URL = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
TRAINING, TESTING = "smallnorb-5x46789x9x18x6x2x96x96-training", "smallnorb-5x01235x9x18x6x2x96x96-testing"
FILES = {  # bytes and SHA-256: TensorFlow Datasets, datasets/smallnorb/checksums.tsv
    f"{TRAINING}-dat": (131_896_188, "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873"),
    f"{TRAINING}-cat": (348, "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa"),
    f"{TRAINING}-info": (71_052, "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32"),
    f"{TESTING}-dat": (130_799_817, "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474"),
    f"{TESTING}-cat": (347, "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff"),
    f"{TESTING}-info": (10_428, "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2"),
}


class _Part(NamedTuple):
    """The files of the training or the testing part."""

    dat: Path
    cat: Path
    info: Path


def opens(path: Path) -> bool:
    """A folder with the images of at least one part."""
    return path.is_dir() and bool(_stems(path))


def _stems(folder: Path) -> list[str]:
    """The common beginnings of the file names of each part."""
    names = (path.name.removesuffix(".gz").removesuffix(".mat") for path in folder.glob("*-dat.mat*"))
    return sorted({name.removesuffix("-dat") for name in names if name.endswith("-dat")})


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{folder} has no {name}.gz, which belongs to the other files of smallNORB: get it again")


class Toys(PublishedImages):
    """Pairs of grey images in no order, of which those of the first camera are sorted by their factors.

    Neighbours in that order are far apart in the files, so all are decoded together when the first is read.
    """

    def __init__(self, folder: Path, size: int):
        parts = [_Part(*(_file(folder, f"{stem}-{kind}.mat") for kind in _Part._fields)) for stem in _stems(folder)]
        labels = np.concatenate([_labels(part) for part in parts])
        self._order = np.lexsort(labels.T[::-1])
        space = grid_of(labels[self._order], FACTORS, folder)
        super().__init__(folder, "smallnorb", space, size, *(file for part in parts for file in part))
        self.parts = parts
        self._pixels: np.ndarray | None = None

    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Skipped]]:
        if self._pixels is None:
            size = self.image_shape[0]
            blocks = (block[:, 0] for part in self.parts for block in read_blocks(part.dat))
            self._pixels = np.concatenate([resized(block, size)[..., :1].copy() for block in blocks])
        return np.repeat(self._pixels[self._order[start:stop]], 3, axis=3), []


def _labels(part: _Part) -> np.ndarray:
    """(n, 5) int32 in the order of `FACTORS`, of the images of one part."""
    (dtype, shape), cat, info = read_header(part.dat), read_matrix(part.cat), read_matrix(part.info)
    pairs = len(shape) == 4 and shape[1] == 2 and max(shape[2:]) <= MOST_PIXELS and dtype == np.uint8
    require(pairs, f"{part.dat} has {dtype} {shape}: should be uint8 (images, 2 cameras, height, width)")
    for path, table, wanted in ((part.cat, cat, (shape[0],)), (part.info, info, (shape[0], 4))):
        right = table.shape == wanted and table.dtype == np.int32
        require(right, f"{path} has {table.dtype} {table.shape}: should be int32 {wanted}, a row per pair of images")
    return np.column_stack([cat, info])


SMALLNORB = Card(
    name="smallnorb",
    title="smallNORB",
    about="Photographs of fifty toys of five kinds on a turntable, under six lights.",
    factors=FACTORS,
    pixels="96 x 96, grey",
    licence="for research, not to be sold",
    source=URL,
    citation="LeCun, Huang and Bottou, Learning Methods for Generic Object Recognition with Invariance to Pose and "
    "Lighting, CVPR 2004",
    use="unweave train rooms-cpu-long --run runs/smallnorb --data.folder data/smallnorb",
    files=tuple(
        Remote(f"{name}.mat.gz", (f"{URL}{name}.mat.gz",), size, f"sha256:{digest}")
        for name, (size, digest) in FILES.items()
    ),
    layout="Images of two cameras (`dat`), their kind (`cat`) and the other factors (`info`), for training and for "
    "testing, compressed or not; they are sorted by the factors. Only the first camera is used, as in "
    "disentanglement_lib. Toy 3 of the animals and toy 3 of the cars have nothing in common, so the tables of "
    "disentanglement_lib leave `instance` out; here it is a factor, so that the images are a grid, and `--data.fixed "
    "instance=0` keeps one toy of each kind. Training and testing have five toys of each kind each: with only one of "
    "the two, `instance` has five values.",
    opens=opens,
    read=Toys,
)
