"""The state of training, its conversion to named tensors, and back."""

from dataclasses import dataclass
from typing import Any

import torch

from unweave.training.checkpoint import Checkpoint
from unweave.training.ema import Ema
from unweave.training.run import Run
from unweave.training.stages import Stage


@dataclass
class State:
    """All that training changes."""

    stage: Stage[Any]
    wrapped: torch.nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema
    images: int = 0
    step: int = 0
    seconds: float = 0.0

    @property
    def run(self) -> Run:
        return self.stage.run

    @property
    def model(self) -> torch.nn.Module:
        return self.stage.model


def snapshot(state: State) -> Checkpoint:
    """The state as named tensors."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    moments = {
        f"optimizer.{kind}.{names[id(parameter)]}": tensor
        for parameter, tensors in state.optimizer.state.items()
        for kind, tensor in tensors.items()
    }
    model = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    average = {f"ema.{name}": tensor for name, tensor in state.ema.average.items()}
    values = {"step": state.step, "seconds": state.seconds, "ema_updates": state.ema.num_updates}
    return Checkpoint(state.images, {**model, **average, **moments}, values)


def restore(state: State, saved: Checkpoint) -> None:
    """The inverse of `snapshot`."""
    # model and moving average
    parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
    for name, tensor in saved.tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = tensor
    state.model.load_state_dict(parts["model"])
    state.ema.load(parts["ema"], saved.values["ema_updates"])

    # moments of the optimiser
    parameters = dict(state.model.named_parameters())
    for name, tensor in parts["optimizer"].items():
        kind, owner = name.split(".", 1)
        parameter = parameters[owner]
        # Adam keeps its step count on the CPU, unless it is fused on another device
        device = parameter.device if kind != "step" or parameter.device.type != "cpu" else tensor.device
        state.optimizer.state[parameter][kind] = tensor.to(device)
    state.images, state.step, state.seconds = saved.images, saved.values["step"], saved.values["seconds"]
