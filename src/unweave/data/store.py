"""Conversion of images of any source, once and resumably, to a memory-mapped uint8 file.

A store is `NAME.npy`, images (n, H, W, 3), and `NAME.skipped.csv`, the inputs that could not be read. During conversion
there are `NAME.part`, the pixels so far, and `NAME.part.json`, the progress; `NAME.npy` is never incomplete.
"""

import csv
import hashlib
import io
import json
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import filelock
import numpy as np

from unweave.config import DataConfig
from unweave.errors import UserError, require
from unweave.files import explain_os_errors, sync, write_text
from unweave.record import Display, Log

BLOCK = 512  # inputs read between two notes of the progress
HEADER_BYTES = 128  # of the .npy header, which numpy pads so that it can be written again with another length
MOST_SKIPPED_SHOWN = 3
REMEDY = "Free space or choose another --data.cache; the same command again resumes from there."


def fingerprint(*parts: object) -> str:
    """A short hash of everything that determines the pixels of a store."""
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:12]


def file_identity(path: Path) -> tuple[str, int, int]:
    """Path, size and date of a file, which differ for another or changed file. Size and date of a broken link are 0."""
    try:
        stat = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


@contextmanager
def explain_damage(path: Path, problem: str = "cannot be read"):
    """Turns the errors of libraries about a damaged file into a `UserError` with its name."""
    try:
        yield
    except (OSError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} {problem} ({reason}): get it again") from None


class Skipped(NamedTuple):
    """An input that could not be read."""

    place: int
    """Its number in the source."""
    name: str
    reason: str


class Source(Protocol):
    """A source of images for a store."""

    name: str

    @property
    def version(self) -> str:
        """Changes when the pixels of an image, their order or their number may have changed."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        ...

    def __len__(self) -> int:
        """The number of inputs: images, and those that will be skipped."""
        ...

    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Skipped]]:
        """Images uint8 (m, H, W, 3) of the inputs start, ..., stop - 1 in order, and those that could not be read.

        Called in order: `start` is the last `stop`, or any number the first time.
        """
        ...


class Store:
    """An open store; each process opens the file for itself."""

    def __init__(self, path: Path):
        self.path = path
        self._pixels: np.ndarray | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": None}

    @property
    def pixels(self) -> np.ndarray:
        """(n, H, W, 3) uint8, memory-mapped."""
        pixels = self._pixels
        if pixels is None:
            pixels = self._pixels = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return pixels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        return self.pixels.shape[1:]

    def kept(self, num: int) -> list[int]:
        """The numbers, among the `num` inputs of the source, of the images in the store, in order."""
        missing = {item.place for item in self.skipped()}
        return [index for index in range(num) if index not in missing]

    def skipped(self) -> list[Skipped]:
        """The inputs that could not be read."""
        with _beside(self.path, ".skipped.csv").open(newline="") as file:
            return [Skipped(int(row["place"]), row["name"], row["reason"]) for row in csv.DictReader(file)]


def converted(source: Source, path: Path, config: DataConfig, log: Log) -> Store:
    """The store of a source at `path`, which is converted if it does not exist yet.

    An interrupted conversion is resumed. Several processes may call this at once: one converts, the others wait. Inputs
    that cannot be read are skipped and listed; with `config.strict` the first of them is an error. Raises `UserError`
    if the store would take more than `config.cache_gb`, if the disk lacks space or cannot be written to, or if no input
    can be read.
    """
    # an existing store, or one that is too large
    strict, most_gb = config.strict, config.cache_gb
    if path.is_file():
        return _open(path, strict)
    most_bytes = len(source) * int(np.prod(source.image_shape))
    require(
        most_bytes <= most_gb * 1e9,
        f"{source.name}: {len(source):,} images take {most_bytes / 1e9:,.1f} GB as a store, and data.cache_gb is "
        f"{most_gb:g}: give --data.cache-gb {np.ceil(most_bytes / 1e9):.0f} (elsewhere --cache-gb), or fewer pixels",
    )

    # convert
    with only_one(path, log):
        if not path.is_file():
            part = _beside(path, ".part")
            written = part.stat().st_size if part.exists() else 0
            free = shutil.disk_usage(path.parent).free
            require(
                most_bytes - written <= free,
                f"{path.parent} has {free / 1e9:,.1f} GB free, the images of {source.name} need "
                f"{(most_bytes - written) / 1e9:,.1f} GB: free space or choose another --data.cache",
            )
            log(f"{source.name}: converting {len(source):,} images into {path} ({most_bytes / 1e6:,.0f} MB)")
            with explain_os_errors(path, REMEDY):
                _convert(source, path, strict)

    # report what was skipped
    store = _open(path, strict)
    skipped = store.skipped()
    if skipped:
        few = "; ".join(f"{item.name} ({item.reason})" for item in skipped[:MOST_SKIPPED_SHOWN])
        more = f" and {len(skipped) - MOST_SKIPPED_SHOWN:,} more" if len(skipped) > MOST_SKIPPED_SHOWN else ""
        log(f"{source.name}: skipped {len(skipped):,} of {len(source):,}: {few}{more}")
        log(f"the full list is in {_beside(path, '.skipped.csv')}")
    return store


def _open(path: Path, strict: bool) -> Store:
    store = Store(path)
    try:
        pixels = store.pixels
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, it will be made again") from None
    require(pixels.dtype == np.uint8 and pixels.ndim == 4, f"{path} is no store of images: delete it")
    if strict:
        for item in store.skipped()[:1]:
            raise UserError(f"{item.name}: {item.reason}. Repair or remove it, or leave out --data.strict")
    return store


def _convert(source: Source, path: Path, strict: bool) -> None:
    # where an earlier conversion stopped
    part, note = _beside(path, ".part"), _beside(path, ".part.json")
    done, skipped = _progress(note)
    image_bytes = int(np.prod(source.image_shape))
    if not part.exists() or part.stat().st_size < HEADER_BYTES + (done - len(skipped)) * image_bytes:
        done, skipped = 0, []

    # the pixels, then the header
    with part.open("r+b" if done else "w+b") as file:
        file.seek(HEADER_BYTES + (done - len(skipped)) * image_bytes)
        file.truncate()
        with Display(f"converting {source.name}", len(source), "images") as display:
            for start in range(done, len(source), BLOCK):
                stop = min(start + BLOCK, len(source))
                images, unread = source.read(start, stop)
                assert len(images) == stop - start - len(unread)
                for item in unread if strict else ():
                    raise UserError(f"{item.name}: {item.reason}. Repair or remove it, or leave out --data.strict")
                file.write(np.ascontiguousarray(images).tobytes())
                file.flush()
                skipped += unread
                write_text(note, json.dumps({"done": stop, "skipped": skipped}))
                display.update(stop)
        num = len(source) - len(skipped)
        if num == 0:
            first = f": {skipped[0].name} ({skipped[0].reason})" if skipped else ""
            raise UserError(f"{source.name} has no image that can be read{first}")
        file.seek(0)
        file.write(array_header((num, *source.image_shape)))

    # the finished store
    sync(part)
    write_text(_beside(path, ".skipped.csv"), _as_csv(skipped))
    part.replace(path)
    note.unlink()


def array_header(shape: Sequence[int]) -> bytes:
    """The header of an .npy file of uint8."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
    assert len(buffer.getvalue()) == HEADER_BYTES
    return buffer.getvalue()


def _progress(note: Path) -> tuple[int, list[Skipped]]:
    try:
        progress = json.loads(note.read_text())
        return int(progress["done"]), [Skipped(*item) for item in progress["skipped"]]
    except (OSError, ValueError, KeyError, TypeError):
        return 0, []


def _as_csv(skipped: Sequence[Skipped]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(Skipped._fields)
    writer.writerows(skipped)
    return text.getvalue()


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.stem + ending)


def only_one(path: Path, log: Log) -> filelock.AcquireReturnProxy:
    """A lock on the conversion to the store at `path`, whose folder is made; the system releases it if its holder dies.

    Waits for another process that holds it. Raises `UserError` if the folder cannot be written to.
    """
    with explain_os_errors(path, REMEDY):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(_beside(path, ".lock"))
    try:
        return lock.acquire(timeout=0.2)
    except filelock.Timeout:
        log(f"another process is converting into {path}: waiting for it")
        return lock.acquire()
    except OSError as error:
        raise UserError(f"cannot write {path.parent}: {os.strerror(error.errno or 0)}") from None
