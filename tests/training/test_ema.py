"""The moving average follows its recurrence, also through a restart."""

import pytest
import torch
from torch import nn

from unweave.training.ema import Ema


def test_average_follows_the_recurrence_and_survives_a_restart():
    module = nn.Linear(1, 1, bias=False).double()
    ema = Ema({"m": module}, decay=0.5)
    expected = module.weight.item()
    for n in range(1, 9):
        module.weight.data.fill_(float(n))
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
        if n == 4:  # half way through, go on from a copy
            copy = Ema({"m": module}, decay=0.5)
            copy.load({name: tensor.clone() for name, tensor in ema.average.items()}, ema.num_updates)
            ema = copy
        ema.update()
    assert ema.average["m.weight"].item() == pytest.approx(expected, abs=1e-14)


def test_the_average_is_applied_for_a_while_and_counters_are_not_averaged():
    module = nn.BatchNorm1d(2)
    ema = Ema({"m": module}, decay=0.9)
    module(torch.randn(8, 2))
    ema.update()
    live = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    average = {name: tensor.clone() for name, tensor in ema.average.items()}
    with ema.applied():
        assert torch.equal(module.running_mean, average["m.running_mean"])
        assert not torch.equal(module.running_mean, live["running_mean"])
        assert module.num_batches_tracked == 1
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in live.items())
    assert all(torch.equal(ema.average[name], tensor) for name, tensor in average.items())
