"""The training loop: steps, and between them fits, the record and checkpoints.

All random numbers of a step are seeded from (seed, process, images seen): on a CPU a run that was killed and resumed
equals an uninterrupted one bit for bit.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from unweave.config import LoopConfig
from unweave.errors import UserError
from unweave.models.base import eval_mode
from unweave.models.pixels import normalise
from unweave.record import Display
from unweave.training import checkpoint
from unweave.training.batches import Order, batches
from unweave.training.ema import Ema
from unweave.training.run import Run
from unweave.training.runtime import Fabric, mix_seed, seed_step, sum_over_processes
from unweave.training.stages import make_stage
from unweave.training.state import State, restore, snapshot

OnSave = Callable[[Any], None]


@dataclass
class StepLog:
    """The numbers of the steps since the last line of the record, kept on the device until they are needed."""

    parts: list[dict[str, torch.Tensor]] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)

    def series(self) -> dict[str, list[float]]:
        """Each named number, step by step (waits for the device)."""
        names = self.parts[0] if self.parts else {}
        return {name: torch.stack([part[name] for part in self.parts]).tolist() for name in names}


def resume_or_build(run: Run, start: int = 0) -> State:
    """The state saved in the run's folder; if there is none, the initial state of restart number `start`."""
    saved = checkpoint.load(run.folder, run.log)
    state = build(run, start, fresh=saved is None)
    if saved:
        restore(state, saved)
        run.log(f"resuming from {state.images:,} of {run.config.train.images:,} images")
    run.record.rewind(state.images)
    return state


def build(run: Run, start: int, fresh: bool) -> State:
    """The stage on its device with optimiser and moving average; started if `fresh`, otherwise to be restored."""
    options = run.config.train
    torch.manual_seed(mix_seed(options.seed, start) if start else options.seed)
    stage = make_stage(run)
    if fresh:
        run.log(stage.start())
    optimizer = stage.optimizer()
    wrapped, _ = run.fabric.setup(stage.model, optimizer)
    return State(stage, wrapped, optimizer, Ema(stage.averaged, options.ema_decay))


def run_loop(state: State, what: str, until: int, on_save: OnSave | None = None) -> None:
    """Trains until `until` images have been seen, or until Ctrl-C or SIGTERM; then saves."""
    run, stage = state.run, state.stage
    options, fabric = run.config.train, run.fabric
    feed = batches(
        stage.reader(),
        Order(run.rows, options.seed),
        state.images,
        options.batch_size,
        fabric.global_rank,
        fabric.world_size,
        options.workers,
    )
    steps, start = StepLog(), time.monotonic() - state.seconds
    with catching_signals() as caught, Display(what, until, "images", run.quiet) as display:
        while state.images < until and not any_process(fabric, bool(caught)):
            # train on one batch
            before = state.images
            steps.parts.append(train_step(state, next(feed)))
            state.seconds = time.monotonic() - start

            # write a line of the record
            ended, paused = state.images >= options.images, state.images >= until
            fitting = ended or crosses(before, state.images, stage.fit_every_images)
            saving = paused or crosses(before, state.images, options.save_every_images)
            if fitting or saving or crosses(before, state.images, options.log_every_images):
                display.update(state.images, write_record(state, steps))
                steps = StepLog()

            # fit the anchors: during training to the present weights, after the last step to the average that is saved
            if fitting:
                with state.ema.applied() if ended else nullcontext():
                    stage.fit(state.images)

            # save a checkpoint and the model
            if saving:
                start += save(state, on_save)

        # save after an interruption
        if state.images < until:
            if steps.parts:
                write_record(state, steps)
            save(state, on_save)


def train_step(state: State, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One step on this process's share of a batch; returns the named numbers of the step."""
    options, fabric = state.run.config.train, state.run.fabric
    seed_step(options.seed, fabric.global_rank, state.images)
    for group in state.optimizer.param_groups:
        group["lr"] = group["lr_ratio"] * learning_rate(options, state.images)
    state.model.train()

    # sum the gradients of the parts of the batch
    progress = state.images / options.images
    results: list[dict[str, torch.Tensor]] = []
    inputs = {name: tensor.to(fabric.device, non_blocking=True) for name, tensor in batch.items()}
    inputs["images"] = normalise(inputs["images"])
    for parts in zip(*(tensor.chunk(options.accumulate) for tensor in inputs.values())):
        losses = state.wrapped(**dict(zip(inputs, parts)), progress=progress)
        fabric.backward(losses.total / options.accumulate)
        results.append(losses.parts)

    # update the weights and their average
    if options.clip:
        parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, options.clip)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.ema.update()
    state.images += options.batch_size
    state.step += 1
    return {name: torch.stack([parts[name] for parts in results]).mean() for name in results[0]}


def learning_rate(options: LoopConfig, images: int) -> float:
    """The learning rate of the step after `images` images: linear warm-up, constant, linear cool-down to 0."""
    warmup = (images + options.batch_size) / max(options.warmup_images, 1)
    cooldown = (options.images - images) / max(options.cooldown * options.images, 1)
    return options.lr * min(1.0, warmup, cooldown)


def write_record(state: State, steps: StepLog) -> str:
    """Writes a line of the record and returns the note of the progress bar."""
    run, series = state.run, finite_series(state, steps)
    if run.quiet:
        return ""
    num_images = len(steps.parts) * run.config.train.batch_size
    line: dict[str, Any] = {
        "images": state.images,
        "step": state.step,
        "seconds": round(state.seconds, 2),
        "images_per_second": round(num_images / (time.monotonic() - steps.start), 1),
        "lr": state.optimizer.param_groups[0]["lr"],
        **{name: sum(values) / len(values) for name, values in series.items()},
        **state.stage.measure(),
        "per_step": {name: [float(f"{value:.6g}") for value in values] for name, values in series.items()},
    }
    run.record.write(line)
    return f"{state.stage.note(line)}  {line['images_per_second']:.0f} images/s"


def finite_series(state: State, steps: StepLog) -> dict[str, list[float]]:
    """The numbers of the steps, averaged over processes. Raises `UserError` if a loss is not finite."""
    run = state.run
    series = {
        name: (sum_over_processes(run.fabric)(torch.tensor(values)) / run.fabric.world_size).tolist()
        for name, values in steps.series().items()
    }
    first = state.step - len(steps.parts) + 1
    for step, loss in enumerate(series.get("loss", []), start=first):
        if not np.isfinite(loss):
            last = checkpoint.newest(run.folder) or "none yet"
            raise UserError(
                f"the loss is {loss} at step {step} ({step * run.config.train.batch_size:,} images). "
                f"Last good checkpoint: {last}. "
                "Try a smaller --train.lr, --train.clip 1, or --train.precision 32-true, in a new --run"
            )
    return series


def save(state: State, on_save: OnSave | None) -> float:
    """Writes a checkpoint and the model folder, and calls `on_save`; returns the seconds that `on_save` took.

    Called after `write_record`, which raises for a loss that is not finite: so the saved state is finite, and a resumed
    run writes the same lines as an uninterrupted one.
    """
    if state.run.quiet:
        return 0.0
    checkpoint.save(state.run.folder, snapshot(state))
    with state.ema.applied():
        state.stage.save(state.run.folder / "model", history(state))
    start = time.monotonic()
    show(state, on_save)
    return time.monotonic() - start


def show(state: State, on_save: OnSave | None) -> None:
    """Calls `on_save` with the model, averaged and in eval mode."""
    if on_save and not state.run.quiet:
        state.model.history = history(state)  # pyright: ignore[reportArgumentType]
        with state.ema.applied(), eval_mode(state.model):
            on_save(state.model)


def history(state: State) -> dict[str, Any]:
    """How long a model was trained, for its folder."""
    return {"images": state.images, "step": state.step, "seconds": round(state.seconds, 1)}


def crosses(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]; False if `every` is 0."""
    return every > 0 and before // every != after // every


def any_process(fabric: Fabric, flag: bool) -> bool:
    """Whether the flag is set in any process, so that all leave the loop at the same step."""
    if fabric.world_size == 1:
        return flag
    return bool(sum_over_processes(fabric)(torch.tensor(float(flag), device=fabric.device)) > 0)


@contextmanager
def catching_signals() -> Iterator[list[int]]:
    """Collects a first Ctrl-C or SIGTERM instead of stopping; a second one stops at once."""
    caught: list[int] = []

    def catch(number: int, _: Any) -> None:
        if caught:
            raise KeyboardInterrupt("stopped at once; steps since the last checkpoint are lost")
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
