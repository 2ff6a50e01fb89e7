"""The files in which data sets with known factors are published, read a part at a time, in the order of their factors.

Formats: method section 10. Nothing is unpacked to disk and nothing in a file is executed.
"""

import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import h5py
import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from unweave.data.base import StateSpace
from unweave.data.binary_matrix import read_blocks, read_header, read_matrix
from unweave.data.pictures import is_picture, resized
from unweave.data.store import Skipped, Source, file_identity, fingerprint
from unweave.errors import UserError, require

SHAPES3D = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
DSPRITES = ("color", "shape", "scale", "orientation", "pos_x", "pos_y")
MPI3D = ("object_color", "shape", "size", "camera_height", "background_color", "horizontal_axis", "vertical_axis")
MPI3D_SIZES = {  # by the number of images; the toy, realistic and real sets share a grid
    1_036_800: (6, 6, 2, 3, 3, 40, 40),
    460_800: (4, 4, 2, 3, 3, 40, 40),  # the complex set
}
CARS3D = ("elevation", "azimuth", "object_type")
SMALLNORB = ("category", "instance", "elevation", "azimuth", "lighting")
MOST_PIXELS = 1024  # along a side of smallNORB: more is a damaged header


class Published(NamedTuple):
    """A file of a known layout: its images, and the grid whose cells they are."""

    source: Source
    space: StateSpace


def open_published(path: Path, size: int) -> Published | None:
    """A published data set, told by its contents, at `size` px; None for a file that is none of them.

    Shapes3D (.h5: `images`, `labels`), dSprites (.npz: `imgs`, `latents_classes`), MPI3D (.npz: `images`, as many as
    the grid has), Cars3D (the .tar.gz, or the folder of its .mat files), smallNORB (a folder of its matrices, packed or
    not). The grid's sizes are those that the labels show; a factor with one value is left out. Raises `UserError` for a
    file that is cut short, is something else under that name, or whose labels are no grid in order.
    """
    if path.is_dir():
        if parts := _norb_parts(path):
            toys = _Toys(path, parts, size)
            return Published(toys, toys.space)
        return _cars3d(path, size) if any(path.glob("*.mat")) else None
    _refuse_web_page(path)
    if path.suffix in (".h5", ".hdf5"):
        return _shapes3d(path, size)
    if path.suffix == ".npz":
        return _dsprites_or_mpi3d(path, size)
    if path.name.endswith((".tar.gz", ".tgz", ".tar")) and not _has_pictures(path):
        return _cars3d(path, size)
    return None


def _cars3d(path: Path, size: int) -> Published:
    cars = _Cars(path, size)
    return Published(cars, cars.space)


def is_web_page(start: bytes) -> bool:
    """Whether a file that begins so is a page of a site, which servers send in the place of a file they have not."""
    return start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))


def _has_pictures(path: Path) -> bool:
    """Whether a tar has picture files, not the matrices of Cars3D: the first of either tells."""
    with suppress(tarfile.TarError, zlib.error, EOFError, OSError), tarfile.open(path) as archive:
        for member in archive:
            if is_picture(member.name) or member.name.endswith(".mat"):
                return is_picture(member.name)
    return False


def _refuse_web_page(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    require(
        not is_web_page(start),
        f"{path} ({path.stat().st_size:,} bytes) is a web page, not data: a download that failed. Get it again",
    )


class _Part:
    """What the sources here share: a name, a number of images, and a version from the file."""

    def __init__(self, path: Path, name: str, num: int, size: int, *files: Path):
        self.path, self.name, self.num = path, name, num
        self.image_shape = (size, size, 3)
        self.version = fingerprint([file_identity(file) for file in files or (path,)], size)

    def __len__(self) -> int:
        return self.num


def grid_of(labels: np.ndarray, names: tuple[str, ...], path: Path) -> StateSpace:
    """The grid whose cells, in order, have `labels` (n, F). Raises `UserError` where they are none."""
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


def _shapes3d(path: Path, size: int) -> Published:
    try:
        with h5py.File(path, "r") as file:
            images, labels = file.get("images"), file.get("labels")
            if not isinstance(images, h5py.Dataset) or not isinstance(labels, h5py.Dataset):
                raise UserError(f"{path} has {sorted(file)}: Shapes3D has `images` and `labels`")
            shape, dtype, labels = images.shape, images.dtype, labels[:]
    except OSError as error:
        raise UserError(f"{path} cannot be read as HDF5 ({str(error).splitlines()[0]}): get it again") from None
    _check_pixels(path, "images", shape, dtype, len(labels))
    return Published(_H5Images(path, "shapes3d", len(labels), size), grid_of(labels, SHAPES3D, path))


def _check_pixels(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, num: int) -> None:
    good = len(shape) in (3, 4) and shape[0] == num and (len(shape) == 3 or shape[3] == 3) and dtype == np.uint8
    wanted = f"uint8 ({num}, height, width, 3), one image per row of labels"
    require(good, f"{path} has `{name}` {dtype} {shape}: should be {wanted}")


class _H5Images(_Part):
    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Skipped]]:
        try:
            with h5py.File(self.path, "r") as file:
                images = file["images"]
                assert isinstance(images, h5py.Dataset)
                return resized(images[start:stop], self.image_shape[0]), []
        except OSError as error:
            raise UserError(f"{self.path} is damaged ({str(error).splitlines()[0]}): get it again") from None


def _dsprites_or_mpi3d(path: Path, size: int) -> Published | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            if {"imgs", "latents_classes"} <= names:
                with archive.open("latents_classes.npy") as file:
                    labels = np.lib.format.read_array(file, allow_pickle=False)
                shape, dtype = _header(archive, "imgs")
                _check_pixels(path, "imgs", shape, dtype, len(labels))
                pixels = _NpzImages(path, "dsprites", "imgs", len(labels), size, brightest=1)
                return Published(pixels, grid_of(labels, DSPRITES, path))
            if "images" in names:
                shape, dtype = _header(archive, "images")
                if shape[0] in MPI3D_SIZES:
                    _check_pixels(path, "images", shape, dtype, shape[0])
                    pixels = _NpzImages(path, "mpi3d", "images", shape[0], size)
                    return Published(pixels, StateSpace(MPI3D, MPI3D_SIZES[shape[0]]))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as .npz ({str(error).splitlines()[0]}): get it again") from None
    return None


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(f"{name}.npy") as file:
        return _read_header(file)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    if fortran_order or dtype.hasobject:
        raise ValueError("an array of objects, or in Fortran order")
    return shape, dtype


class _NpzImages(_Part):
    """An array in an .npz, read as a stream: it is compressed, and whole it may not fit into memory."""

    def __init__(self, path: Path, name: str, member: str, num: int, size: int, brightest: int = 255):
        super().__init__(path, name, num, size)
        self.member, self.brightest = member, brightest
        self._stream: IO[bytes] | None = None
        self._first, self._shape = 0, (0,)

    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Skipped]]:
        try:
            if self._stream is None:
                archive = zipfile.ZipFile(self.path)  # open until all of it was read
                self._stream = archive.open(f"{self.member}.npy")
                shape, _ = _read_header(self._stream)
                self._first, self._shape = self._stream.tell(), shape[1:]
            image_bytes = int(np.prod(self._shape))
            self._stream.seek(self._first + start * image_bytes)  # forwards, which reads what lies between
            found = self._stream.read((stop - start) * image_bytes)
            if len(found) < (stop - start) * image_bytes:
                raise EOFError("it ends too early")
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise UserError(f"{self.path} is damaged ({str(error).splitlines()[0]}): get it again") from None
        pixels = np.frombuffer(found, np.uint8).reshape(-1, *self._shape)
        return resized(pixels * np.uint8(255 // self.brightest), self.image_shape[0]), []


class _Cars(_Part):
    """Cars3D: a file per car with `im` (H, W, 3, azimuths, elevations). The cars vary fastest, then the azimuth.

    Images of all cars lie between two of one: they are decoded together, when the first is asked for. At the size that
    was asked for they are few. Opening decodes the first car only.
    """

    def __init__(self, path: Path, size: int):
        files = sorted(path.glob("*.mat")) if path.is_dir() else ()
        views = next(_decoded(path, size)).shape[:2]
        self.space = StateSpace(CARS3D, (*views, len(files) or _num_members(path)))
        super().__init__(path, "cars3d", len(self.space), size, *files)
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
    """The .mat files of a folder or tar in the order of their names."""
    try:
        if path.is_dir():
            for file in sorted(path.glob("*.mat")):
                yield file.name, file.read_bytes()
            return
        with tarfile.open(path) as archive:
            for member in _members(archive, path):
                file = archive.extractfile(member)
                assert file is not None
                yield member.name, file.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]}): get it again") from None


def _members(archive: tarfile.TarFile, path: Path) -> list[tarfile.TarInfo]:
    found = [member for member in archive if member.isfile() and member.name.endswith(".mat")]
    require(len(found) > 0, f"{path} has no .mat files: Cars3D is a tar of them")
    cars = [member for member in found if PurePosixPath(member.name).parent.name == "cars"]
    return sorted(cars or found, key=lambda member: member.name)  # the published tar also has sprites and shapes


def _num_members(path: Path) -> int:
    with tarfile.open(path) as archive:  # its contents were read before
        return len(_members(archive, path))


class _Norb(NamedTuple):
    """The files of the training or the testing part of smallNORB."""

    dat: Path
    cat: Path
    info: Path


def _norb_parts(folder: Path) -> list[_Norb]:
    """The parts of smallNORB in a folder, by name."""
    found = (path.name.removesuffix(".gz").removesuffix(".mat") for path in folder.glob("*-dat.mat*"))
    stems = sorted({name.removesuffix("-dat") for name in found if name.endswith("-dat")})
    return [_Norb(*(_norb_file(folder, f"{stem}-{kind}.mat") for kind in _Norb._fields)) for stem in stems]


def _norb_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{folder} has no {name}.gz, which belongs to the other files of smallNORB: get it again")


class _Toys(_Part):
    """smallNORB: pairs of grey images in no order, of which the first camera's are put in the order of their factors.

    Neighbours in that order lie anywhere in the files: all are decoded together, when the first is asked for.
    """

    def __init__(self, folder: Path, parts: list[_Norb], size: int):
        labels = np.concatenate([_norb_labels(part) for part in parts])
        self._order = np.lexsort(labels.T[::-1])
        self.space = grid_of(labels[self._order], SMALLNORB, folder)
        super().__init__(folder, "smallnorb", len(labels), size, *(file for part in parts for file in part))
        self.parts = parts
        self._pixels: np.ndarray | None = None

    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Skipped]]:
        if self._pixels is None:
            size = self.image_shape[0]
            blocks = (block[:, 0] for part in self.parts for block in read_blocks(part.dat))
            self._pixels = np.concatenate([resized(block, size)[..., :1].copy() for block in blocks])
        return np.repeat(self._pixels[self._order[start:stop]], 3, axis=3), []


def _norb_labels(part: _Norb) -> np.ndarray:
    """(n, 5) int32 in the order of `SMALLNORB`, of the images of one part."""
    (dtype, shape), cat, info = read_header(part.dat), read_matrix(part.cat), read_matrix(part.info)
    pairs = len(shape) == 4 and shape[1] == 2 and max(shape[2:]) <= MOST_PIXELS and dtype == np.uint8
    require(pairs, f"{part.dat} has {dtype} {shape}: should be uint8 (images, 2 cameras, height, width)")
    for path, found, wanted in ((part.cat, cat, (shape[0],)), (part.info, info, (shape[0], 4))):
        right = found.shape == wanted and found.dtype == np.int32
        require(right, f"{path} has {found.dtype} {found.shape}: should be int32 {wanted}, a row per pair of images")
    return np.column_stack([cat, info])
