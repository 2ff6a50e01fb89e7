"""Loops compiled by numba, without the interpreter lock, and cached on disk so that a machine compiles them once."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar, cast

import numba
import numpy as np

from unweave.errors import require

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compiles a function of arrays and numbers at its first call.

    Numba keeps the machine code in `__pycache__` beside the source; if that folder cannot be written to, in the user's
    cache folder (or in NUMBA_CACHE_DIR, if set); if no folder can be written to, in memory only.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return cast(F, numba.njit(**options)(function))


@contextmanager
def threads(num_threads: int | None) -> Iterator[Callable[..., None]]:
    """Yields `run(kernel, count, *arguments)`: it calls `kernel(first, last, *arguments)` on parts of `range(count)`.

    The parts run in parallel in `num_threads` threads; None is one per core that this process may use.
    """
    num = all_cores() if num_threads is None else num_threads
    require(num >= 1, f"num_threads is {num_threads}: must be at least 1")
    with ThreadPoolExecutor(num) as pool:

        def run(kernel: Callable[..., object], count: int, *arguments: object) -> None:
            bounds = np.linspace(0, count, min(num, count) + 1).astype(int)
            parts = [pool.submit(kernel, first, last, *arguments) for first, last in pairwise(bounds)]
            for part in parts:
                part.result()

        yield run


def all_cores() -> int:
    """Number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
