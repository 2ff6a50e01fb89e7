"""Data sets read from one memory-mapped uint8 file, so that processes share them through the page cache, and the file
of those that are drawn."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import platformdirs

from unweave.data.base import FactorDataset, Grid, Numbered, StateSpace
from unweave.data.labels import Labels
from unweave.data.store import Store, fingerprint
from unweave.files import write_atomically

CHUNK = 1024


class StoredGrid(Grid):
    """A data set with a factor grid, read from its file of images; the file is opened again in each process."""

    def __init__(self, name: str, version: str, space: StateSpace, path: Path):
        super().__init__(space)
        self.name, self.version = name, version
        self.store = Store(path)
        self.image_shape = self.store.image_shape

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.store.pixels[self.space.index(self.space.factors(indices))]  # checks them


class Stored(Numbered):
    """Images read from their file, with a table of labels or without: no grid."""

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


def store_path(folder: Path, name: str, size: int, key: str) -> Path:
    """The file of the images of a set at `size` px; `key` is the `fingerprint` of all that determines the pixels."""
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)[:40]
    return folder / f"{plain}-{size}px-{key}.npy"


def cached(dataset: FactorDataset, folder: Path, most_gb: float, say: Callable[[str], None]) -> FactorDataset:
    """The data set, from a file of its rendered images where that takes at most `most_gb` of disk, else as it is.

    The file's name holds all that determines the pixels; it is written whole or not at all, so that any number of
    processes may ask at once. `say` is told where and how much before anything is written. Raises `UserError` when
    the folder cannot be written.
    """
    num_bytes = len(dataset) * int(np.prod(dataset.image_shape))
    key = fingerprint(f"{dataset.name} {dataset.version} {dataset.image_shape}")
    path = store_path(folder, dataset.name, dataset.image_shape[0], key)
    if _is_whole(path, dataset):
        return _kept(dataset, path)
    size = f"{num_bytes / 1e6:,.0f} MB"
    if num_bytes > most_gb * 1e9:
        say(f"{dataset.name}: {len(dataset):,} images are drawn as needed (kept on disk they would take {size})")
        return dataset
    say(f"{dataset.name}: drawing {len(dataset):,} images once into {path} ({size}, at most {most_gb:g} GB are used)")
    remedy = "Choose another --data.cache, or --data.cache-gb 0 to draw images as needed."
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
    """Writes through an ordinary file: a full disk is then an error, where a memory map would kill the process."""
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(dataset), *dataset.image_shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(dataset), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(dataset)))
            file.write(dataset.images(rows).tobytes())
        file.flush()
        os.fsync(file.fileno())
