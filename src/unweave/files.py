"""Files that are there whole or not at all, and their hashes."""

import hashlib
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from unweave.errors import UserError


@contextmanager
def explain_os_errors(path: Path, remedy: str):
    """Turns what the operating system refuses into a `UserError` that names the path and the remedy."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"cannot write {path}: {reason}. {remedy}") from error


def write_atomically(
    path: Path, write: Callable[[Path], None], remedy: str = "Free space or choose another folder."
) -> None:
    """Lets `write` fill a hidden neighbour of `path`, then renames it: `path` is the old file or the whole new one.

    Raises `UserError` when the disk is full or the folder may not be written, and leaves nothing behind.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with explain_os_errors(path, remedy):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(fresh)
            sync(fresh)
            fresh.replace(path)
        finally:
            if fresh.exists():
                fresh.unlink()


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hash_of(path: Path, algorithm: str = "sha256", progress: Callable[[int], None] = lambda _: None) -> str:
    """The hash of a file in hexadecimal; `progress` gets the number of bytes read so far."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
            progress(file.tell())
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text, in UTF-8."""
    write_atomically(path, lambda fresh: _write(fresh, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
