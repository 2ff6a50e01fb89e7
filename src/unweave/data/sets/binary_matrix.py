"""The "binary matrix" files of NORB (Huang and LeCun 2005), plain or compressed by gzip.

A number for the type, the number of dimensions, at least three dimensions, then the values; all little-endian.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from unweave.data.store import explain_damage
from unweave.errors import require

TYPES = {0x1E3D4C51: "<f4", 0x1E3D4C53: "<f8", 0x1E3D4C54: "<i4", 0x1E3D4C55: "|u1", 0x1E3D4C56: "<i2"}
MOST_DIMENSIONS = 8
ROWS = 512  # read at once


class Header(NamedTuple):
    """Type and shape of a matrix."""

    dtype: np.dtype
    shape: tuple[int, ...]


def read_header(path: Path) -> Header:
    """Type and shape of a matrix. Raises `UserError` for a file that is no matrix."""
    with explain_damage(path), _opened(path) as file:
        return _header(file, path)


def read_blocks(path: Path) -> Iterator[np.ndarray]:
    """The rows of a matrix, some hundred at a time: arrays (m, ...). Raises `UserError` for a file that is no matrix,
    is cut short, or has data after its last row."""
    with explain_damage(path), _opened(path) as file:
        dtype, shape = _header(file, path)
        row_bytes = dtype.itemsize * int(np.prod(shape[1:]))
        for start in range(0, shape[0], ROWS):
            wanted = min(ROWS, shape[0] - start) * row_bytes
            content = file.read(wanted)
            if len(content) < wanted:
                raise EOFError("it ends too early")
            yield np.frombuffer(content, dtype).reshape(-1, *shape[1:])
        if file.read(1):  # also makes gzip compare its checksum
            raise EOFError("it has data after its last row")


def read_matrix(path: Path) -> np.ndarray:
    """A whole matrix; raises as `read_blocks` does."""
    return np.concatenate(list(read_blocks(path)))


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # pyright: ignore[reportReturnType]


def _header(file: IO[bytes], path: Path) -> Header:
    magic, num = _integers(file, 2)
    known = magic in TYPES and 1 <= num <= MOST_DIMENSIONS
    require(known, f"{path} is no binary matrix (it begins with {magic & 0xFFFFFFFF:#x}): get it again")
    shape = _integers(file, max(3, num))[:num]
    require(min(shape) >= 1, f"{path} has a matrix of shape {shape}: get it again")
    return Header(np.dtype(TYPES[magic]), shape)


def _integers(file: IO[bytes], num: int) -> tuple[int, ...]:
    content = file.read(4 * num)
    if len(content) < 4 * num:
        raise EOFError("it ends in its header")
    return tuple(np.frombuffer(content, "<i4").tolist())
