"""Training: set up, train, save. The same command again resumes.

    unweave train rooms-cpu --run runs/first                                   # one process
    unweave train vq-rooms --run runs/vq                                       # the first stage, see `stages`
    unweave train dyga-rooms --run runs/big --train.devices 8                  # eight GPUs of one machine
    torchrun --nproc-per-node 8 -m unweave train dyga-rooms --run runs/big --train.devices 8

Progress is counted in images, which does not depend on the batch size and the number of processes.
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
    """Trains the run in `folder`, or resumes it; returns the folder of the model.

    Images come from the data set of the options, or from `dataset` if given. `on_save` is called with the model each
    time it is saved, averaged and in eval mode; its time does not count as training time. A resumed run first calls it
    for the model as it is, because the last call may have been interrupted.
    Raises `UserError` for a folder of another run, a folder that cannot be written to, or a loss that is not finite;
    after Ctrl-C it saves and raises KeyboardInterrupt with a text that says how to resume.
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

    # open the data and hold some of it out
    trained_on = config.data if dataset is None else None
    if dataset is None:
        dataset = open_dataset(config.data, config.model.image_size, log)
    rows, held_out = split_rows(len(dataset), config.data.held_out, config.train.seed)
    record = Record(folder / "metrics.jsonl", silent=not fabric.is_global_zero)
    run = Run(fabric, config, folder, dataset, trained_on, rows, held_out, record, log)

    # choose one of several restarts, once
    options = config.train
    if options.restarts > 1 and not checkpoint.newest(folder):
        reached = choose_start(run)
        if reached < options.restart_images:
            return reached

    # train, or resume
    state = resume_or_build(run)
    if state.images:
        show(state, on_save)
    if state.images < options.images:
        run_loop(state, "training", options.images, on_save)
    return state.images


def _silence(_: str) -> None:
    pass
