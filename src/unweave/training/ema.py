"""Exponential moving average of weights, with the decay of the published code."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

Tensors = dict[str, torch.Tensor]


class Ema:
    """Moving average of the floating-point tensors of some modules, decay min(`decay`, (1 + n) / (10 + n)) at update n.

    BatchNorm's running statistics are averaged as the weights are, so that they fit the averaged network.
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
        """Moves the average one step towards the present weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        live = self._live()
        torch._foreach_lerp_(list(self.average.values()), [live[name] for name in self.average], 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def load(self, average: Tensors, num_updates: int) -> None:
        """Restores a saved average."""
        for name, tensor in self.average.items():
            tensor.copy_(average[name])
        self.num_updates = num_updates

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the context the modules hold their average, in place; afterwards their own weights again."""
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
