"""Data sets read from a memory-mapped uint8 file, which processes share through the page cache; the files of generated
sets; and the folder of all such files."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import numpy as np
import platformdirs

from unweave.data.base import FactorDataset, Numbered, StateSpace
from unweave.data.labels import Labels
from unweave.data.store import Store, array_header, fingerprint
from unweave.errors import UserError
from unweave.files import write_atomically
from unweave.record import Log

CHUNK = 1024


class StoredGrid(FactorDataset):
    """A data set with a grid of factors, read from its file of images, which each process opens for itself."""

    def __init__(self, name: str, version: str, space: StateSpace, path: Path):
        super().__init__(space)
        self.name, self.version = name, version
        self.store = Store(path)
        self.image_shape = self.store.image_shape

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.store.pixels[self.space.index(self.space.factors(indices))]  # checks them


class Stored(Numbered):
    """Images without a grid, read from their file, with or without a table of labels."""

    def __init__(self, name: str, version: str, path: Path, labels: Labels | None):
        self.name, self.version = name, version
        self.store = Store(path)
        self.image_shape = self.store.image_shape
        super().__init__(len(self.store.pixels), labels)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.store.pixels[self.rows(indices)]


def default_folder() -> Path:
    """The user's cache folder."""
    return Path(platformdirs.user_cache_dir("unweave"))


def cache_folder(cache: str) -> Path:
    """The folder for stored images of an option; empty: the user's cache folder."""
    return Path(cache).expanduser() if cache else default_folder()


def store_path(folder: Path, name: str, size: int, key: str) -> Path:
    """The file of the images of a set at `size` px; `key` is a `fingerprint` of all that determines the pixels."""
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)[:40]
    return folder / f"{plain}-{size}px-{key}.npy"


STORE_FILE = re.compile(  # the result of `store_path`, files beside it, and leftovers of a killed process
    r"\.?(?P<name>.+-\d+px-[0-9a-f]{12})\.((npy|index\.parquet)(\.\d+)?|part|part\.json|skipped\.csv|lock)"
)


@dataclass
class Kept:
    """The stored images of a set, complete or in conversion."""

    name: str
    files: list[Path] = field(default_factory=list)
    num_bytes: int = 0
    last_used: float = 0.0
    """Seconds since 1970, if the file system records it."""

    @property
    def source(self) -> str:
        """The name of the set."""
        return self.name.rsplit("-", 2)[0]

    def add(self, file: Path) -> None:
        """Adds a file."""
        stat = file.stat()
        self.files.append(file)
        self.num_bytes += stat.st_size
        self.last_used = max(self.last_used, stat.st_atime, stat.st_mtime)

    def remove(self) -> None:
        """Removes them. Raises `UserError` while a process is converting, or if they cannot be removed."""
        lock = self.files[0].with_name(f"{self.name}.lock")
        try:
            with filelock.FileLock(lock).acquire(timeout=0):
                for file in [*self.files, lock]:
                    file.unlink(missing_ok=True)
        except filelock.Timeout:
            raise UserError(f"{self.name} is being converted by another process: wait for it") from None
        except OSError as error:
            raise UserError(f"cannot remove {self.name}: {error.strerror}") from None


def stores(folder: Path) -> list[Kept]:
    """The stored images in a folder, sorted by name; other files in it are ignored."""
    kept: dict[str, Kept] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := STORE_FILE.fullmatch(path.name):
            with suppress(FileNotFoundError):  # of a conversion that has just ended
                kept.setdefault(match["name"], Kept(match["name"])).add(path)
    return sorted((images for images in kept.values() if images.files), key=lambda images: images.name)


def cached(dataset: FactorDataset, folder: Path, most_gb: float, log: Log) -> FactorDataset:
    """The data set read from a file of its rendered images if that takes at most `most_gb` of disk, else unchanged.

    The file's name has a hash of all that determines the pixels, and it is written atomically, so that several
    processes may call this at once. Path and size are logged before anything is written. Raises `UserError` if the
    folder cannot be written to.
    """
    # read the file if there is one
    num_bytes = len(dataset) * int(np.prod(dataset.image_shape))
    key = fingerprint(f"{dataset.name} {dataset.version} {dataset.image_shape}")
    path = store_path(folder, dataset.name, dataset.image_shape[0], key)
    if _is_whole(path, dataset):
        return _kept(dataset, path)

    # otherwise render it once
    size = f"{num_bytes / 1e6:,.0f} MB"
    if num_bytes > most_gb * 1e9:
        log(f"{dataset.name}: {len(dataset):,} images are generated when needed (stored, they would take {size})")
        return dataset
    log(f"{dataset.name}: storing {len(dataset):,} images in {path} ({size}; the limit is {most_gb:g} GB)")
    remedy = "Choose another --data.cache, or --data.cache-gb 0 to generate images when needed."
    write_atomically(path, lambda fresh: _render(dataset, fresh), remedy)
    return _kept(dataset, path)


def _kept(dataset: FactorDataset, path: Path) -> StoredGrid:
    return StoredGrid(dataset.name, dataset.version, StateSpace(dataset.factor_names, dataset.factor_sizes), path)


def _is_whole(path: Path, dataset: FactorDataset) -> bool:
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return False
    return pixels.shape == (len(dataset), *dataset.image_shape) and pixels.dtype == np.uint8


def _render(dataset: FactorDataset, path: Path) -> None:
    """Writes to an ordinary file, where a full disk is an error; with a memory map it would kill the process."""
    with path.open("wb") as file:
        file.write(array_header((len(dataset), *dataset.image_shape)))
        for start in range(0, len(dataset), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(dataset)))
            file.write(dataset.images(rows).tobytes())
        file.flush()
        os.fsync(file.fileno())
