"""An estimate of the time and disk space of the jobs of a table, from a few training steps on this machine."""

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
from unweave.reproduce.plan import Job, Request
from unweave.training.batches import split_rows
from unweave.training.loop import build, train_step
from unweave.training.run import Run
from unweave.training.runtime import Fabric, launch

PATIENCE = 3.0
"""Maximum seconds of a step that is timed with its whole batch; longer ones are timed with `PART` images."""
PART = 8


class Cost(NamedTuple):
    """The estimate for one job."""

    images: int
    steps: int
    steps_per_second: float
    disk_gb: float

    @property
    def seconds(self) -> float:
        return self.steps / self.steps_per_second


def measure(config: RunConfig | VQRunConfig, num_images: int, snapshots: int) -> Cost:
    """Times training steps on random images of the model's size and estimates the disk space at the end.

    `num_images` is the number of images of the set, which are encoded at each of `snapshots` snapshots.
    """
    per_image, num_weights = launch(replace(config.train, devices=1), _time, config)
    codes = 2 * 4 * num_images * snapshots * config.model.num_units if isinstance(config, RunConfig) else 0
    # two checkpoints with the weights, their average and two moments of Adam, and the model folder
    disk = 4 * num_weights * (2 * 4 + 1) + codes
    train = config.train
    return Cost(train.images, -(-train.images // train.batch_size), 1 / (per_image * train.batch_size), disk / 1e9)


def _time(fabric: Fabric, config: RunConfig | VQRunConfig) -> tuple[float, int]:
    """Seconds of training per image, and the number of weights."""
    size, whole = config.model.image_size, config.train.batch_size
    pixels = np.random.default_rng(0).integers(256, size=(max(whole, PART), size, size, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as scratch:
        rows, held_out = split_rows(len(pixels), 0.0, 0)
        folder, images = Path(scratch), ArrayImages(pixels)
        record = Record(folder / "metrics.jsonl", silent=True)
        run = Run(fabric, _without_latents(config), folder, images, None, rows, held_out, record, lambda _: None)
        state = build(run, 0, fresh=False)

        # the shortest of three steps
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


def show_costs(jobs: Sequence[Job], done: Sequence[Job], request: Request, sizes: dict[str, int]) -> float:
    """Prints an estimate for each row with unfinished jobs; returns the estimated seconds of training left.

    `sizes` are the numbers of images of the sets.
    """
    sheet = Sheet(title=f"{request.table}, scale {request.scale}: training left to do", title_justify="left")
    for column in ("job", "times", "images", "steps", "steps/s", "time", "GB on disk"):
        sheet.add_column(column, justify="left" if column == "job" else "right")
    seconds, disk = 0.0, 0.0
    left = [job for job in jobs if job not in done]
    for row in dict.fromkeys(job.row for job in left):
        same = [job for job in left if job.row == row]
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
