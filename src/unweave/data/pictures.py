"""Your own images: a folder or zip of picture files, or an array, each resized to one square size.

Pillow decodes the files; this module handles unusual ones.
"""

import itertools
import os
import warnings
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from unweave.config import Crop
from unweave.data.store import Skipped, explain_damage, file_identity, fingerprint
from unweave.errors import require

CELEBA = (178, 218)  # width and height of its aligned pictures
CELEBA_BOXES = {  # left, top, right, bottom of the rectangle that is kept
    "celeba_128": (25, 57, 153, 185),  # 128 px around (89, 121), as D2C and DiffAE
    "celeba_96": (16 * 178 / 96, 26 * 218 / 117, 80 * 178 / 96, 90 * 218 / 117),  # the middle 64 px of 96 x 117
}
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MOST_BYTES = 256 * 2**20  # of one picture in a zip; larger files are not pictures
MOST_PIXELS = 2**27  # 134 million, 400 MB when decoded
MOST_THREADS = 8  # each has a whole picture in memory
AT_ONCE = 64  # encoded pictures held in memory for decoding


def read_picture(file: Path | IO[bytes], size: int, crop: Crop) -> np.ndarray:
    """A picture file as uint8 (size, size, 3): its first frame, rotated by its EXIF, on white if transparent. Raises
    `ValueError` with a reason for a file that is no picture or is damaged."""
    try:
        with Image.open(file) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                raise ValueError(f"{width} x {height} pixels, more than {MOST_PIXELS:,}")
            return fitted(_as_rgb(ImageOps.exif_transpose(picture)), size, crop)
    except Image.UnidentifiedImageError:
        raise ValueError("not a picture") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MOST_PIXELS:,} pixels") from None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except (
        SyntaxError,
        EOFError,
        TypeError,
        KeyError,
        IndexError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:  # of damaged files
        raise ValueError(f"damaged ({error})") from None


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, np.float64)
        values = values / 257 if values.max(initial=0) > 255 else values  # 16 bits to 8
        return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def fitted(picture: Image.Image, size: int, crop: Crop) -> np.ndarray:
    """An RGB picture as uint8 (size, size, 3): `center` crops to the middle square, `pad` adds black bars, `stretch`
    changes the aspect; the others crop to a rectangle of `CELEBA_BOXES`.

    Raises `ValueError` for those rectangles and a picture of another size than CelebA's.
    """
    square = (size, size)
    if crop in CELEBA_BOXES:
        if picture.size != CELEBA:
            raise ValueError("{} x {} pixels, but data.crop {} takes 178 x 218".format(*picture.size, crop))
        return np.asarray(picture.resize(square, Image.Resampling.LANCZOS, CELEBA_BOXES[crop]))
    if picture.size == square:
        return np.asarray(picture)
    if crop == "center":
        return np.asarray(ImageOps.fit(picture, square, Image.Resampling.LANCZOS))
    if crop == "pad":
        return np.asarray(ImageOps.pad(picture, square, Image.Resampling.LANCZOS, color="black"))
    return np.asarray(picture.resize(square, Image.Resampling.LANCZOS))


class Pictures(ABC):
    """A sequence of pictures, decoded by several threads; unreadable ones are skipped, with the reason."""

    names: Sequence[str] = ()
    """Their names in a table of labels; empty if they have none."""
    columns: pa.Table | None = None
    """Further columns of their source, a row per picture; the numbers in it become labels."""

    def __init__(self, name: str, size: int, crop: Crop, key: object):
        self.name = name
        self.image_shape = (size, size, 3)
        self.crop: Crop = crop
        self.version = fingerprint(key, size, crop)

    @abstractmethod
    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Skipped]]:
        images, skipped = [], []
        for index, decoded in enumerate(_decoded(self.readers(start, stop)), start):
            if isinstance(decoded, str):
                skipped.append(Skipped(index, self.title(index), decoded))
            else:
                images.append(decoded)
        return np.stack(images) if images else np.zeros((0, *self.image_shape), np.uint8), skipped

    @abstractmethod
    def readers(self, start: int, stop: int) -> Iterator[Callable[[], np.ndarray]]:
        """For each of the pictures start, ..., stop - 1 a function that returns it as uint8 (H, W, 3), in any thread.

        It raises `ValueError` with the reason if the picture cannot be read.
        """

    @abstractmethod
    def title(self, index: int) -> str:
        """Name of a picture in the list of skipped ones."""


def _decoded(readers: Iterator[Callable[[], np.ndarray]]) -> Iterator[np.ndarray | str]:
    """The pictures in order, or the reason why one cannot be read."""
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours, in `read_picture`
        while some := list(itertools.islice(readers, AT_ONCE)):
            yield from pool.map(_attempt, some)


def _attempt(read: Callable[[], np.ndarray]) -> np.ndarray | str:
    try:
        return read()
    except ValueError as error:
        return str(error)


class _Files(Pictures):
    """The common part of folders and zips: an ordered list of names, each read on its own."""

    def __init__(self, path: Path, names: list[str], size: int, crop: Crop, key: object):
        require(
            len(names) > 0, f"{path} has no pictures: looked for {', '.join(ENDINGS)} in it and in the folders inside"
        )
        super().__init__(path.name, size, crop, key)
        self.path, self.names = path, names

    def __len__(self) -> int:
        return len(self.names)

    def readers(self, start: int, stop: int) -> Iterator[Callable[[], np.ndarray]]:
        return (partial(self.picture, index) for index in range(start, stop))

    def title(self, index: int) -> str:
        return self.names[index]

    @abstractmethod
    def picture(self, index: int) -> np.ndarray:
        """One picture. Raises `ValueError` with the reason if it cannot be read."""


class FolderSource(_Files):
    """The pictures of a folder and its subfolders, by their paths in alphabetical order, without hidden ones.

    A folder without read permission counts as a picture that cannot be read.
    """

    def __init__(self, path: Path, size: int, crop: Crop):
        self.closed: dict[str, str] = {}
        names = sorted([*walk(path, self.closed), *self.closed])
        super().__init__(path, names, size, crop, str([file_identity(path / name) for name in names]))

    def picture(self, index: int) -> np.ndarray:
        name = self.names[index]
        if name in self.closed:
            raise ValueError(f"a folder: {self.closed[name]}")
        return read_picture(self.path / name, self.image_shape[0], self.crop)


def walk(folder: Path, closed: dict[str, str]) -> Iterator[str]:
    """Paths of the pictures below `folder`, with forward slashes; folders that cannot be read are added to `closed`,
    with the reason.

    Links are followed; no folder is entered twice.
    """

    def note(error: OSError) -> None:
        closed[Path(error.filename).relative_to(folder).as_posix()] = error.strerror or str(error)

    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=note):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if is_picture(name):
                yield Path(root, name).relative_to(folder).as_posix()


def is_picture(name: str) -> bool:
    """Whether a file of this name or path should be a picture, by its ending."""
    path = PurePosixPath(name)
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and "__MACOSX" not in path.parts


class ZipSource(_Files):
    """The pictures of a zip, in alphabetical order. Nothing is unpacked to disk, so paths in it are harmless."""

    def __init__(self, path: Path, size: int, crop: Crop):
        with explain_damage(path, "is no zip that can be read"):
            self.archive = zipfile.ZipFile(path)
        members = {item.filename: item for item in self.archive.infolist() if is_picture(item.filename)}
        names = sorted(members)
        super().__init__(path, names, size, crop, str([(name, members[name].CRC) for name in names]))

    def picture(self, index: int) -> np.ndarray:
        archive, name = self.archive, self.names[index]
        if archive.getinfo(name).file_size > MOST_BYTES:
            raise ValueError(f"{archive.getinfo(name).file_size:,} bytes unpacked, more than {MOST_BYTES:,}")
        try:
            with archive.open(name) as file:
                return read_picture(file, self.image_shape[0], self.crop)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
            raise ValueError(str(error)) from None  # damaged, encrypted, or of an unknown compression


class ArraySource:
    """A uint8 array (n, H, W), (n, H, W, 1) or (n, H, W, 3) of an .npy file, or of an .npz with one such array. Raises
    `UserError` for other arrays."""

    def __init__(self, path: Path, size: int, crop: Crop):
        self.path, self.name = path, path.name
        self.crop: Crop = crop
        self.image_shape = (size, size, 3)
        self.array = _read_array(path)
        shape = self.array.shape
        good = self.array.ndim == 3 or (self.array.ndim == 4 and shape[3] in (1, 3))
        require(
            good and self.array.size > 0,
            f"{path} has an array of shape {shape}: images are (n, H, W), (n, H, W, 1) or (n, H, W, 3), n at least 1",
        )
        require(
            self.array.dtype == np.uint8, f"{path} has an array of {self.array.dtype}: images are uint8, from 0 to 255"
        )
        aligned = shape[2:0:-1] == CELEBA
        require(
            aligned or crop not in CELEBA_BOXES,
            f"{path} has an array of shape {shape}: data.crop {crop} takes images of 178 x 218 pixels",
        )
        self.version = fingerprint(*file_identity(path), size, crop)

    def __len__(self) -> int:
        return len(self.array)

    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Skipped]]:
        return resized(np.asarray(self.array[start:stop]), self.image_shape[0], self.crop), []


def resized(images: np.ndarray, size: int, crop: Crop = "stretch") -> np.ndarray:
    """uint8 images (n, H, W), (n, H, W, 1) or (n, H, W, 3) as (n, size, size, 3).

    If they are an integer multiple of that size, a pixel is the mean of those it covers; else see `fitted`.
    """
    images = images[..., None] if images.ndim == 3 else images
    num, height, width, channels = images.shape
    times = height // size
    if height == width == times * size:
        sums = images.reshape(num, size, times, size, times, channels).sum(axis=(2, 4), dtype=np.uint32)
        images = ((sums + times**2 // 2) // times**2).astype(np.uint8)
        return np.repeat(images, 3, axis=3) if channels == 1 else images
    rgb = np.repeat(images, 3, axis=3) if channels == 1 else images
    squares = [fitted(Image.fromarray(image), size, crop) for image in rgb]
    return np.stack(squares) if squares else np.zeros((0, size, size, 3), np.uint8)


def _read_array(path: Path) -> np.ndarray:
    with explain_damage(path, "cannot be read as an array"):
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        names = content.files if len(content.files) == 1 else [name for name in content.files if name == "images"]
        require(len(names) == 1, f"{path} has the arrays {content.files}: call the images `images`")
        return content[names[0]]
