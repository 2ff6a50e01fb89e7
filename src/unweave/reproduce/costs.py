"""What the pieces of a table will take, from a few steps of each kind on this machine."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table as Sheet

from unweave.config import RunConfig, VQRunConfig
from unweave.data.arrays import ArrayImages
from unweave.record import Record, clock, console
from unweave.reproduce.plan import Piece, Request
from unweave.training.batches import split_rows
from unweave.training.loop import build, train_step
from unweave.training.run import Run
from unweave.training.runtime import Fabric, launch

PATIENCE = 3.0
"""Seconds that a whole step may take to be timed; longer ones are judged by a part of a batch."""
PART = 8


class Cost(NamedTuple):
    """Of one piece."""

    images: int
    steps: int
    steps_per_second: float
    """Measured; NaN before it was."""
    disk_gb: float

    @property
    def seconds(self) -> float:
        return self.steps / self.steps_per_second


def measure(config: RunConfig | VQRunConfig, num_images: int, snapshots: int) -> Cost:
    """Times steps on random images of the right size and counts what lies on the disk at the end.

    `num_images` of the set are encoded at each of `snapshots`.
    """
    per_image, num_weights = launch(replace(config.train, devices=1), _time, config)
    codes = 2 * 4 * num_images * snapshots * config.model.num_units if isinstance(config, RunConfig) else 0
    # two checkpoints of weights, their average and two moments, and the model
    disk = 4 * num_weights * (2 * 4 + 1) + codes
    train = config.train
    return Cost(train.images, -(-train.images // train.batch_size), 1 / (per_image * train.batch_size), disk / 1e9)


def _time(fabric: Fabric, config: RunConfig | VQRunConfig) -> tuple[float, int]:
    """Seconds per image, and the number of weights."""
    size, whole = config.model.image_size, config.train.batch_size
    pixels = np.random.default_rng(0).integers(256, size=(max(whole, PART), size, size, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as scratch:
        rows, held_out = split_rows(len(pixels), 0.0, 0)
        folder, images = Path(scratch), ArrayImages(pixels)
        record = Record(folder / "metrics.jsonl", silent=True)
        run = Run(fabric, _without_latents(config), folder, images, None, rows, held_out, record, lambda _: None)
        state = build(run, 0, fresh=False)

        def seconds(num: int) -> float:
            batch = {"images": torch.from_numpy(pixels[:num])}
            began = time.perf_counter()
            train_step(state, batch)
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - began

        seconds(PART)
        num = whole if seconds(PART) * whole / PART < PATIENCE else PART
        seconds(num)
        taken = min(seconds(num) for _ in range(3))
    return taken / num, sum(weights.numel() for weights in state.model.parameters())


def _without_latents(config: RunConfig | VQRunConfig) -> Any:
    return (
        replace(config, train=replace(config.train, cache_latents=False)) if isinstance(config, RunConfig) else config
    )


def show_costs(pieces: Sequence[Piece], done: Sequence[Piece], request: Request, sizes: dict[str, int]) -> float:
    """Prints what each row of pieces will take, where not all of it is done; returns the seconds of training left.

    `sizes` are the numbers of images of the sets.
    """
    sheet = Sheet(title=f"{request.table}, scale {request.scale}: what is to be trained", title_justify="left")
    for column in ("piece", "times", "images", "steps", "steps/s", "time", "GB on disk"):
        sheet.add_column(column, justify="left" if column == "piece" else "right")
    seconds, disk = 0.0, 0.0
    left = [piece for piece in pieces if piece not in done]
    for row in dict.fromkeys(piece.row for piece in left):
        same = [piece for piece in left if piece.row == row]
        cost = measure(same[0].config, sizes[row.split("/")[0]], request.size.snapshots)
        taken, gigabytes = cost.seconds * len(same), cost.disk_gb * len(same)
        seconds, disk = seconds + taken, disk + gigabytes
        sheet.add_row(
            row,
            str(len(same)),
            f"{cost.images:,}",
            f"{cost.steps:,}",
            f"{cost.steps_per_second:.3g}",
            clock(taken),
            f"{gigabytes:.2f}",
        )
    sheet.add_row("all", str(len(left)), "", "", "", clock(seconds), f"{disk:.2f}")
    console.print(sheet)
    return seconds
