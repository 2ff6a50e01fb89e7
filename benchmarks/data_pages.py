"""Writes docs/data/NAME.md from the table of data sets: `python benchmarks/data_pages.py`, with `--sheets` also the
pictures of published frames that some of them show."""

import argparse
import shlex
from pathlib import Path

import numpy as np

from unweave.commands.data import facts
from unweave.config import DataConfig
from unweave.data import DATASETS
from unweave.data.catalogue import CATALOGUE, Entry, find
from unweave.data.published import MPI3D
from unweave.report.figures import image_grid

ROOT = Path(__file__).parents[1]
PAGES, IMAGES, FRAMES = ROOT / "docs" / "data", ROOT / "docs" / "images", ROOT / "tests" / "fixtures"
COLUMNS = 10
PICTURES = {  # a file of docs/images, and what it shows
    "rooms": ("rooms.png", "Thirty images at random, then each factor over its values."),
    "dsprites": ("dsprites.png", "As drawn here: thirty images at random, then each factor over its values."),
    "shapes3d": ("shapes3d.png", "Frames of the publishers' animation, Apache-2.0; its colours are those of a GIF."),
    "mpi3d_toy": ("mpi3d_toy.png", "Frames of the publishers' animation, CC BY 4.0, Gondal et al. 2019; cut out."),
    "mpi3d_real": ("mpi3d_real.png", "Frames of the publishers' animation, CC BY 4.0, Gondal et al. 2019; cut out."),
}


def page(name: str) -> str:
    """The page of a data set."""
    entry = find(name)
    lines = [f"# {entry.title}", "", entry.about, ""]
    if name in PICTURES:
        file, what = PICTURES[name]
        lines += [f"![{what}](../images/{file})", "", what, ""]
    lines += [f"    {line}" for line in _commands(name)]
    lines += ["", "| | |", "| --- | --- |"]
    lines += [f"| {heading} | {text} |" for heading, text in facts(name) if heading not in ("use", "get")]
    if entry.by_hand:
        lines += ["", f"Its site wants a person: {entry.by_hand}. The first command then compares what is there."]
    return "\n".join(lines) + "\n"


def _commands(name: str) -> list[str]:
    entry = find(name)
    path = name if name in DATASETS else shlex.split(entry.use.partition("--data.folder ")[2])[0]
    get = [f"unweave data get {name}"] if entry.files else []
    return [*get, f"unweave data check {path} --size 32{_room(entry)} --sheet sheet.png", entry.use]


def _room(entry: Entry) -> str:
    """The option that leaves room on the disk for the images of a set at 32 px, where the default does not."""
    gigabytes = np.ceil(entry.num_images * 32 * 32 * 3 / 1e9)
    return f" --cache-gb {gigabytes:.0f}" if gigabytes > DataConfig().cache_gb else ""


def draw_sheets() -> None:
    """The pictures of published frames."""
    frames = np.load(FRAMES / "shapes3d_frames.npz", allow_pickle=False)["gif_frames"][: 5 * COLUMNS]
    caption = "An animation of its publishers, frame by frame: angle, shape and size, then the hues."
    grid = frames.reshape(5, COLUMNS, *frames.shape[1:])
    image_grid(grid, IMAGES / "shapes3d.png", "Shapes3D, published frames", caption)
    for kind in ("toy", "real"):
        tiles = np.load(FRAMES / "mpi3d_frames.npz", allow_pickle=False)[kind][::3]  # (frame, factor, H, W, 3)
        caption = "In each row one factor varies. Gondal et al. 2019, CC BY 4.0, cut out of the publishers' animation."
        image_grid(
            tiles.swapaxes(0, 1),
            IMAGES / f"mpi3d_{kind}.png",
            f"MPI3D {kind}, published frames",
            caption,
            rows=MPI3D,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheets", action="store_true")
    if parser.parse_args().sheets:
        draw_sheets()
    PAGES.mkdir(exist_ok=True)
    for name in CATALOGUE:
        (PAGES / f"{name}.md").write_text(page(name))


if __name__ == "__main__":
    main()
