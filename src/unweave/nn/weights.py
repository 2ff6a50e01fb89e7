"""Reading files of weights that a user names: files of torch, from which only tensors are read."""

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from unweave.errors import UserError

Tensors = dict[str, Tensor]


def read_tensors(path: Path, option: str) -> Tensors:
    """The state dict in a file, on the CPU, read as weights only: no code in it is run. Raises `UserError`, which
    begins with the option that named the file, if it cannot be read or has other content."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{option} {path} cannot be read ({reason}): it needs a state dict of tensors") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{option} {path} is no state dict of tensors")
    return weights
