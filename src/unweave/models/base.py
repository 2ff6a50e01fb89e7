"""What both stages share: the losses of a step, and a model put into eval mode for a moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn


class Losses(NamedTuple):
    """What a training step minimises, and the named numbers that go into the record."""

    total: Tensor
    parts: dict[str, Tensor]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into eval mode and back into the mode that it had."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)
