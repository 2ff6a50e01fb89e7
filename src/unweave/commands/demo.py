"""`unweave demo`: trains a model on this machine, scores it, and draws what its units do."""

import time
from dataclasses import replace
from pathlib import Path

from unweave.commands.evaluate import evaluate_run
from unweave.config import Sampling
from unweave.presets import PRESETS
from unweave.record import clock, log
from unweave.report.page import write_report
from unweave.report.pictures import Explorer
from unweave.training.main import train

PRESET = "rooms-cpu"


def demo(run: Path, images: int | None = None) -> None:
    """Trains the preset into `run`, scores it, and writes the pictures and the page about it into `run/report`."""
    start = time.monotonic()
    config = PRESETS[PRESET].config
    if images is not None:
        config = replace(config, train=replace(config.train, images=images))
    log(f"{PRESET}: {PRESETS[PRESET].about}")
    log(f"training on {config.train.images:,} images; the run is in {run}, Ctrl-C saves and the same command resumes")
    train(config, run)
    log("scoring the units, beside those of an untrained extractor")
    evaluate_run(str(run), run)
    explorer = Explorer.open(str(run), "", "cpu", Sampling())
    folder = run / "report"
    pictures = [explorer.reconstructions(folder), explorer.swaps(folder), explorer.traversals(folder)]
    page = write_report({str(run): explorer}, folder / "report.html")
    for path in [folder / "units.png", *(picture.path for picture in pictures), page]:
        log(f"look at {path}")
    log(f"done in {clock(time.monotonic() - start)}")
