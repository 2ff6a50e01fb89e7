"""Images in memory or memory-mapped, without known factors."""

from collections.abc import Sequence

import numpy as np

from unweave.data.base import Numbered


class ArrayImages(Numbered):
    """A uint8 array (n, H, W, 3) as a data set; it has no factors, so it cannot be scored."""

    name = "array"
    version = "0"

    def __init__(self, array: np.ndarray):
        assert array.dtype == np.uint8
        assert array.ndim == 4
        self.array, self.image_shape = array, array.shape[1:]
        super().__init__(len(array))

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.array[self.rows(indices)]
