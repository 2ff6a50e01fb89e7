"""Restarts from different initial weights, of which the best is continued."""

import shutil
from dataclasses import replace

from unweave.errors import require
from unweave.record import Record, read_record
from unweave.training import checkpoint
from unweave.training.loop import resume_or_build, run_loop
from unweave.training.run import Run


def choose_start(run: Run) -> int:
    """Trains `train.restarts` models, each as a run in its own folder, and copies the best of them to `run`.

    They differ in their initial weights; the best has the lowest loss on the held-out images. Training continues from
    it as if it were the only one, except that the seconds of all count. Returns the images that the last one has seen:
    fewer than `train.restart_images` if it was interrupted. Raises `UserError` without held-out images.
    """
    options = run.config.train
    require(
        len(run.held_out) > 0, "train.restarts compares models on images that are held out: set data.held_out above 0"
    )

    # train each start
    folders = [run.folder / "starts" / str(number) for number in range(options.restarts)]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        start = replace(run, folder=folder, record=Record(folder / "metrics.jsonl", silent=run.quiet))
        state = resume_or_build(start, number)
        if state.images < options.restart_images:
            run_loop(state, f"start {number + 1} of {options.restarts}", options.restart_images)
        if state.images < options.restart_images:
            return state.images

    # choose by the loss on held-out images
    run.fabric.barrier()  # the records are complete
    records = [read_record(folder / "metrics.jsonl") for folder in folders]
    losses = [record[-1]["held_out_loss"] for record in records]
    best = losses.index(min(losses))
    listed = ", ".join(f"{loss:.4f}" for loss in losses)
    run.log(f"held-out losses of the starts: {listed}; continuing with start {best + 1}")

    # make its record and checkpoint those of the run
    chosen = checkpoint.load(folders[best], run.log)
    assert chosen is not None  # it was just written or read
    if not run.quiet:
        run.record.rewind(0)
        for line in records[best]:
            run.record.write(line)
        seconds = sum(record[-1]["seconds"] for record in records)
        checkpoint.save(run.folder, chosen._replace(values={**chosen.values, "seconds": seconds}))
        for folder in folders:
            shutil.rmtree(folder / "state")
    run.fabric.barrier()  # the checkpoint is written
    return options.restart_images
