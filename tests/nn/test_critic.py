"""The critic is the published PatchGAN, and its logits is weighed as the equation says."""

import itertools

import pytest
import torch
from torch import nn

from unweave.config import CriticConfig
from unweave.nn.critic import LARGEST_WEIGHT, PatchCritic, adaptive_weight, frozen, hinge_loss


def num_parameters(channels, layers):
    """4 x 4 convolutions; the first and last have biases, those between a BatchNorm's two numbers per channel."""
    widths = [channels * min(2**layer, 8) for layer in range(layers + 1)]
    between = sum(16 * before * after + 2 * after for before, after in itertools.pairwise(widths))
    return 16 * 3 * channels + channels + between + 16 * widths[-1] + 1


@pytest.mark.parametrize(("channels", "layers"), [(64, 3), (16, 3), (4, 2), (2, 5)])
def test_number_of_parameters(channels, layers):
    with torch.device("meta"):
        critic = PatchCritic(CriticConfig(channels=channels, layers=layers))
    assert sum(p.numel() for p in critic.parameters()) == num_parameters(channels, layers)


def test_the_published_critic_has_the_published_size():
    with torch.device("meta"):
        assert sum(p.numel() for p in PatchCritic(CriticConfig()).parameters()) == 2_765_633


def test_a_logit_is_of_a_patch_of_70_px():
    torch.manual_seed(0)
    critic = PatchCritic(CriticConfig(channels=2)).eval()
    images = torch.randn(1, 3, 160, 160, requires_grad=True)
    logits = critic(images)
    assert logits.shape == (1, 1, 18, 18)
    logits[0, 0, 9, 9].backward()
    rows, columns = torch.nonzero(images.grad.abs().sum((0, 1)), as_tuple=True)
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == 70


def test_hinge_loss_costs_what_is_on_the_wrong_side():
    assert hinge_loss(torch.tensor([1.0, 5.0]), torch.tensor([-1.0, -7.0])).item() == 0
    assert hinge_loss(torch.zeros(4), torch.zeros(9)).item() == 1
    # real: 1 - 0.5 and 1 + 3, mean 2.25; drawn: 1 + 2 and 0, mean 1.5
    assert hinge_loss(torch.tensor([0.5, -3.0]), torch.tensor([2.0, -4.0])).item() == pytest.approx(0.5 * (2.25 + 1.5))


def test_frozen_gives_the_same_and_moves_only_the_inputs():
    torch.manual_seed(0)
    critic, copy = PatchCritic(CriticConfig(channels=2)), PatchCritic(CriticConfig(channels=2))
    copy.load_state_dict(critic.state_dict())
    images = torch.randn(3, 3, 32, 32, requires_grad=True)
    logits = frozen(critic, images)
    logits.mean().backward()
    assert all(parameter.grad is None for parameter in critic.parameters())
    ours = images.grad.clone()
    images.grad = None
    expected = copy(images)
    expected.mean().backward()
    assert torch.equal(logits, expected)
    assert torch.equal(ours, images.grad)
    assert torch.equal(critic[3].running_mean, copy[3].running_mean)  # it looks, as in training


def test_adaptive_weight_is_the_ratio_of_the_gradients():
    last = nn.Parameter(torch.tensor([3.0, 4.0]))
    distance, logits = 7 * last.sum(), last.square().sum()  # gradients (7, 7) and (6, 8)
    weight = adaptive_weight(distance, logits, last)
    assert weight.item() == pytest.approx(7 * 2**0.5 / (10 + 1e-4), rel=1e-6)
    assert not weight.requires_grad
    assert last.grad is None
    (distance + logits).backward()  # both can still be used
    assert last.grad.tolist() == [13, 15]


def test_adaptive_weight_is_bounded_where_the_critic_says_nothing():
    last = nn.Parameter(torch.ones(2))
    assert adaptive_weight(last.sum(), 0 * last.sum(), last) == LARGEST_WEIGHT
    assert adaptive_weight(0 * last.sum(), last.sum(), last) == 0
