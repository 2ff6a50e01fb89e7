"""The common part of the readers of published files: images in parts, in the order of the cells of a grid.

Nothing is unpacked to disk and nothing in a file is executed.
"""

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from unweave.data.base import StateSpace
from unweave.data.pictures import resized
from unweave.data.store import Skipped, explain_damage, file_identity, fingerprint
from unweave.errors import UserError, require

AS_NPZ = "cannot be read as .npz"


class PublishedImages(ABC):
    """A `Source` of the images of a published set, one for each cell of `space`, in its order."""

    def __init__(self, path: Path, name: str, space: StateSpace, size: int, *files: Path):
        self.path, self.name, self.space = path, name, space
        self.image_shape = (size, size, 3)
        self.version = fingerprint([file_identity(file) for file in files or (path,)], size)

    def __len__(self) -> int:
        return len(self.space)

    @abstractmethod
    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Skipped]]:
        """As `Source.read`."""


def is_web_page(start: bytes) -> bool:
    """Whether the start of a file is that of a web page, which servers send in place of a missing file."""
    return start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))


def refuse_web_page(path: Path) -> None:
    """Raises `UserError` for a file that is a web page, or cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    require(
        not is_web_page(start),
        f"{path} ({path.stat().st_size:,} bytes) is a web page, not data: a download that failed. Get it again",
    )


def grid_of(labels: np.ndarray, names: Iterable[str], path: Path) -> StateSpace:
    """The grid whose cells, in order, have `labels` (n, F), without factors that have one value. Raises `UserError` if
    the labels are no grid in order."""
    names = tuple(names)
    require(
        labels.ndim == 2 and labels.shape[1] == len(names),
        f"{path} has labels of shape {labels.shape}: should be (images, {len(names)}), for {', '.join(names)}",
    )
    columns = [np.unique(column, return_inverse=True) for column in labels.T]
    space = StateSpace(names, [len(values) for values, _ in columns])
    ordered = len(space) == len(labels) and np.array_equal(
        np.stack([place for _, place in columns], axis=1), space.factors(np.arange(len(space)))
    )
    grid = " x ".join(map(str, space.sizes))
    require(ordered, f"{path} has {len(labels):,} labels, which are not the grid {grid} in order: get the file again")
    free = [column for column, size in enumerate(space.sizes) if size > 1]
    require(len(free) > 0, f"{path} has one image: a data set needs several")
    return StateSpace([names[column] for column in free], [space.sizes[column] for column in free])


def check_pixels(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, num: int) -> None:
    """Raises `UserError` unless the array `name` of a file holds `num` images."""
    good = len(shape) in (3, 4) and shape[0] == num and (len(shape) == 3 or shape[3] == 3) and dtype == np.uint8
    wanted = f"uint8 ({num}, height, width, 3), one image per row of labels"
    require(good, f"{path} has `{name}` {dtype} {shape}: should be {wanted}")


def npz_names(path: Path) -> set[str]:
    """The names of the arrays of an .npz; empty for another ending. Raises `UserError` for a damaged file."""
    if path.suffix != ".npz":
        return set()
    with explain_damage(path, AS_NPZ), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}


def npz_array(path: Path, name: str) -> np.ndarray:
    """A whole array of an .npz. Raises `UserError` for a damaged file, or an array of objects."""
    with explain_damage(path, AS_NPZ), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def npz_header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array of an .npz. Raises `UserError` as `npz_array`."""
    with explain_damage(path, AS_NPZ), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        return _read_header(file)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    if fortran_order or dtype.hasobject:
        raise ValueError("an array of objects, or in Fortran order")
    return shape, dtype


class NpzImages(PublishedImages):
    """The array `member` of an .npz, uint8 (n, H, W) or (n, H, W, 3) from 0 to `brightest`.

    It is read as a stream, because it is compressed and may not fit into memory. Raises `UserError` for other arrays.
    """

    def __init__(self, path: Path, name: str, member: str, space: StateSpace, size: int, brightest: int = 255):
        check_pixels(path, member, *npz_header(path, member), num=len(space))
        super().__init__(path, name, space, size)
        self.member, self.brightest = member, brightest
        self._stream: IO[bytes] | None = None
        self._first, self._shape = 0, (0,)

    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Skipped]]:
        with explain_damage(self.path, "is damaged"):
            if self._stream is None:
                archive = zipfile.ZipFile(self.path)  # stays open until all of it is read
                self._stream = archive.open(f"{self.member}.npy")
                shape, _ = _read_header(self._stream)
                self._first, self._shape = self._stream.tell(), shape[1:]
            image_bytes = int(np.prod(self._shape))
            self._stream.seek(self._first + start * image_bytes)  # forwards, which reads the bytes between
            content = self._stream.read((stop - start) * image_bytes)
            if len(content) < (stop - start) * image_bytes:
                raise EOFError("it ends too early")
        pixels = np.frombuffer(content, np.uint8).reshape(-1, *self._shape)
        return resized(pixels * np.uint8(255 // self.brightest), self.image_shape[0]), []
