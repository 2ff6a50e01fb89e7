"""Training: set up, build, fit. The same command again resumes.

    unweave train rooms-cpu --run runs/first                                   # one process
    unweave train vq-rooms --run runs/vq                                       # the first stage, see `stages`
    unweave train dyga-rooms --run runs/big --train.devices 8                  # eight GPUs of one machine
    torchrun --nproc-per-node 8 -m unweave train dyga-rooms --run runs/big --train.devices 8

Progress is counted in images, so that batch size and number of processes do not change what a number means. All
randomness of a step is seeded from (seed, process, images seen): a run that was killed and resumed repeats, bit for
bit on a CPU, what an uninterrupted one does.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unweave.config import LoopConfig, RunConfig, VQRunConfig
from unweave.data import open_dataset
from unweave.data.base import ImageSet
from unweave.errors import UserError, require
from unweave.models.base import evaluating
from unweave.models.images import normalise
from unweave.record import Display, Record, Say, read_record, say
from unweave.training import checkpoint
from unweave.training.batches import Order, batches, split_rows
from unweave.training.ema import Ema
from unweave.training.run import Run
from unweave.training.runtime import Fabric, launch, mix_seed, seed_step, sum_over_processes
from unweave.training.stages import make_stage
from unweave.training.state import State, restore, snapshot

OnSave = Callable[[Any], None]


@dataclass
class Tally:
    """The numbers of the steps since the last line of the record, left on the device until they are asked for."""

    parts: list[dict[str, torch.Tensor]] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)

    def series(self) -> dict[str, list[float]]:
        """Each named number, step by step (waits for the device)."""
        names = self.parts[0] if self.parts else {}
        return {name: torch.stack([part[name] for part in self.parts]).tolist() for name in names}


def train(
    config: RunConfig | VQRunConfig,
    folder: Path,
    tell: Say = say,
    dataset: ImageSet | None = None,
    on_save: OnSave | None = None,
) -> Path:
    """Trains, or goes on training, the run in `folder`; returns the folder of the model.

    Images come from the data set that the options name, or from `dataset` where one is given. `on_save` is shown the
    model as it is saved, averaged and in eval mode, to look at; its time does not count as training. A run that goes on
    begins by showing where it stands, as whoever looked may have been cut off too.
    Raises `UserError` for a folder of another run, a disk that cannot be written, or a loss that is not finite, and
    KeyboardInterrupt, with all saved and the way to go on as its text, after Ctrl-C.
    """
    config = checkpoint.open_run(folder, config)
    stopped_at = launch(config.train, _main, config, folder, tell, dataset, on_save)
    if stopped_at < config.train.images:
        raise KeyboardInterrupt(f"saved in {folder}: the same command again goes on from {stopped_at:,} images")
    return folder / "model"


def _main(
    fabric: Fabric,
    config: RunConfig | VQRunConfig,
    folder: Path,
    tell: Say,
    dataset: ImageSet | None,
    on_save: OnSave | None,
) -> int:
    """One process's part of a run; returns the images seen."""
    if not fabric.is_global_zero:
        tell = _silence
    trained_on = config.data if dataset is None else None
    if dataset is None:
        dataset = open_dataset(config.data, config.model.image_size, tell)
    rows, held_out = split_rows(len(dataset), config.data.held_out, config.train.seed)
    record = Record(folder / "metrics.jsonl", silent=not fabric.is_global_zero)
    run = Run(fabric, config, folder, dataset, trained_on, rows, held_out, record, tell)
    options = config.train
    if options.restarts > 1 and not checkpoint.newest(folder):
        reached = choose_start(run)
        if reached < options.restart_images:
            return reached
    state = take_up(run)
    if state.images:
        show(run, state, on_save)
    if state.images < options.images:
        fit(run, state, "training", options.images, on_save)
    return state.images


def choose_start(run: Run) -> int:
    """Trains `train.restarts` models, each as a run in a folder of its own, and puts the best of them into `run`.

    They differ in their first weights; the best has the lowest loss on the images that were held out. Training goes on
    from it as if there had been no other, but the seconds of all count. Returns the images that the last one saw: fewer
    than `train.restart_images` if it was interrupted.
    """
    options = run.config.train
    require(
        len(run.held_out) > 0, "train.restarts compares models on images that are held out: set data.held_out above 0"
    )
    folders = [run.folder / "starts" / str(number) for number in range(options.restarts)]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        start = replace(run, folder=folder, record=Record(folder / "metrics.jsonl", silent=run.quiet))
        state = take_up(start, number)
        if state.images < options.restart_images:
            fit(start, state, f"start {number + 1} of {options.restarts}", options.restart_images)
        if state.images < options.restart_images:
            return state.images
    run.fabric.barrier()  # the records are whole
    records = [read_record(folder / "metrics.jsonl") for folder in folders]
    losses = [record[-1]["held_out_loss"] for record in records]
    best = losses.index(min(losses))
    told = ", ".join(f"{loss:.4f}" for loss in losses)
    run.tell(f"held-out losses of the starts: {told}; going on with start {best + 1}")
    kept = checkpoint.load(folders[best], run.tell)
    assert kept is not None  # it was just written, or read
    if not run.quiet:
        run.record.rewind(0)
        for line in records[best]:
            run.record.write(line)
        seconds = sum(record[-1]["seconds"] for record in records)
        checkpoint.save(run.folder, kept._replace(values={**kept.values, "seconds": seconds}))
        for folder in folders:
            shutil.rmtree(folder / "state")
    run.fabric.barrier()  # the checkpoint is there
    return options.restart_images


def take_up(run: Run, start: int = 0) -> State:
    """The state that the run's folder holds; a fresh one, of the given start, where it holds none."""
    saved = checkpoint.load(run.folder, run.tell)
    state = build(run, start, fresh=saved is None)
    if saved:
        restore(state, saved)
        run.tell(f"going on from {state.images:,} of {run.config.train.images:,} images")
    run.record.rewind(state.images)
    return state


def _silence(_: str) -> None:
    pass


def build(run: Run, start: int, fresh: bool) -> State:
    """The stage on its device with optimiser and moving average; a fresh one is started, another will be restored."""
    options = run.config.train
    torch.manual_seed(mix_seed(options.seed, start) if start else options.seed)
    stage = make_stage(run)
    if fresh:
        run.tell(stage.start())
    optimizer = stage.optimizer()
    wrapped, _ = run.fabric.setup(stage.model, optimizer)
    return State(stage, wrapped, optimizer, Ema(stage.averaged, options.ema_decay))


def fit(run: Run, state: State, what: str, until: int, on_save: OnSave | None = None) -> None:
    """The loop: steps, and between them fits, record and checkpoints, until so many images were seen or Ctrl-C."""
    options, fabric, stage = run.config.train, run.fabric, state.stage
    order = Order(run.rows, options.seed)
    feed = batches(
        stage.reader(),
        order,
        state.images,
        options.batch_size,
        fabric.global_rank,
        fabric.world_size,
        options.workers,
    )
    tally, start = Tally(), time.monotonic() - state.seconds
    with catching_signals() as caught, Display(what, until, "images", run.quiet) as display:
        while state.images < until and not any_process(fabric, bool(caught)):
            before = state.images
            tally.parts.append(train_step(run, state, next(feed)))
            state.seconds = time.monotonic() - start
            ended, paused = state.images >= options.images, state.images >= until
            fitting = ended or crosses(before, state.images, stage.fit_every_images)
            saving = paused or crosses(before, state.images, options.save_every_images)
            if fitting or saving or crosses(before, state.images, options.log_every_images):
                display.update(state.images, log(run, state, tally))
                tally = Tally()
            if fitting:
                # during training to the weights as they are, after the last step to those that are saved
                with state.ema.applied() if ended else nullcontext():
                    stage.fit(state.images)
            if saving:
                start += save(run, state, on_save)
        if state.images < until:
            if tally.parts:
                log(run, state, tally)
            save(run, state, on_save)


def train_step(run: Run, state: State, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One step on this process's share of a batch; returns the named numbers of the step."""
    options, fabric = run.config.train, run.fabric
    seed_step(options.seed, fabric.global_rank, state.images)
    for group in state.optimizer.param_groups:
        group["lr"] = group["lr_ratio"] * learning_rate(options, state.images)
    state.model.train()
    progress = state.images / options.images
    found: list[dict[str, torch.Tensor]] = []
    inputs = {name: tensor.to(fabric.device, non_blocking=True) for name, tensor in batch.items()}
    inputs["images"] = normalise(inputs["images"])
    for parts in zip(*(tensor.chunk(options.accumulate) for tensor in inputs.values())):
        losses = state.wrapped(**dict(zip(inputs, parts)), progress=progress)
        fabric.backward(losses.total / options.accumulate)
        found.append(losses.parts)
    if options.clip:
        parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, options.clip)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.ema.update()
    state.images += options.batch_size
    state.step += 1
    return {name: torch.stack([parts[name] for parts in found]).mean() for name in found[0]}


def learning_rate(options: LoopConfig, images: int) -> float:
    """That of the step that follows `images` images: it rises to `lr`, stays, and falls to 0 at the end."""
    warm = (images + options.batch_size) / max(options.warmup_images, 1)
    left = (options.images - images) / max(options.cooldown * options.images, 1)
    return options.lr * min(1.0, warm, left)


def log(run: Run, state: State, tally: Tally) -> str:
    """Writes a line of the record and returns what the display shows beside the bar."""
    series = finite_series(run, state, tally)
    if run.quiet:
        return ""
    fresh = len(tally.parts) * run.config.train.batch_size
    line: dict[str, Any] = {
        "images": state.images,
        "step": state.step,
        "seconds": round(state.seconds, 2),
        "images_per_second": round(fresh / (time.monotonic() - tally.start), 1),
        "lr": state.optimizer.param_groups[0]["lr"],
        **{name: sum(values) / len(values) for name, values in series.items()},
        **state.stage.measure(),
        "per_step": {name: [float(f"{value:.6g}") for value in values] for name, values in series.items()},
    }
    run.record.write(line)
    return f"{state.stage.note(line)}  {line['images_per_second']:.0f} images/s"


def finite_series(run: Run, state: State, tally: Tally) -> dict[str, list[float]]:
    """The tally's numbers, averaged over processes. Raises `UserError` when a loss is not finite."""
    series = {
        name: (sum_over_processes(run.fabric)(torch.tensor(values)) / run.fabric.world_size).tolist()
        for name, values in tally.series().items()
    }
    first = state.step - len(tally.parts) + 1
    for step, loss in enumerate(series.get("loss", []), start=first):
        if not np.isfinite(loss):
            last = checkpoint.newest(run.folder) or "none yet"
            raise UserError(
                f"the loss is {loss} at step {step} ({step * run.config.train.batch_size:,} images). "
                f"Last good checkpoint: {last}. "
                "Try a smaller --train.lr, --train.clip 1, or --train.precision 32-true, in a new --run"
            )
    return series


def save(run: Run, state: State, on_save: OnSave | None) -> float:
    """Writes a checkpoint and the model folder, shows the model to `on_save` and returns the seconds that this looked.

    Comes after `log`, which stops at a loss that is not finite: what is saved is good, and a resumed run writes the
    same lines as an uninterrupted one.
    """
    if run.quiet:
        return 0.0
    checkpoint.save(run.folder, snapshot(state))
    with state.ema.applied():
        state.stage.save(run.folder / "model", history(state))
    looking = time.monotonic()
    show(run, state, on_save)
    return time.monotonic() - looking


def show(run: Run, state: State, on_save: OnSave | None) -> None:
    """Shows the model, averaged and in eval mode, to `on_save`."""
    if on_save and not run.quiet:
        state.model.history = history(state)  # pyright: ignore[reportArgumentType]
        with state.ema.applied(), evaluating(state.model):
            on_save(state.model)


def history(state: State) -> dict[str, Any]:
    """How far a model was trained, as its folder says."""
    return {"images": state.images, "step": state.step, "seconds": round(state.seconds, 1)}


def crosses(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]; never where `every` is 0."""
    return every > 0 and before // every != after // every


def any_process(fabric: Fabric, flag: bool) -> bool:
    """Whether the flag is set in any process: all must leave the loop at the same step."""
    if fabric.world_size == 1:
        return flag
    return bool(sum_over_processes(fabric)(torch.tensor(float(flag), device=fabric.device)) > 0)


@contextmanager
def catching_signals() -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM instead of stopping at once; a second one stops at once."""
    caught: list[int] = []

    def catch(number: int, _: Any) -> None:
        if caught:
            raise KeyboardInterrupt("stopped at once, not saved since the last checkpoint")
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
