"""Figures of arrays: grids of images with labelled rows and columns, and the unit-by-factor matrix."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFont

from unweave.files import write_atomically

DPI = 110
LETTERS_PER_INCH = 17
SIDE, GAP = 0.62, 0.04  # of images, in inches
TILE, MARGIN, FRAME_MS = 96, 8, 120  # of moving images, in pixels and milliseconds
MOST_SHARES = 3.0  # attention at the end of the colour map, in equal shares


class Sheet:
    """A page with a title and a caption; positions on it are in inches from the top left, below the caption."""

    def __init__(self, width: float, height: float, title: str, caption: str) -> None:
        lines = textwrap.wrap(caption, max(20, int(width * LETTERS_PER_INCH)))
        self.head = 0.4 + 0.13 * len(lines) if title else 0.05
        self.width, self.height = width, height + self.head
        self.figure = plt.figure(figsize=(self.width, self.height))
        self.paper = self.figure.add_axes((0, 0, 1, 1))
        self.paper.set(xlim=(0, self.width), ylim=(height, -self.head), aspect="auto")
        self.paper.set_axis_off()
        self.text(0.1, 0.06 - self.head, title, fontsize=10, weight="bold")
        self.text(0.1, 0.27 - self.head, "\n".join(lines), fontsize=7.5, color="0.35")

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        """Text with its upper left corner at the position, unless its style has another alignment."""
        self.paper.text(left, top, text, **{"va": "top", "fontsize": 7, **style})

    def image(self, left: float, top: float, image: np.ndarray, frame: Any = None, **style: Any) -> None:
        """An image (H, W) or (H, W, 3), `SIDE` wide, with its upper left corner at the position, framed in a colour."""
        tall = SIDE * image.shape[0] / image.shape[1]
        extent = (left, left + SIDE, top + tall, top)
        self.paper.imshow(image, extent=extent, **{"interpolation": "nearest", "aspect": "auto", **style})
        if frame is not None:
            self.paper.add_patch(Rectangle((left, top), SIDE, tall, fill=False, color=frame, linewidth=1.5))
        self.paper.set(xlim=(0, self.width), ylim=(self.height - self.head, -self.head))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """New axes with their upper left corner at the position."""
        bottom = self.height - self.head - top - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))

    def save(self, path: Path) -> Path:
        """Writes a PNG atomically."""
        return save_figure(self.figure, path)


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a PNG atomically and closes the figure."""
    write_atomically(path, lambda fresh: figure.savefig(fresh, format="png", dpi=DPI, facecolor="white"))
    plt.close(figure)
    return path


def image_grid(
    images: np.ndarray,
    path: Path,
    title: str,
    caption: str,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    gap_after: int = 0,
) -> Path:
    """Images (r, c, H, W, 3) uint8 as one PNG; a gap separates the first `gap_after` columns from the others."""
    # the layout
    num_rows, num_columns, height, width = images.shape[:4]
    left = label_width(rows)
    tall = SIDE * height / width + GAP
    above = _head(columns)
    wide = left + (SIDE + GAP) * num_columns + 0.2 * bool(gap_after) + 0.1
    sheet = Sheet(max(wide, 4.0), above + tall * num_rows + 0.1, title, caption)

    # the images with their labels
    for column in range(num_columns):
        across = left + (SIDE + GAP) * column + 0.2 * bool(gap_after and column >= gap_after)
        if columns:
            sheet.text(across + SIDE / 2, above - GAP, columns[column], ha="center", va="bottom")
        for row in range(num_rows):
            sheet.image(across, above + tall * row, images[row, column])
    for row, label in enumerate(rows):
        sheet.text(left - 0.06, above + tall * row + (tall - GAP) / 2, label, ha="right", va="center")
    return sheet.save(path)


def attention_grid(
    images: np.ndarray, maps: np.ndarray, path: Path, title: str, caption: str, columns: Sequence[str]
) -> Path:
    """Images (n, H, W, 3) and, beside each, maps (n, N, h, w) of weights with sum 1 over N, on the image in grey."""
    left = 0.1
    tall = SIDE * images.shape[1] / images.shape[2] + GAP
    above = _head(columns)
    sheet = Sheet(left + (SIDE + GAP) * (1 + maps.shape[1]) + 0.2, above + tall * len(images) + 0.1, title, caption)
    grey = 0.5 + images.mean(axis=3) / 510
    for unit, label in enumerate(columns):
        across = left + 0.1 + (SIDE + GAP) * (1 + unit)
        sheet.text(across + SIDE / 2, above - GAP, label, ha="center", va="bottom")
        for row in range(len(images)):
            sheet.image(across, above + tall * row, grey[row], cmap="gray", vmin=0, vmax=1)
            heat = np.clip(maps[row, unit] * maps.shape[1] / MOST_SHARES, 0, 1)
            sheet.image(across, above + tall * row, heat, cmap="Reds", vmin=0, vmax=1, alpha=heat)
    for row, image in enumerate(images):
        sheet.image(left, above + tall * row, image)
    return sheet.save(path)


def moving_grid(frames: np.ndarray, path: Path, labels: Sequence[str]) -> Path:
    """Images (r, c, H, W, 3) as a GIF that shows all rows at once, column by column there and back; labels above."""
    # the layout
    num, length, height, width = frames.shape[:4]
    scale, across = max(1, TILE // width), math.ceil(math.sqrt(2 * num))
    heads = [wrapped(label, TILE // 6) for label in labels]
    head = 13 * max(text.count("\n") + 1 for text in heads) + 3
    step = np.array([scale * width + MARGIN, head + scale * height + MARGIN])
    corners = [MARGIN + step * (index % across, index // across) for index in range(num)]

    # a sheet per frame
    sheets = []
    for column in [*range(length), *range(length - 2, 0, -1)]:
        sheet = Image.new("RGB", tuple((step * (min(num, across), -(-num // across)) + MARGIN).tolist()), "white")
        pen = ImageDraw.Draw(sheet)
        for (left, top), text, row in zip(corners, heads, frames):
            corner = int(left), int(top) + head
            pen.multiline_text((left, top + head - 3), text, "black", ImageFont.load_default(11), "ld", spacing=2)
            picture = Image.fromarray(row[column]).resize((scale * width, scale * height), Image.Resampling.NEAREST)
            sheet.paste(picture, corner)
        sheets.append(sheet.quantize(dither=Image.Dither.NONE))

    # the animation
    options = {"format": "GIF", "save_all": True, "append_images": sheets[1:], "duration": FRAME_MS, "loop": 0}
    write_atomically(path, lambda fresh: sheets[0].save(fresh, **options))
    return path


def wrapped(label: str, letters: int) -> str:
    """A label in lines of at most `letters` letters."""
    lines = label.replace("_", " ").split("\n")
    return "\n".join(textwrap.fill(line, letters) for line in lines)


def _head(columns: Sequence[str]) -> float:
    """Height of the column labels in inches."""
    return 0.14 * max((label.count("\n") + 1 for label in columns), default=0)


def label_width(labels: Sequence[str]) -> float:
    """Width of the row labels in inches."""
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    return 0.15 + 0.06 * longest


def importance_figure(results: dict[str, Any], rows: Sequence[str], path: Path) -> Path:
    """The unit-by-factor matrix of DCI: the importance of each unit for predicting each factor."""
    scores = results["scores"]
    title = (
        f"Importance of units for factors\nDCI-D {scores['dci_disentanglement']:.2f}, "
        f"FactorVAE {scores['factor_vae']:.2f}; columns sum to 1,\na good code has one dark cell per column"
    )
    matrix = np.array(scores["importance"])
    return matrix_figure(matrix, results["data"]["factor_names"], title, path, highest=1.0, rows=rows)


def matrix_figure(
    matrix: np.ndarray,
    names: Sequence[str],
    title: str,
    path: Path,
    highest: float | None = None,
    rows: Sequence[str] | None = None,
) -> Path:
    """A matrix (units, factors) as cells with their values; `highest` is the darkest value, by default the largest.

    `rows` are the labels of the units, by default `unit 0`, `unit 1`, ...
    """
    # cells and labels
    labels = [f"unit {unit}" for unit in range(len(matrix))] if rows is None else rows
    figure, axes = plt.subplots(figsize=(1.6 + 0.75 * len(names), 1.5 + 0.33 * len(matrix)), layout="constrained")
    top = highest if highest is not None else max(float(np.nanmax(matrix)), 1e-12)
    shown = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize=8)
    axes.set_yticks(range(len(matrix)), [label.replace("\n", ": ") for label in labels], fontsize=8)

    # values
    for unit, factor in np.argwhere(matrix >= 0.05 * top):
        value = matrix[unit, factor]
        colour = "white" if value > 0.6 * top else "black"
        axes.text(
            factor,
            unit,
            f"{value:.2f}" if top < 100 else f"{value:.0f}",
            ha="center",
            va="center",
            fontsize=7,
            color=colour,
        )
    axes.set_title(title, fontsize=8, loc="left")
    figure.colorbar(shown, ax=axes, shrink=0.6)
    return save_figure(figure, path)
