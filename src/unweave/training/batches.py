"""The batches of training: a function of (seed, images seen, process) only, so that a run can be resumed anywhere."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from unweave.errors import require


def split_rows(num_images: int, held_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on and to hold out, both sorted int64; at least one image is trained on. Raises `UserError`
    for an empty data set."""
    require(num_images >= 1, "the data set has no images")
    order = np.random.default_rng((seed, 1)).permutation(num_images)
    num_held = min(round(held_out * num_images), num_images - 1)
    return np.sort(order[num_held:]), np.sort(order[:num_held])


class Order:
    """The endless order of the training rows: a new random permutation for each epoch."""

    def __init__(self, rows: np.ndarray, seed: int):
        self.rows, self.seed = rows, seed
        self._epoch, self._permuted = -1, rows

    def rows_at(self, start: int, num: int) -> np.ndarray:
        """Rows at positions start, ..., start + num - 1 of the order."""
        parts = []
        while num > 0:
            epoch, position = divmod(start, len(self.rows))
            part = self._permutation(epoch)[position : position + num]
            parts.append(part)
            start, num = start + len(part), num - len(part)
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._permuted = np.random.default_rng((self.seed, 2, epoch)).permutation(self.rows)
            self._epoch = epoch
        return self._permuted


Read = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Row numbers (b,) -> named arrays, a row each."""


class _Rows(Dataset):
    """Reads a whole batch at a time, which is fastest for memory-mapped and rendered sets."""

    def __init__(self, read: Read):
        self.read = read

    def __getitem__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.ascontiguousarray(values) for name, values in self.read(rows).items()}


class _Batches:
    """The row numbers of each batch of one process, from `start` images on."""

    def __init__(self, order: Order, start: int, batch_size: int, rank: int, num_processes: int):
        self.order, self.start, self.batch_size = order, start, batch_size
        self.rank, self.num_processes = rank, num_processes

    def __iter__(self) -> Iterator[np.ndarray]:
        share = self.batch_size // self.num_processes
        position = self.start
        while True:
            batch = self.order.rows_at(position, self.batch_size)
            yield batch[self.rank * share : (self.rank + 1) * share]
            position += self.batch_size


def batches(
    read: Read,
    order: Order,
    start: int,
    batch_size: int,
    rank: int = 0,
    num_processes: int = 1,
    workers: int = 0,
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches, this process's share of each: the result of `read` for the rows, as tensors.

    The shares of all processes make the batch of a single process. With workers, `read` is pickled.
    """
    sampler = _Batches(order, start, batch_size, rank, num_processes)
    loader = DataLoader(_Rows(read), sampler=sampler, batch_size=None, num_workers=workers)  # pyright: ignore[reportArgumentType]
    return iter(loader)
