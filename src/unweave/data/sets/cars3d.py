"""Cars3D (Reed et al. 2015): the .tar.gz, or the folder, of a .mat file per car."""

import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from unweave.data.base import StateSpace
from unweave.data.pictures import is_picture, resized
from unweave.data.sets.card import Card, Remote
from unweave.data.sets.reading import PublishedImages
from unweave.data.store import Skipped, explain_damage
from unweave.errors import UserError, require

FACTORS = {"elevation": 4, "azimuth": 24, "object_type": 183}


def opens(path: Path) -> bool:
    """A folder with .mat files, or any tar that is no shard of pictures, so that `Cars` reports what is missing."""
    if path.is_dir():
        return any(path.glob("*.mat"))
    return path.name.endswith((".tar.gz", ".tgz", ".tar")) and not _has_pictures(path)


def _has_pictures(path: Path) -> bool:
    """Whether the first member of a tar that is a picture or a .mat file is a picture."""
    with suppress(tarfile.TarError, zlib.error, EOFError, OSError), tarfile.open(path) as archive:
        for member in archive:
            if is_picture(member.name) or member.name.endswith(".mat"):
                return is_picture(member.name)
    return False


class Cars(PublishedImages):
    """A file per car with `im` (H, W, 3, azimuths, elevations). The cars vary fastest, then the azimuth.

    Consecutive images are of different cars, so all are decoded together when the first is read; at the requested size
    they take little memory. Opening decodes the first car only.
    """

    def __init__(self, path: Path, size: int):
        files = sorted(path.glob("*.mat")) if path.is_dir() else ()
        views = next(_decoded(path, size)).shape[:2]
        space = StateSpace(tuple(FACTORS), (*views, len(files) or _num_members(path)))
        super().__init__(path, "cars3d", space, size, *files)
        self._pixels: np.ndarray | None = None

    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Skipped]]:
        if self._pixels is None:
            cars = list(_decoded(self.path, self.image_shape[0]))
            for number, car in enumerate(cars):
                views, first = car.shape[:2], cars[0].shape[:2]
                require(views == first, f"{self.path}: car {number} has {views} views, the first {first}: get it again")
            self._pixels = np.stack(cars, axis=2).reshape(-1, *self.image_shape)
        return self._pixels[start:stop], []


def _decoded(path: Path, size: int) -> Iterator[np.ndarray]:
    """The cars of a folder or tar in the order of their names, each (elevations, azimuths, size, size, 3)."""
    for name, content in _contents(path):
        try:
            pixels = scipy.io.loadmat(io.BytesIO(content), variable_names=["im"])["im"]
        except (ValueError, KeyError, TypeError, NotImplementedError, OSError, zlib.error, MatReadError) as error:
            raise UserError(f"{path}: {name} is no car with an array `im` ({error}): get it again") from None
        good = pixels.ndim == 5 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
        require(good, f"{path}: {name} has `im` {pixels.dtype} {pixels.shape}: should be uint8 (H, W, 3, 24, 4)")
        views = pixels.transpose(4, 3, 0, 1, 2)  # (elevations, azimuths, H, W, 3)
        yield resized(views.reshape(-1, *views.shape[2:]), size).reshape(*views.shape[:2], size, size, 3)


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the .mat files of a folder or tar, in the order of their names."""
    with explain_damage(path):
        if path.is_dir():
            for file in sorted(path.glob("*.mat")):
                yield file.name, file.read_bytes()
            return
        with tarfile.open(path) as archive:
            for member in _members(archive, path):
                file = archive.extractfile(member)
                assert file is not None
                yield member.name, file.read()


def _members(archive: tarfile.TarFile, path: Path) -> list[tarfile.TarInfo]:
    members = [member for member in archive if member.isfile() and member.name.endswith(".mat")]
    require(len(members) > 0, f"{path} has no .mat files: Cars3D is a tar of them")
    cars = [member for member in members if PurePosixPath(member.name).parent.name == "cars"]
    return sorted(cars or members, key=lambda member: member.name)  # the published tar also has sprites and shapes


def _num_members(path: Path) -> int:
    with tarfile.open(path) as archive:  # its contents were read before
        return len(_members(archive, path))


CARS3D = Card(
    name="cars3d",
    title="Cars3D",
    about="Renderings of 183 car models seen from all around, at four heights.",
    factors=FACTORS,
    pixels="128 x 128, colour",
    licence="not stated",
    source="http://www.scottreed.info",
    citation="Reed, Zhang, Zhang and Lee, Deep Visual Analogy-Making, NeurIPS 2015",
    use="unweave train rooms-cpu-long --run runs/cars3d --data.folder data/cars3d/nips2015-analogy-data.tar.gz",
    files=(
        Remote(  # the MD5 is that of disent and latte
            "nips2015-analogy-data.tar.gz",
            (
                "http://www.scottreed.info/files/nips2015-analogy-data.tar.gz",
                "http://www-personal.umich.edu/~reedscot/files/nips2015-analogy-data.tar.gz",
            ),
            digest="md5:4e866a7919c1beedf53964e6f7a23686",
        ),
    ),
    layout="A `.mat` file per car with `im`, 24 azimuths by 4 elevations, in the folder `cars` of an archive of "
    "several sets. Cars are numbered by the names of their files.",
    opens=opens,
    read=Cars,
)
