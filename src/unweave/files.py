"""Atomic writing of files, and their hashes."""

import hashlib
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from unweave.errors import UserError


@contextmanager
def explain_os_errors(path: Path, remedy: str):
    """Turns an error of the operating system into a `UserError` with the path and the remedy."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"cannot write {path}: {reason}. {remedy}") from error


def write_atomically(
    path: Path, write: Callable[[Path], None], remedy: str = "Free space or choose another folder."
) -> None:
    """Lets `write` fill a hidden file beside `path`, then renames it: `path` is the old file or the complete new one.
    Raises `UserError` if the disk is full or the folder cannot be written to, and leaves nothing behind."""
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
    """Waits until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hash_of(path: Path, algorithm: str = "sha256", progress: Callable[[int], None] = lambda _: None) -> str:
    """The hash of a file in hexadecimal; `progress` is called with the number of bytes read so far."""
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
