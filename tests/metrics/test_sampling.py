"""The random stream is the reference's, call by call."""

import numpy as np
import pytest

from unweave.metrics import cell_index, sample_rows
from unweave.metrics.sampling import VOTE_CHUNK, interventions, sample_factors


def reference_rows(rng, sizes, num):
    rows = []
    while len(rows) < num:
        part = min(16, num - len(rows))
        rows += list(np.stack([rng.randint(size, size=part) for size in sizes], axis=1))
    return np.array(rows)


def reference_votes(rng, sizes, num, batch_size):
    """One vote at a time, one call of randint per factor."""
    votes = []
    for _ in range(num):
        fixed = rng.randint(len(sizes))
        factors = np.stack([rng.randint(size, size=batch_size) for size in sizes], axis=1)
        factors[:, fixed] = factors[0, fixed]
        votes.append((fixed, np.ravel_multi_index(tuple(factors.T), sizes)))
    return [np.array(part) for part in zip(*votes)]


@pytest.mark.parametrize("sizes", [(10, 10, 10, 8, 4, 15), (4, 24, 183), (6, 1, 3)])
def test_rows_are_drawnin_batches_of_sixteen_train_first(sizes):
    train, test = sample_rows(sizes, 100, 50, seed=7)
    rng = np.random.RandomState(7)
    np.testing.assert_array_equal(train, reference_rows(rng, sizes, 100))
    np.testing.assert_array_equal(test, reference_rows(rng, sizes, 50))


# 33 values reject almost half of the words, so the first piece of the stream runs out; 32 reject none; 1 reads none.
@pytest.mark.parametrize("sizes", [(10, 10, 10, 8, 4, 15), (4, 24, 183), (33, 33), (32,), (1, 5, 1), (1,)])
@pytest.mark.parametrize("batch_size", [64, 5])
def test_interventions_follow_the_stream_of_single_calls(sizes, batch_size):
    num = VOTE_CHUNK + 100
    rng = np.random.RandomState(3)
    sample_factors(rng, sizes, 1001)  # an odd number of words before the votes
    parts = list(interventions(rng, sizes, num, batch_size))
    rng = np.random.RandomState(3)
    sample_factors(rng, sizes, 1001)
    fixed, cells = reference_votes(rng, sizes, num, batch_size)
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), fixed)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), cells)


def test_cell_index_inverts_the_grid():
    sizes = (3, 4, 5)
    cells = np.random.default_rng(0).permutation(60)
    np.testing.assert_array_equal(cell_index(np.stack(np.unravel_index(cells, sizes), axis=1), sizes), cells)
