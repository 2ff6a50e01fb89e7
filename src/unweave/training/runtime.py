"""Devices, processes, precision and seeds; the only file that imports Fabric."""

import functools
import hashlib
import os
import re
import signal
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.multiprocessing.spawn import ProcessRaisedException

from unweave.config import LoopConfig
from unweave.errors import UserError


def launch(config: LoopConfig, main: Callable[..., Any], *args: Any) -> Any:
    """Runs `main(fabric, *args)` in every process, with the threads of `config`; returns the result of the first.

    One process needs no launcher. Several are spawned here, unless torchrun or SLURM has started them. Raises
    `UserError` for an accelerator or devices that do not exist.
    """
    started_outside = "LOCAL_RANK" in os.environ or "SLURM_PROCID" in os.environ
    several = "ddp" if started_outside else "ddp_spawn"
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            strategy=several if config.devices > 1 else "auto",
            precision=config.precision,
        )
    except RuntimeError as error:  # how Fabric reports a missing accelerator or device
        raise UserError(f"train.accelerator {config.accelerator} with {config.devices} devices: {error}") from None
    # as one object, because Fabric copies arguments field by field, which fails for frozen options
    call = functools.partial(_call, main, args, config.threads)
    if several == "ddp_spawn" and config.devices > 1:
        return _spawn(fabric, call)
    fabric.launch()
    return call(fabric)


def _spawn(fabric: Fabric, call: Callable[[Fabric], Any]) -> Any:
    """Launches the processes and waits. The processes handle Ctrl-C; a `UserError` in one is raised again here."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return fabric.launch(call)
    except ProcessRaisedException as error:
        user_error = re.search(r"unweave\.errors\.UserError: (.*)", str(error))
        if user_error:
            raise UserError(user_error[1]) from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _call(main: Callable[..., Any], args: tuple[Any, ...], threads: int, fabric: Fabric) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        return main(fabric, *args)
    finally:
        torch.set_num_threads(before)


def mix_seed(*parts: int) -> int:
    """A 63-bit seed from several numbers, by a hash; unlike sums, hashes of different tuples are different."""
    text = ",".join(str(int(part)) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def seed_step(seed: int, rank: int, images_seen: int) -> None:
    """Seeds torch from (seed, rank, images seen), so that a resumed run equals an uninterrupted one."""
    torch.manual_seed(mix_seed(seed, rank, images_seen))


def sum_over_processes(fabric: Fabric) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that sums a tensor over all processes; the identity for one process."""
    if fabric.world_size == 1:
        return lambda tensor: tensor
    return lambda tensor: fabric.all_reduce(tensor, reduce_op="sum")  # pyright: ignore[reportReturnType]
