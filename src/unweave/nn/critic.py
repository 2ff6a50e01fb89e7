"""The critic of the VQ first stage, and how its verdict is weighed (method section 1.1).

B batch, C channels, H W height, width, h w those of the verdict.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from unweave.config import CriticConfig

MOST_DOUBLINGS = 3
LARGEST_WEIGHT = 1e4


class PatchCritic(nn.Sequential):
    """PatchGAN (Isola et al. 2017): a verdict on each patch of an image, high where it looks real.

    (B, 3, H, W) -> (B, 1, h, w); with 3 layers, a 64 px image has 6 x 6 verdicts on 70 px patches that overlap.
    """

    def __init__(self, config: CriticConfig) -> None:
        widths = [config.channels * 2 ** min(layer, MOST_DOUBLINGS) for layer in range(config.layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for layer, (before, width) in enumerate(itertools.pairwise(widths), start=1):
            stride = 2 if layer < config.layers else 1
            layers += [
                nn.Conv2d(before, width, 4, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2),
            ]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        for module in self:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, mean=1.0, std=0.02)


def hinge_loss(real: Tensor, drawn: Tensor) -> Tensor:
    """What the critic minimises: verdicts above 1 on real images and below -1 on drawn ones cost nothing."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + drawn).mean())


def frozen(module: nn.Module, inputs: Tensor) -> Tensor:
    """What the module says of the inputs; the gradient of it reaches the inputs and not the module."""
    return functional_call(module, {name: value.detach() for name, value in module.named_parameters()}, (inputs,))


def adaptive_weight(distance: Tensor, verdict: Tensor, last: Tensor) -> Tensor:
    """|gradient of the distance| / |gradient of the verdict|, at most 10,000: with it as its weight, the verdict moves
    the weights `last` of the decoder's last layer as far as the distance does (Esser et al. 2021, equation 7)."""
    (by_distance,) = torch.autograd.grad(distance, last, retain_graph=True)
    (by_verdict,) = torch.autograd.grad(verdict, last, retain_graph=True)
    return (by_distance.norm() / (by_verdict.norm() + 1e-4)).clamp(0, LARGEST_WEIGHT)
