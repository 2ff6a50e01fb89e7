"""Anchors fitted by processes that hold different images are the same in each, and those of one process alone."""

import pytest
import torch
import torch.distributed as dist

from unweave.config import AnchorConfig
from unweave.nn.anchors import make_anchors
from unweave.nn.encoder import UnitMLPs

NUM_UNITS, TOKEN_DIM = 3, 4


def problem():
    """Scalars (n, N) of one, two and four clusters, and the networks that make tokens of them."""
    torch.manual_seed(0)
    levels = torch.tensor([1, 2, 4])
    scalars = 4 * (torch.rand(3_000, NUM_UNITS) * levels).floor() + 0.3 * torch.randn(3_000, NUM_UNITS)
    return scalars, UnitMLPs(NUM_UNITS, (1, 8, TOKEN_DIM), final_relu=False)


def fit_share(rank, num_processes, folder, space):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=num_processes)

    def reduce(tensor):
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    scalars, tokens = problem()
    anchors = make_anchors(AnchorConfig(space=space), NUM_UNITS, TOKEN_DIM)
    with torch.no_grad():
        anchors.fit(scalars[rank::num_processes], tokens, seed=0, reduce=reduce)
    torch.save(anchors.state_dict(), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("space", ["scalar", "token"])
def test_all_processes_hold_the_anchors_of_one(space, tmp_path):
    torch.multiprocessing.spawn(fit_share, (2, tmp_path, space), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    scalars, tokens = problem()
    alone = make_anchors(AnchorConfig(space=space), NUM_UNITS, TOKEN_DIM)
    with torch.no_grad():
        alone.fit(scalars, tokens, seed=0)
    assert alone.num_alive.tolist() == [1, 2, 4]
    for name, tensor in alone.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, rtol=1e-6, atol=1e-6, msg=name)
