"""The Inception-v3 of FID: TensorFlow's network of 2015, whose weights pytorch-fid and torch-fidelity converted to
torch (`pt_inception-2015-12-05-6726825d.pth`). Names and shapes are those of that file.

It differs from torchvision's: average pools do not count the padding, the last block has a max pool, and there are
1,008 classes. B batch, C H W of the feature maps.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unweave.errors import require
from unweave.nn.weights import read_tensors

NUM_FEATURES = 2048
SIZE = 299
"""Width to which images are resized."""
COUNTERS = ".num_batches_tracked"  # of the norms: some files have it, nothing needs it

Kernel = tuple[int, int]
Step = tuple[int, Kernel] | tuple[int, Kernel, Kernel]
"""Output channels and kernel of a convolution; two kernels are two parallel convolutions of the same input."""

POINT, THREE, FIVE = (1, 1), (3, 3), (5, 5)
ROW, COLUMN = (1, 7), (7, 1)
SHORT_ROW, SHORT_COLUMN = (1, 3), (3, 1)


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU; with zero padding if `pad`."""

    def __init__(self, before: int, channels: int, kernel: Kernel, stride: int = 1, pad: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if pad else 0
        self.conv = nn.Conv2d(before, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels, H', W')."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


def average(x: Tensor) -> Tensor:
    """3 x 3 average pool of stride 1 (B, C, H, W), without the padding in the mean."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def largest(x: Tensor) -> Tensor:
    """3 x 3 max pool of stride 1 (B, C, H, W)."""
    return F.max_pool2d(x, 3, stride=1, padding=1)


def halved(x: Tensor) -> Tensor:
    """3 x 3 max pool of stride 2: (B, C, H, W) -> (B, C, (H - 1) // 2, (W - 1) // 2)."""
    return F.max_pool2d(x, 3, stride=2)


class Block(nn.Module):
    """Parallel branches of convolutions, and the pooled input. Convolutions have the names of the file.

    `branch_pool` takes the pooled input; without it, the pooled input itself is the last part of the output, and the
    last convolution of each branch halves the width as the pool does.
    """

    def __init__(self, before: int, pool: Callable[[Tensor], Tensor], **branches: Sequence[Step]) -> None:
        super().__init__()
        self.pool = pool
        self.branches: dict[str, list[list[str]]] = {}
        halves = "branch_pool" not in branches
        for branch, steps in branches.items():
            width, chain = before, []
            for number, (channels, *kernels) in enumerate(steps, start=1):
                last = halves and number == len(steps)
                names = [_name(branch, len(steps), number, side, len(kernels)) for side in range(len(kernels))]
                for name, kernel in zip(names, kernels):
                    self.add_module(name, Convolution(width, channels, kernel, 2 if last else 1, pad=not last))
                width = channels * len(kernels)
                chain.append(names)
            self.branches[branch] = chain

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'), the branches in their order."""
        outputs, pooled = [], self.pool(x)
        for branch, chain in self.branches.items():
            h = pooled if branch == "branch_pool" else x
            for names in chain:
                h = torch.cat([self.get_submodule(name)(h) for name in names], dim=1)
            outputs.append(h)
        return torch.cat(outputs if "branch_pool" in self.branches else [*outputs, pooled], dim=1)


def _name(branch: str, num_steps: int, number: int, side: int, num_sides: int) -> str:
    """`branch1x1`; `branch5x5_2` for one of several in a row; `branch3x3_2b` for one of two in parallel."""
    return (branch if num_steps == 1 else f"{branch}_{number}") + ("ab"[side] if num_sides > 1 else "")


def _squares(before: int, pooled: int) -> Block:
    """Kernels of 5 and 3 (`A` of TensorFlow's slim)."""
    return Block(
        before,
        average,
        branch1x1=[(64, POINT)],
        branch5x5=[(48, POINT), (64, FIVE)],
        branch3x3dbl=[(64, POINT), (96, THREE), (96, THREE)],
        branch_pool=[(pooled, POINT)],
    )


def _lines(inner: int) -> Block:
    """Kernels of 1 x 7 and 7 x 1 (`C`)."""
    return Block(
        768,
        average,
        branch1x1=[(192, POINT)],
        branch7x7=[(inner, POINT), (inner, ROW), (192, COLUMN)],
        branch7x7dbl=[(inner, POINT), (inner, COLUMN), (inner, ROW), (inner, COLUMN), (192, ROW)],
        branch_pool=[(192, POINT)],
    )


def _crosses(before: int, pool: Callable[[Tensor], Tensor]) -> Block:
    """Kernels of 1 x 3 beside 3 x 1 (`E`)."""
    return Block(
        before,
        pool,
        branch1x1=[(320, POINT)],
        branch3x3=[(384, POINT), (384, SHORT_ROW, SHORT_COLUMN)],
        branch3x3dbl=[(448, POINT), (384, THREE), (384, SHORT_ROW, SHORT_COLUMN)],
        branch_pool=[(192, POINT)],
    )


class Inception(nn.Module):
    """Images to the 2,048 features of FID (Heusel et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, THREE, stride=2, pad=False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, THREE, pad=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, THREE)
        self.Conv2d_3b_1x1 = Convolution(64, 80, POINT)
        self.Conv2d_4a_3x3 = Convolution(80, 192, THREE, pad=False)
        self.Mixed_5b = _squares(192, pooled=32)
        self.Mixed_5c = _squares(256, pooled=64)
        self.Mixed_5d = _squares(288, pooled=64)
        self.Mixed_6a = Block(
            288, halved, branch3x3=[(384, THREE)], branch3x3dbl=[(64, POINT), (96, THREE), (96, THREE)]
        )
        self.Mixed_6b = _lines(128)
        self.Mixed_6c = _lines(160)
        self.Mixed_6d = _lines(160)
        self.Mixed_6e = _lines(192)
        self.Mixed_7a = Block(
            768,
            halved,
            branch3x3=[(192, POINT), (320, THREE)],
            branch7x7x3=[(192, POINT), (192, ROW), (192, COLUMN), (192, THREE)],
        )
        self.Mixed_7b = _crosses(1280, average)
        self.Mixed_7c = _crosses(2048, largest)
        self.fc = nn.Linear(NUM_FEATURES, 1008)  # in the file; FID does not use it

    @classmethod
    def read(cls, path: Path, device: torch.device | str = "cpu") -> "Inception":
        """From the weights file of pytorch-fid and torch-fidelity, in eval mode. Raises `UserError` with the file and
        the first tensor that is missing, of another shape or unknown."""
        weights = read_tensors(path, "inception")
        with torch.device("meta"):
            network = cls()
        for name, ours in network.state_dict().items():
            if name.endswith(COUNTERS):
                weights[name] = torch.zeros((), dtype=torch.int64)
                continue
            theirs = weights.get(name)
            has = "is missing" if theirs is None else f"has shape {tuple(theirs.shape)}"
            require(
                theirs is not None and theirs.shape == ours.shape and theirs.is_floating_point(),
                f"inception {path} is not the Inception of FID: {name} {has}, not {tuple(ours.shape)}",
            )
        foreign = sorted(set(weights) - set(network.state_dict()))
        require(not foreign, f"inception {path} is not the Inception of FID: it has {foreign[:1]}")
        network.load_state_dict(weights, assign=True)
        return network.float().to(device).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> features (B, 2048), means over the last feature map.

        Images are resized to 299 px as in pytorch-fid: bilinear, corners not aligned, no antialiasing. torch-fidelity
        repeats the resizing of TensorFlow 1, which is off by half a pixel, so its FID is another number.
        """
        x = F.interpolate(images, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B, 64, 147, 147)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halved(x)))  # (B, 192, 71, 71)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(halved(x))))  # (B, 288, 35, 35)
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))  # (B, 768, 17, 17)
        x = self.Mixed_6e(self.Mixed_6d(x))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        return x.mean((2, 3))
