"""Exponential moving average of weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

Tensors = dict[str, torch.Tensor]


class Ema:
    """Moving average of the floating-point tensors of some modules, decay min(`decay`, (1 + n) / (10 + n)) at update n.

    BatchNorm's running statistics are averaged like the weights they belong to, so that the averaged network is
    normalised by statistics of the same age.
    """

    def __init__(self, modules: dict[str, nn.Module], decay: float):
        self.modules, self.decay = modules, decay
        self.num_updates = 0
        self.average = {name: tensor.detach().clone() for name, tensor in self._live().items()}

    def _live(self) -> Tensors:
        return {
            f"{prefix}.{name}": tensor.detach()
            for prefix, module in self.modules.items()
            for name, tensor in module.state_dict().items()
            if tensor.is_floating_point()
        }

    @torch.no_grad()
    def update(self) -> None:
        """One step of the average towards the weights as they are now."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        live = self._live()
        torch._foreach_lerp_(list(self.average.values()), [live[name] for name in self.average], 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def load(self, average: Tensors, num_updates: int) -> None:
        """Goes on from a saved average."""
        for name, tensor in self.average.items():
            tensor.copy_(average[name])
        self.num_updates = num_updates

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The modules hold their average for a while, in place, and their own weights again afterwards."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, live in self._live().items():
            held = self.average[name].clone()
            self.average[name].copy_(live)
            live.copy_(held)
