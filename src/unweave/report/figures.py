"""Figures from arrays: grids of images with names on the rows and columns, and the unit-by-factor matrix."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unweave.data.cache import default_folder

os.environ.setdefault("MPLCONFIGDIR", str(default_folder() / "matplotlib"))  # read once, by the import

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from unweave.files import write_atomically

DPI = 110
LETTERS_PER_INCH = 15


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
    """Images (r, c, H, W, 3) uint8 as one PNG; the first `gap_after` columns stand apart from the others."""
    num_rows, num_columns, height, width = images.shape[:4]
    side = 0.62  # inches per image
    wide = side * num_columns + 1.5
    lines = textwrap.wrap(caption, int(wide * LETTERS_PER_INCH))
    above = (0.7 if columns else 0.4) + 0.13 * len(lines)  # inches for title, caption and the names of the columns
    figure = plt.figure(figsize=(wide, side * num_rows * height / width + above + 0.15))
    grid = figure.add_gridspec(
        num_rows,
        num_columns + bool(gap_after),
        width_ratios=[1] * gap_after + [0.25] * bool(gap_after) + [1] * (num_columns - gap_after),
        wspace=0.06,
        hspace=0.06,
        left=1.2 / figure.get_figwidth(),
        right=1 - 0.15 / figure.get_figwidth(),
        top=1 - above / figure.get_figheight(),
        bottom=0.15 / figure.get_figheight(),
    )
    for row in range(num_rows):
        for column in range(num_columns):
            place = column + (1 if gap_after and column >= gap_after else 0)
            axes = figure.add_subplot(grid[row, place])
            axes.imshow(images[row, column], interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if row == 0 and columns:
                axes.set_title(columns[column], fontsize=7, pad=3)
            if column == 0 and rows:
                axes.set_ylabel(rows[row], fontsize=7, rotation=0, ha="right", va="center")
    figure.text(0.01, 1 - 0.06 / figure.get_figheight(), title, fontsize=10, weight="bold", va="top")
    figure.text(0.01, 1 - 0.27 / figure.get_figheight(), "\n".join(lines), fontsize=7.5, color="0.35", va="top")
    return save_figure(figure, path)


def importance_figure(results: dict[str, Any], path: Path) -> Path:
    """The unit-by-factor matrix of DCI: how much each unit matters for telling each factor."""
    scores = results["scores"]
    title = (
        f"Which unit tells which factor\nDCI-D {scores['dci_disentanglement']:.2f}, "
        f"FactorVAE {scores['factor_vae']:.2f}; columns sum to 1,\na good code has one dark cell per column"
    )
    return matrix_figure(np.array(scores["importance"]), results["data"]["factor_names"], title, path, highest=1.0)


def matrix_figure(
    matrix: np.ndarray, names: Sequence[str], title: str, path: Path, highest: float | None = None
) -> Path:
    """A matrix (units, factors) as cells with their values; `highest` is the darkest value, the largest if None."""
    figure, axes = plt.subplots(figsize=(1.6 + 0.75 * len(names), 1.5 + 0.33 * len(matrix)), layout="constrained")
    top = highest if highest is not None else max(float(np.nanmax(matrix)), 1e-12)
    shown = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize=8)
    axes.set_yticks(range(len(matrix)), [f"unit {unit}" for unit in range(len(matrix))], fontsize=8)
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
