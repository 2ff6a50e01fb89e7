"""Writes docs/data/NAME.md and the list in docs/data.md from the table of data sets: `python benchmarks/data_pages.py`,
with `--sheets` also the pictures of published frames that some pages show."""

import argparse
import re
import shlex
from pathlib import Path

import numpy as np

from unweave.commands.data import facts
from unweave.config import DataConfig
from unweave.data.sets import SETS
from unweave.data.sets.card import Card
from unweave.data.sets.mpi3d import FACTORS
from unweave.report.figures import image_grid

ROOT = Path(__file__).parents[1]
DOCS, FRAMES = ROOT / "docs", ROOT / "tests" / "fixtures"
PAGES, IMAGES, INDEX = DOCS / "data", DOCS / "images", DOCS / "data.md"
TABLE = re.compile(r"(?<=<!-- written by benchmarks/data_pages.py -->\n\n).*?(?=\n\n)", re.DOTALL)
COLUMNS = 10


def page(card: Card) -> str:
    """The page of a data set."""
    lines = [f"# {card.title}", "", card.about, ""]
    if card.picture:
        lines += [f"![{card.picture}](../images/{card.name}.png)", "", card.picture, ""]
    lines += [f"    {line}" for line in _commands(card)]
    lines += ["", "| | |", "| --- | --- |"]
    lines += [f"| {heading} | {text} |" for heading, text in facts(card.name) if heading not in ("use", "get")]
    if card.by_hand:
        lines += ["", f"It needs a manual download: {card.by_hand}. The first command then checks the files."]
    return "\n".join(lines) + "\n"


def index(text: str) -> str:
    """The page of all data sets, `text`, with its table as it should be."""
    lines = ["| set | what it is | images | how to get it |", "| --- | --- | --- | --- |"]
    for name, card in SETS.items():
        ways = [*(["generated"] if card.draw else []), *([f"`data get {name}`"] if card.files else [])]
        way = "manual download" if card.by_hand else " or ".join(ways)
        lines.append(f"| [{card.title}](data/{name}.md) | {card.about} | {card.num_images:,} | {way} |")
    return TABLE.sub(lambda _: "\n".join(lines), text)


def _commands(card: Card) -> list[str]:
    path = card.name if card.draw else shlex.split(card.use.partition("--data.folder ")[2])[0]
    get = [f"unweave data get {card.name}"] if card.files else []
    return [*get, f"unweave data check {path} --size 32{_room(card)} --sheet sheet.png", card.use]


def _room(card: Card) -> str:
    """The option that leaves room on the disk for the images of a set at 32 px, where the default does not."""
    gigabytes = np.ceil(card.num_images * 32 * 32 * 3 / 1e9)
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
            rows=FACTORS,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheets", action="store_true")
    if parser.parse_args().sheets:
        draw_sheets()
    PAGES.mkdir(exist_ok=True)
    for name, card in SETS.items():
        (PAGES / f"{name}.md").write_text(page(card))
    INDEX.write_text(index(INDEX.read_text()))


if __name__ == "__main__":
    main()
