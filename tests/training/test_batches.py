"""Which images a step sees: every one once an epoch, the same wherever a run is taken up, shared between processes."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data.test_base import Toy
from unweave.training.batches import Order, batches, split_rows


@given(st.integers(1, 200), st.floats(0, 0.5), st.integers(0, 99))
def test_split_is_a_partition(num, held_out, seed):
    train, held = split_rows(num, held_out, seed)
    assert np.array_equal(np.sort(np.concatenate([train, held])), np.arange(num))
    assert len(train) >= 1
    assert abs(len(held) - held_out * num) <= 1


def test_each_epoch_sees_every_row_once_in_another_order():
    rows = np.arange(10, 27)
    order = Order(rows, seed=3)
    epochs = order.rows_at(0, 17 * 3).reshape(3, 17)
    assert all(np.array_equal(np.sort(epoch), rows) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


@given(st.integers(0, 60), st.integers(1, 40))
def test_order_is_the_same_wherever_it_is_taken_up(start, num):
    order = Order(np.arange(13), seed=1)
    whole = Order(np.arange(13), seed=1).rows_at(0, 200)
    assert np.array_equal(order.rows_at(start, num), whole[start : start + num])


def read_toy(rows):
    return {"images": Toy().images(rows)}


def test_processes_share_a_batch_and_workers_change_nothing():
    order = Order(np.arange(60), seed=0)
    alone = batches(read_toy, order, 24, 8)
    with_workers = batches(read_toy, order, 24, 8, workers=2)
    first = batches(read_toy, order, 24, 8, rank=0, num_processes=2)
    second = batches(read_toy, order, 24, 8, rank=1, num_processes=2)
    for _ in range(9):
        expected = next(alone)["images"]
        assert torch.equal(next(with_workers)["images"], expected)
        assert torch.equal(torch.cat([next(first)["images"], next(second)["images"]]), expected)
