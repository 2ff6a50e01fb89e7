"""How well a small first stage redraws rooms that it never saw, with a critic and without.

    python benchmarks/vq.py --folder runs/vq                       # an hour on two cores
    python benchmarks/vq.py --folder runs/try --images 640         # a short try: writes nothing here
    python benchmarks/vq.py --page                                 # the table of docs/first_stage.md

Trains the preset `vq-rooms-cpu` twice, into FOLDER/critic and FOLDER/no-critic; a run that was stopped goes on, a
finished one is only read. Writes benchmarks/results/vq.json: what the record of each run says of 1,000 held-out images.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import record
from unweave.config import VQRunConfig
from unweave.presets import FIRST_STAGES
from unweave.record import log, read_record
from unweave.report.first_stage import draw_reconstructions
from unweave.train import train

PRESET = "vq-rooms-cpu"
GOALS = {"psnr_db": 26.0, "codes_used": 256, "minutes": 45}
SHOWN = ("held_out_loss", "psnr", "ssim", "codes_used", "perplexity")


def variations(images: int | None) -> dict[str, VQRunConfig]:
    """The preset, and the preset without its critic."""
    config = FIRST_STAGES[PRESET].config
    if images:
        few = replace(config.train, images=images, log_every_images=images // 2, save_every_images=images // 2)
        config = replace(config, train=few)
    without = replace(config.model, critic=replace(config.model.critic, weight=0.0))
    return {"critic": config, "no-critic": replace(config, model=without)}


def measure(config: VQRunConfig, folder: Path) -> dict[str, Any]:
    """Trains what is left to train; the numbers of the last line of the record, and how they came about."""
    train(config, folder)
    log(f"look at {draw_reconstructions(config, folder)}")
    lines = read_record(folder / "metrics.jsonl")
    last = lines[-1]
    return {
        "images": last["images"],
        "minutes": round(last["seconds"] / 60, 1),
        "images_per_second": round(last["images"] / last["seconds"], 1),
        **{name: last[name] for name in SHOWN},
        "curve": [
            {"minutes": line["seconds"] / 60, **{name: line[name] for name in ("images", *SHOWN)}} for line in lines
        ],
    }


def write_page() -> Path:
    """Puts what was measured into docs/first_stage.md."""
    found = json.loads((record.RESULTS / "vq.json").read_text())
    lines = ["| | PSNR | SSIM | codes in use | perplexity | minutes |", "| --- | --- | --- | --- | --- | --- |"]
    for name in ("critic", "no-critic"):
        run = found[name]
        cells = f"{run['psnr']:.1f} dB", f"{run['ssim']:.3f}", str(run["codes_used"]), f"{run['perplexity']:.0f}"
        lines.append(f"| {name.replace('no-', 'no ')} | {' | '.join(cells)} | {run['minutes']:.0f} |")
    return record.fill("first_stage.md", {"vq": "\n".join(lines)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/vq"), help="where the two runs are, or will be")
    parser.add_argument("--images", type=int, help="images of a short try, which is printed only")
    parser.add_argument("--page", action="store_true", help="only write the table of docs/first_stage.md")
    arguments = parser.parse_args()
    if arguments.page:
        print(write_page())
        return
    found = {name: measure(config, arguments.folder / name) for name, config in variations(arguments.images).items()}
    numbers = {"preset": PRESET, "torch_threads": torch.get_num_threads(), "goals": GOALS, **found}
    if arguments.images:
        print(json.dumps(numbers, indent=2))
    else:
        print(record.write("vq", numbers))


if __name__ == "__main__":
    main()
