"""Training: set up, train, save. The same command again resumes.

    unweave train rooms-cpu --run runs/first                                   # one process
    unweave train vq-rooms --run runs/vq                                       # the first stage, see `stages`
    unweave train dyga-rooms --run runs/big --train.devices 8                  # eight GPUs of one machine
    torchrun --nproc-per-node 8 -m unweave train dyga-rooms --run runs/big --train.devices 8

Progress is counted in images, so that batch size and number of processes do not change what a number means.
"""

from pathlib import Path

from unweave.config import RunConfig, VQRunConfig
from unweave.data import open_dataset
from unweave.data.base import ImageSet
from unweave.record import Log, Record, log
from unweave.training import checkpoint
from unweave.training.batches import split_rows
from unweave.training.loop import OnSave, resume_or_build, run_loop, show
from unweave.training.restarts import choose_start
from unweave.training.run import Run
from unweave.training.runtime import Fabric, launch


def train(
    config: RunConfig | VQRunConfig,
    folder: Path,
    log: Log = log,
    dataset: ImageSet | None = None,
    on_save: OnSave | None = None,
) -> Path:
    """Trains, or resumes, the run in `folder`; returns the folder of the model.

    Images come from the data set that the options name, or from `dataset` where one is given. `on_save` is shown the
    model as it is saved, averaged and in eval mode; its time does not count as training. A resumed run begins by
    showing where it stands, as whoever looked may have been cut off too.
    Raises `UserError` for a folder of another run, a disk that cannot be written, or a loss that is not finite, and
    KeyboardInterrupt, with all saved and the way to go on as its text, after Ctrl-C.
    """
    config = checkpoint.open_run(folder, config)
    stopped_at = launch(config.train, _main, config, folder, log, dataset, on_save)
    if stopped_at < config.train.images:
        raise KeyboardInterrupt(f"saved in {folder}: the same command again resumes from {stopped_at:,} images")
    return folder / "model"


def _main(
    fabric: Fabric,
    config: RunConfig | VQRunConfig,
    folder: Path,
    log: Log,
    dataset: ImageSet | None,
    on_save: OnSave | None,
) -> int:
    """One process's part of a run; returns the images seen."""
    if not fabric.is_global_zero:
        log = _silence

    # Open the data and hold some of it out.
    trained_on = config.data if dataset is None else None
    if dataset is None:
        dataset = open_dataset(config.data, config.model.image_size, log)
    rows, held_out = split_rows(len(dataset), config.data.held_out, config.train.seed)
    record = Record(folder / "metrics.jsonl", silent=not fabric.is_global_zero)
    run = Run(fabric, config, folder, dataset, trained_on, rows, held_out, record, log)

    # Choose among several starts, once.
    options = config.train
    if options.restarts > 1 and not checkpoint.newest(folder):
        reached = choose_start(run)
        if reached < options.restart_images:
            return reached

    # Train from where the run stands.
    state = resume_or_build(run)
    if state.images:
        show(state, on_save)
    if state.images < options.images:
        run_loop(state, "training", options.images, on_save)
    return state.images


def _silence(_: str) -> None:
    pass
