"""Index and factors are inverse; freezing keeps images and their factors together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unweave.data.base import FactorDataset, Fixed, StateSpace
from unweave.errors import UserError


class Toy(FactorDataset):
    """Every image is filled with its own factors, so that a wrong row shows."""

    name, version, image_shape = "toy", "1", (2, 2, 3)

    def __init__(self):
        super().__init__(StateSpace(("a", "b", "c"), (3, 4, 5)))

    def images(self, indices):
        return np.broadcast_to(self.factors(indices)[:, None, None].astype(np.uint8), (len(indices), 2, 2, 3))


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(0, 2**32))
def test_index_and_factors_are_inverse(sizes, seed):
    space = StateSpace([str(i) for i in range(len(sizes))], sizes)
    indices = np.random.default_rng(seed).integers(len(space), size=20)
    factors = space.factors(indices)
    assert np.array_equal(space.index(factors), indices)
    radices = np.append(np.cumprod(sizes[:0:-1])[::-1], 1)  # prod of the sizes behind each factor
    assert np.array_equal(factors @ radices, indices)


def test_fixed_factors_leave_index_and_factors_and_stay_in_the_images():
    frozen = Fixed(Toy(), {"b": 2})
    assert frozen.factor_names == ("a", "c")
    assert frozen.factor_sizes == (3, 5)
    assert len(frozen) == 15
    rows = np.arange(15)
    images = frozen.images(rows)[:, 0, 0]
    assert np.array_equal(images[:, [0, 2]], frozen.factors(rows))
    assert (images[:, 1] == 2).all()
    assert np.array_equal(frozen.index(frozen.factors(rows)), rows)


@pytest.mark.parametrize(
    ("frozen", "words"),
    [({"d": 0}, "no factor 'd': choose from a, b, c"), ({"b": 4}, "b cannot be fixed to 4"), ({"b": -1}, "to -1")],
)
def test_freezing_what_is_not_there_is_named(frozen, words):
    with pytest.raises(UserError, match=words):
        Fixed(Toy(), frozen)


def test_bad_indices_and_factors_are_named():
    space = StateSpace(("a", "b"), (3, 4))
    with pytest.raises(UserError, match=r"index \[12\] is out of range: there are 12"):
        space.factors([0, 12])
    with pytest.raises(UserError, match=r"factor b is \[4\]: choose from 0 to 3"):
        space.index([[0, 4]])
    with pytest.raises(UserError, match="float64"):
        space.factors(np.array([0.5]))
    with pytest.raises(UserError, match=r"shape \(1, 3\)"):
        space.index([[0, 0, 0]])
    assert space.factors([]).shape == (0, 2)
