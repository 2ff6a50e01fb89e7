"""The base classes of data sets, and the conversion between the index of an image and its factors.

n images, F factors, H W height and width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from unweave.data.labels import Labels
from unweave.errors import UserError, require


class StateSpace:
    """Index <-> factors by mixed radix: index = sum_i f_i * prod_{j > i} size_j, the last factor varies fastest.

    Examples:
        >>> space = StateSpace(("shape", "hue"), (4, 10))
        >>> space.factors([13])
        array([[1, 3]])
    """

    def __init__(self, names: Sequence[str], sizes: Sequence[int]):
        assert len(names) == len(sizes)
        self.names, self.sizes = tuple(names), tuple(int(size) for size in sizes)

    def __len__(self) -> int:
        return int(np.prod(self.sizes, dtype=np.int64))

    def factors(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Indices (n,) -> factors (n, F) int64. Raises `UserError` for an index out of range."""
        rows = _integers(indices, "indices")
        require(rows.ndim == 1, f"indices have shape {rows.shape}: should be (n,)")
        wrong = rows[(rows < 0) | (rows >= len(self))]
        require(not wrong.size, f"index {wrong[:1].tolist()} is out of range: there are {len(self):,} images")
        return (
            np.stack(np.unravel_index(rows, self.sizes), axis=1) if self.sizes else np.zeros((len(rows), 0), np.int64)
        )

    def index(self, factors: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
        """Factors (n, F) -> indices (n,) int64. Raises `UserError` with the factor for a value out of range."""
        table = _integers(factors, "factors")
        shape = f"(n, {len(self.sizes)})"
        require(table.ndim == 2 and table.shape[1] == len(self.sizes), f"factors have shape {table.shape}, not {shape}")
        for column, (name, size) in enumerate(zip(self.names, self.sizes)):
            wrong = table[(table[:, column] < 0) | (table[:, column] >= size), column]
            require(not wrong.size, f"factor {name} is {wrong[:1].tolist()}: choose from 0 to {size - 1}")
        if not self.sizes:
            return np.zeros(len(table), np.int64)
        return np.asarray(np.ravel_multi_index(tuple(table.T), self.sizes), np.int64)


def _integers(values: Sequence[int] | Sequence[Sequence[int]] | np.ndarray, what: str) -> np.ndarray:
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    require(array.dtype.kind in "iu", f"{what} have dtype {array.dtype}: should be integers")
    return array.astype(np.int64)


class ImageSet(ABC):
    """Images by index, with or without labels."""

    name: str
    version: str
    """Changes when the pixels of an image change."""
    image_shape: tuple[int, int, int]
    """(H, W, 3)."""
    factor_names: tuple[str, ...]
    """Names of the labels; empty if there are none."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Indices (n,) -> uint8 (n, H, W, 3)."""

    @abstractmethod
    def factors(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Indices (n,) -> labels (n, F)."""


class FactorDataset(ImageSet):
    """A full grid of known factors: one image for every combination of their values; `factors` are int64."""

    def __init__(self, space: StateSpace):
        self.space = space
        self.factor_names, self.factor_sizes = space.names, space.sizes

    def __len__(self) -> int:
        return len(self.space)

    def factors(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.space.factors(indices)

    def index(self, factors: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
        """Factors (n, F) -> int64 (n,)."""
        return self.space.index(factors)


class Numbered(ImageSet):
    """Images without a grid of factors, with or without a table of labels."""

    def __init__(self, num: int, labels: Labels | None = None):
        self.labels = labels
        self.factor_names = labels.names if labels else ()
        self._numbers = StateSpace(("image",), (num,))

    def __len__(self) -> int:
        return len(self._numbers)

    def rows(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Indices (n,) as int64. Raises `UserError` for an index out of range."""
        return self._numbers.factors(indices)[:, 0]

    def factors(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        rows = self.rows(indices)
        return self.labels.values[rows] if self.labels else np.zeros((len(rows), 0), np.int64)


def require_grid(dataset: ImageSet) -> FactorDataset:
    """The data set, if it is a grid of factors. Raises `UserError` with an alternative otherwise."""
    if not isinstance(dataset, FactorDataset):
        raise UserError(
            f"{dataset.name} is no grid of known factors, which these scores need: write its units with `unweave "
            f"encode`, and score them with `unweave score` if there are labels"
        )
    return dataset


def has_attributes(dataset: ImageSet) -> bool:
    """Whether the images have no grid, and labels that are all binary, in {0, 1} or {-1, 1}, as CelebA's."""
    if isinstance(dataset, FactorDataset) or not dataset.factor_names:
        return False
    labels = dataset.factors(np.arange(len(dataset)))
    return bool((np.isin(labels, (0, 1)).all(axis=0) | np.isin(labels, (-1, 1)).all(axis=0)).all())


def require_size(dataset: ImageSet, size: int) -> None:
    """Raises `UserError` unless images are `size` px wide and high."""
    require(
        dataset.image_shape == (size, size, 3),
        f"{dataset.name} has images {dataset.image_shape}: this model takes ({size}, {size}, 3)",
    )


class Fixed(FactorDataset):
    """A data set with some factors held at one value, which are left out of its factors and its index. Raises
    `UserError` for unknown factors and values, and if no factor is left."""

    def __init__(self, dataset: FactorDataset, fixed: Mapping[str, int]):
        for name, value in fixed.items():
            known = dataset.factor_names
            require(name in known, f"{dataset.name} has no factor {name!r}: choose from {', '.join(known)}")
            size = dataset.factor_sizes[known.index(name)]
            require(0 <= value < size, f"factor {name} cannot be fixed to {value}: choose from 0 to {size - 1}")
        self.dataset, self.name, self.image_shape = dataset, dataset.name, dataset.image_shape
        self._free = [column for column, name in enumerate(dataset.factor_names) if name not in fixed]
        require(bool(self._free), f"every factor of {dataset.name} is fixed: leave at least one free")
        self._values = np.array([fixed.get(name, 0) for name in dataset.factor_names], np.int64)
        names = [dataset.factor_names[column] for column in self._free]
        super().__init__(StateSpace(names, [dataset.factor_sizes[column] for column in self._free]))
        held = ",".join(f"{name}={value}" for name, value in sorted(fixed.items()))
        self.version = f"{dataset.version}[{held}]"

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        free = self.space.factors(indices)
        factors = np.repeat(self._values[None], len(free), axis=0)
        factors[:, self._free] = free
        return self.dataset.images(self.dataset.index(factors))
