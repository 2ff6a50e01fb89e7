"""Training: set up, build, fit. The same command again resumes.

    unweave train rooms-cpu --run runs/first                                   # one process
    unweave train dyga-rooms --run runs/big --train.devices 8                  # eight GPUs of one machine
    torchrun --nproc-per-node 8 -m unweave train dyga-rooms --run runs/big --train.devices 8

Progress is counted in images, so that batch size and number of processes do not change what a number means. All
randomness of a step is seeded from (seed, process, images seen): a run that was killed and resumed repeats, bit for
bit on a CPU, what an uninterrupted one does.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unweave import checkpoint
from unweave.batches import Order, batches, split_rows
from unweave.config import RunConfig, TrainConfig
from unweave.data import open_dataset
from unweave.data.base import ImageSet
from unweave.errors import UserError
from unweave.models.diffusion import DiffusionModel, evaluating
from unweave.models.folder import save_model
from unweave.models.images import normalise
from unweave.nn.ema import Ema
from unweave.record import Display, Record, Say, say
from unweave.runtime import Fabric, launch, mix_seed, seed_step, sum_over_processes
from unweave.state import State, restore, snapshot

OnSave = Callable[[DiffusionModel], None]

NUM_TOKENIZER_IMAGES = 4096
NUM_HELD_OUT_IMAGES = 512


@dataclass(frozen=True)
class Run:
    """What stays the same during a run."""

    fabric: Fabric
    config: RunConfig
    folder: Path
    dataset: ImageSet
    rows: np.ndarray
    held_out: np.ndarray
    record: Record
    tell: Say
    on_save: OnSave | None

    @property
    def quiet(self) -> bool:
        """Whether this process leaves talking and writing to another."""
        return not self.fabric.is_global_zero


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
    config: RunConfig,
    folder: Path,
    tell: Say = say,
    dataset: ImageSet | None = None,
    on_save: OnSave | None = None,
) -> Path:
    """Trains, or goes on training, the run in `folder`; returns the folder of the model.

    Images come from the data set that the options name, or from `dataset` where one is given. `on_save` is shown the
    model as it is saved, averaged and in eval mode, to look at; its time does not count as training.
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
    config: RunConfig,
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
    run = Run(fabric, config, folder, dataset, rows, held_out, record, tell, on_save)
    saved = checkpoint.load(folder, tell)
    state = build(run, fresh=saved is None)
    state.model.trained_on = trained_on
    if saved:
        restore(state, saved)
        tell(f"going on from {state.images:,} of {config.train.images:,} images")
    record.rewind(state.images)
    if state.images < config.train.images:
        fit(run, state)
    return state.images


def _silence(_: str) -> None:
    pass


def build(run: Run, fresh: bool) -> State:
    """A model on its device with optimiser and moving average; its tokenizer is fitted unless it will be restored."""
    options = run.config.train
    torch.manual_seed(options.seed)
    model = DiffusionModel(run.config.model)
    if fresh:
        sample = np.random.default_rng((options.seed, 3)).permutation(run.rows)[:NUM_TOKENIZER_IMAGES]
        run.tell(model.tokenizer.fit(normalise(torch.from_numpy(run.dataset.images(np.sort(sample))))))
    if options.compile:
        model.encoder.compile()
        model.denoiser.compile()
    learned = [*model.encoder.parameters(), *model.denoiser.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=options.lr, weight_decay=options.weight_decay, fused=True)
    wrapped, _ = run.fabric.setup(model, optimizer)
    averaged = {"denoiser": model.denoiser, **({"encoder": model.encoder} if options.ema_encoder else {})}
    return State(model, wrapped, optimizer, Ema(averaged, options.ema_decay))


def fit(run: Run, state: State) -> None:
    """The loop: steps, and between them anchors, record and checkpoints, until all images were seen or Ctrl-C."""
    options, fabric = run.config.train, run.fabric
    order = Order(run.rows, options.seed)
    feed = batches(
        run.dataset,
        order,
        state.images,
        options.batch_size,
        fabric.global_rank,
        fabric.world_size,
        options.workers,
    )
    tally, start = Tally(), time.monotonic() - state.seconds
    with catching_signals() as caught, Display("training", options.images, "images", run.quiet) as display:
        while state.images < options.images and not any_process(fabric, bool(caught)):
            before = state.images
            tally.parts.append(train_step(run, state, next(feed)))
            state.seconds = time.monotonic() - start
            ended = state.images >= options.images
            fitting = ended or crosses(before, state.images, run.config.model.anchors.fit_every_images)
            saving = ended or crosses(before, state.images, options.save_every_images)
            if fitting or saving or crosses(before, state.images, options.log_every_images):
                display.update(state.images, log(run, state, tally))
                tally = Tally()
            if fitting:
                fit_anchors(run, state, averaged=ended)
            if saving:
                start += save(run, state)
        if state.images < options.images:
            if tally.parts:
                log(run, state, tally)
            save(run, state)


def train_step(run: Run, state: State, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """One step on this process's share of a batch; returns the named numbers of the step."""
    options, fabric = run.config.train, run.fabric
    seed_step(options.seed, fabric.global_rank, state.images)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(options, state.images)
    state.model.train()
    progress = state.images / options.images
    losses = state.wrapped(normalise(images.to(fabric.device, non_blocking=True)), progress)
    fabric.backward(losses.total)
    if options.clip:
        parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, options.clip)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.ema.update()
    state.images += options.batch_size
    state.step += 1
    return losses.parts


def learning_rate(options: TrainConfig, images: int) -> float:
    """That of the step that follows `images` images: it rises to `lr`, stays, and falls to 0 at the end."""
    warm = (images + options.batch_size) / max(options.warmup_images, 1)
    left = (options.images - images) / max(options.cooldown * options.images, 1)
    return options.lr * min(1.0, warm, left)


@torch.no_grad()
def fit_anchors(run: Run, state: State, averaged: bool) -> None:
    """Fits the anchors to the units of (a seeded subset of) the training images, the same in every process.

    `averaged` fits them to the moving average of the encoder, where there is one: the one that is used after training.
    """
    config = run.config.model.anchors
    if config.mode == "off":
        return
    seed = mix_seed(run.config.train.seed, state.images)
    rows = run.rows
    if len(rows) > config.max_points:
        rows = np.sort(np.random.default_rng(seed).choice(rows, config.max_points, replace=False))
    mine = rows[run.fabric.global_rank :: run.fabric.world_size]
    if averaged:
        state.ema.exchange()
    try:
        with evaluating(state.model):
            parts = [
                state.model.encoder.scalars(
                    normalise(torch.from_numpy(run.dataset.images(chunk)).to(run.fabric.device))
                )
                for chunk in np.array_split(mine, max(1, len(mine) // 512))
            ]
            state.model.anchors.fit(
                torch.cat(parts), state.model.encoder.tokens, seed=seed, reduce=sum_over_processes(run.fabric)
            )
    finally:
        if averaged:
            state.ema.exchange()


def log(run: Run, state: State, tally: Tally) -> str:
    """Writes a line of the record and returns what the display shows beside the bar."""
    series = finite_series(run, state, tally)
    fresh = len(tally.parts) * run.config.train.batch_size
    line: dict[str, Any] = {
        "images": state.images,
        "step": state.step,
        "seconds": round(state.seconds, 2),
        "images_per_second": round(fresh / (time.monotonic() - tally.start), 1),
        "lr": state.optimizer.param_groups[0]["lr"],
        **{name: sum(values) / len(values) for name, values in series.items()},
        "held_out_loss": held_out_loss(run, state),
        "anchors_alive": state.model.anchors.num_alive.tolist(),
        "per_step": {name: [float(f"{value:.6g}") for value in values] for name, values in series.items()},
    }
    run.record.write(line)
    return f"loss {line['loss']:.4f}  lambda {line['lambda']:.4f}  {line['images_per_second']:.0f} images/s"


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


@torch.no_grad()
def held_out_loss(run: Run, state: State) -> float | None:
    """The loss on images that are never trained on, always the same ones with the same noise; None without any."""
    rows = run.held_out[:NUM_HELD_OUT_IMAGES]
    if len(rows) == 0 or run.quiet:
        return None
    with evaluating(state.model), torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.config.train.seed)
        images = torch.from_numpy(run.dataset.images(rows)).to(run.fabric.device)
        with run.fabric.autocast():
            return float(state.model(normalise(images)).total)


def save(run: Run, state: State) -> float:
    """Writes a checkpoint and the model folder, shows the model to `on_save` and returns the seconds that this looked.

    Comes after `log`, which stops at a loss that is not finite: what is saved is good, and a resumed run writes the
    same lines as an uninterrupted one.
    """
    if run.quiet:
        return 0.0
    checkpoint.save(run.folder, snapshot(state))
    state.ema.exchange()
    try:
        state.model.history = {"images": state.images, "step": state.step, "seconds": round(state.seconds, 1)}
        save_model(state.model, run.folder / "model")
        looking = time.monotonic()
        if run.on_save:
            with evaluating(state.model):
                run.on_save(state.model)
        return time.monotonic() - looking
    finally:
        state.ema.exchange()


def crosses(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return before // every != after // every


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
