"""Images that are already in memory or memory-mapped, without known factors."""

from collections.abc import Sequence

import numpy as np

from unweave.data.base import StateSpace


class ArrayImages:
    """A uint8 array (n, H, W, 3) with the interface of a data set; it has no factors, so it cannot be scored."""

    name = "array"
    version = "0"
    factor_names: tuple[str, ...] = ()

    def __init__(self, array: np.ndarray):
        assert array.dtype == np.uint8
        assert array.ndim == 4
        self.array = array
        self._rows = StateSpace(("image",), (len(array),))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.array.shape[1:]

    def __len__(self) -> int:
        return len(self.array)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.array[self._rows.factors(indices)[:, 0]]

    def factors(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.zeros((len(indices), 0), np.int64)
