"""The critic of the VQ first stage, and the weight of the adversarial loss (VQ-GAN, Esser et al. 2021).

B batch, C channels, H W height, width, h w those of the logits.
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
    """PatchGAN (Isola et al. 2017): a logit for each patch of an image, high where it looks real.

    (B, 3, H, W) -> (B, 1, h, w); with 3 layers, a 64 px image has 6 x 6 logits of overlapping 70 px patches.
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
    """Loss of the critic (Lim and Ye 2017): 0 for logits above 1 on real images and below -1 on reconstructions."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + drawn).mean())


def frozen(module: nn.Module, inputs: Tensor) -> Tensor:
    """The module's output, whose gradient reaches the inputs but not the module's weights."""
    return functional_call(module, {name: value.detach() for name, value in module.named_parameters()}, (inputs,))


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """|gradient of the reconstruction loss| / |gradient of the adversarial loss|, at most 10,000.

    With this weight both losses have equal gradients in `last`, the decoder's last weights (Esser et al. 2021, eq. 7).
    """
    (by_reconstruction,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (by_critic,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    return (by_reconstruction.norm() / (by_critic.norm() + 1e-4)).clamp(0, LARGEST_WEIGHT)
