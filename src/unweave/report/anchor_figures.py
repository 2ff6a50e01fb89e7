"""Figures of anchors: histograms of the units' scalars, and maps of a unit's tokens (Jun et al. 2025, figure 1).

n images, N units, K anchors of a unit.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw, ImageFont
from scipy.special import ndtr

from unweave.errors import UserError
from unweave.report.figures import GAP, SIDE, Sheet, label_width

HISTOGRAM = 2.4  # inches
PANEL, BESIDE, PANELS_IN_A_ROW = 1.9, 0.6, 4
MOST_IN_A_LEGEND = 12
NUM_BINS = 60
SCATTER = 0.012  # jitter of points, as a fraction of a map's width
MAP_SIZE, MAP_MARGIN = (560, 400), 24  # of a map on a screen, in pixels
DOT, FINER = 3, 2  # radius of its dots; factor by which it is drawn larger, then averaged
GREY = (0.4, 0.4, 0.4)

Colour = tuple[float, float, float]

PALETTE: tuple[Colour, ...] = tuple(
    to_rgb(shade)
    for name in ("tab10", "tab20b")
    for shade in matplotlib.colormaps[name].colors  # pyright: ignore[reportAttributeAccessIssue]
)


class AnchoredUnit(NamedTuple):
    """A unit's scalars (n,), the anchor (n,) of each, its Gaussians, and pictures of its anchors."""

    label: str
    scalars: np.ndarray
    anchors: np.ndarray
    gaussians: np.ndarray | None
    """Weight, mean, standard deviation (3, K); None if they are not Gaussians of the scalar."""
    shown: Sequence[int]
    """The anchors that have a picture."""
    pictures: np.ndarray
    """(shown, H, W, 3)."""


class Colouring(NamedTuple):
    """A colouring of the points of a map: its name, and the value of each point (n,)."""

    name: str
    values: np.ndarray
    ordered: bool = True
    """Whether the values are shown by a continuous colour map; otherwise they are anchors."""


class Row(NamedTuple):
    """A row of pictures (m, H, W, 3) below a map, with a name and a colour."""

    name: str
    pictures: np.ndarray
    colour: Colour = GREY


def dispersion(scalars: np.ndarray, anchors: np.ndarray) -> float:
    """The standard deviation of scalars (n,) around the means of their anchors (n,), over that of all scalars, 0 to 1.

    Near 0, each anchor is a value of the factor; 1: anchors have no information. A constant unit has 0.
    """
    centred = scalars.astype(np.float64)
    for anchor in np.unique(anchors):
        centred[anchors == anchor] -= centred[anchors == anchor].mean()
    return float(centred.std() / scalars.std()) if scalars.std() > 0 else 0.0


def anchors_figure(units: Sequence[AnchoredUnit], path: Path, title: str, caption: str) -> Path:
    """Draws a row per unit: the histogram of its scalar, coloured by anchor, and the picture of each anchor."""
    left = label_width([unit.label for unit in units])
    most = max(len(unit.shown) for unit in units)
    wide = left + HISTOGRAM + 0.15 + most * (SIDE + GAP) + 0.1
    tall = SIDE + 0.12
    sheet = Sheet(wide, tall * len(units) + 0.15, title, caption)
    for row, unit in enumerate(units):
        axes = sheet.axes(left, tall * row, HISTOGRAM, SIDE)
        _histogram(axes, unit)
        sheet.text(left - 0.06, tall * row + SIDE / 2, unit.label, ha="right", va="center")
        for column, (anchor, picture) in enumerate(zip(unit.shown, unit.pictures)):
            sheet.image(left + HISTOGRAM + 0.15 + column * (SIDE + GAP), tall * row, picture, colour(anchor))
    return sheet.save(path)


def _histogram(axes: Axes, unit: AnchoredUnit) -> None:
    """The histogram of the scalars, coloured by anchor, with the counts that each Gaussian predicts."""
    # scalars
    edges = np.histogram_bin_edges(unit.scalars, NUM_BINS)
    present = np.unique(unit.anchors)
    parts = [unit.scalars[unit.anchors == anchor] for anchor in present]
    shades = [colour(anchor) for anchor in present]
    axes.hist(parts, edges.tolist(), histtype="stepfilled", stacked=True, color=shades)
    tallest = np.histogram(unit.scalars, edges)[0].max()

    # Gaussians
    if unit.gaussians is not None:
        x, half = np.linspace(edges[0], edges[-1], 400), (edges[1] - edges[0]) / 2
        for weight, mean, deviation in unit.gaussians[:, unit.gaussians[0] > 0].T:
            inside = ndtr((x + half - mean) / deviation) - ndtr((x - half - mean) / deviation)
            counts = len(unit.scalars) * weight * inside
            axes.plot(x, counts, color="black", linewidth=0.6)
            tallest = max(tallest, counts.max())

    axes.set(yticks=[], xlim=(edges[0], edges[-1]), ylim=(0, 1.08 * tallest))
    axes.tick_params(labelsize=5, length=2, pad=1)
    axes.spines[["top", "left", "right"]].set_visible(False)


def map_figure(
    points: np.ndarray,
    colourings: Sequence[Colouring],
    rows: Sequence[Row],
    path: Path,
    title: str,
    caption: str,
) -> Path:
    """Draws tokens as points (n, 2), in a panel per colouring, and rows of pictures below."""
    # the layout
    below = -(-len(colourings) // PANELS_IN_A_ROW)
    columns = -(-len(colourings) // below)
    left = label_width([row.name for row in rows])
    wide = max(0.15 + columns * (PANEL + BESIDE), left + len(rows[0].pictures) * (SIDE + GAP) + 0.1)
    panels = below * (PANEL + 0.35)
    sheet = Sheet(wide, panels + len(rows) * (SIDE + 0.08) + 0.15, title, caption)

    # a panel per colouring
    for index, colouring in enumerate(colourings):
        row, column = divmod(index, columns)
        axes = sheet.axes(0.15 + column * (PANEL + BESIDE), 0.2 + row * (PANEL + 0.35), PANEL, PANEL)
        axes.set_title(f"by {colouring.name.replace('_', ' ')}", fontsize=8, pad=3)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="0.85")
        _scatter(axes, points, colouring)

    # the pictures
    for number, row in enumerate(rows):
        top = panels + 0.1 + number * (SIDE + 0.08)
        sheet.text(left - 0.06, top + SIDE / 2, row.name, ha="right", va="center", color=row.colour)
        for column, picture in enumerate(row.pictures):
            sheet.image(left + column * (SIDE + GAP), top, picture, row.colour)
    return sheet.save(path)


def _scatter(axes: Axes, points: np.ndarray, colouring: Colouring) -> None:
    """Points in the colours of their values, with a legend for few values or a colour bar for many."""
    values, index = np.unique(colouring.values, return_inverse=True)
    if colouring.ordered:
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, len(values)))
    else:
        colours = np.array([colour(int(value)) for value in values])
    axes.scatter(*points.T, c=colours[index], s=5, linewidths=0)
    beside = axes.inset_axes((1.05, 0.1, 0.05, 0.8))
    if len(values) > MOST_IN_A_LEGEND:
        ramp = ScalarMappable(Normalize(values[0], values[-1]), "viridis")
        axes.get_figure(root=True).colorbar(ramp, cax=beside)  # pyright: ignore[reportOptionalMemberAccess]
        beside.tick_params(labelsize=6, length=2, pad=2)
        return
    beside.set_axis_off()
    dots = [Line2D([], [], marker="o", linestyle="", markersize=4, color=shade) for shade in colours]
    names = [f"{value:g}" for value in values]
    beside.legend(
        dots, names, fontsize=6, loc="center left", bbox_to_anchor=(-0.5, 0.5), frameon=False, handletextpad=0
    )


def colour(anchor: int) -> Colour:
    """The colour of an anchor, the same in every figure."""
    return PALETTE[anchor % len(PALETTE)]


def plane(tokens: np.ndarray, method: Literal["pca", "pacmap"], seed: int) -> tuple[np.ndarray, str]:
    """Tokens (n, D) in two dimensions (n, 2), and a text about these.

    `pca`: the first two principal components; `pacmap`: PaCMAP (Wang et al. 2021), as in the paper's figure. Raises
    `UserError` if PaCMAP is not installed.
    """
    if method == "pca":
        points, kept = principal_plane(tokens)
        return _apart(points, seed), f"along their first two principal components ({kept:.0%} of their variance)"
    try:
        from pacmap import PaCMAP
    except ImportError:
        raise UserError("PaCMAP is not installed: pip install 'unweave[maps]', or --method pca") from None
    logging.getLogger("pacmap").setLevel(logging.ERROR)  # it warns that a seed makes it slower
    points = PaCMAP(n_components=2, random_state=seed).fit_transform(tokens)
    return _apart(np.asarray(points), seed), "placed by PaCMAP, which keeps neighbours together"


def _apart(points: np.ndarray, seed: int) -> np.ndarray:
    """Points with a little jitter, because points on a curve would hide each other."""
    reach = SCATTER * np.ptp(points, axis=0).max()
    return points + reach * np.random.default_rng(seed).standard_normal(points.shape)


class DotMap(NamedTuple):
    """A picture (H, W, 3) uint8 of tokens as dots, their positions (n, 2) in pixels (x, y), and their anchors (n,)."""

    picture: np.ndarray
    pixels: np.ndarray
    anchors: np.ndarray

    def nearest(self, x: float, y: float) -> int:
        """The anchor of the dot nearest to a pixel."""
        return int(self.anchors[np.square(self.pixels - (x, y)).sum(axis=1).argmin()])


def dot_map(points: np.ndarray, anchors: np.ndarray) -> DotMap:
    """Points (n, 2) as dots in the colours of their anchors (n,), with the numbers of anchors at their medians."""
    # positions in pixels
    low, reach = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-12)
    space = np.array(MAP_SIZE) - 2 * MAP_MARGIN
    pixels = MAP_MARGIN + (points - low) / reach * space
    pixels[:, 1] = MAP_SIZE[1] - pixels[:, 1]

    # dots, then numbers
    picture = Image.new("RGB", (MAP_SIZE[0] * FINER, MAP_SIZE[1] * FINER), "white")
    brush, radius = ImageDraw.Draw(picture), DOT * FINER
    for (x, y), anchor in zip(pixels * FINER, anchors.tolist()):
        shade = tuple(round(255 * part) for part in colour(anchor))
        brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=shade)
    for anchor in np.unique(anchors).tolist():
        x, y = np.median(pixels[anchors == anchor], axis=0) * FINER
        font = ImageFont.load_default(size=16 * FINER)
        brush.text((x, y), str(anchor), "black", font, anchor="mm", stroke_width=3 * FINER, stroke_fill="white")
    return DotMap(np.asarray(picture.resize(MAP_SIZE, Image.Resampling.BOX)), pixels, anchors)


def principal_plane(tokens: np.ndarray) -> tuple[np.ndarray, float]:
    """The first two principal components (n, 2) of tokens (n, D), and the fraction of variance that they explain."""
    centred = tokens.astype(np.float64) - tokens.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    leading = directions[:, ::-1][:, :2]
    signs = np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(leading.shape[1])])
    points = np.pad(centred @ (leading * signs), ((0, 0), (0, 2 - leading.shape[1])))
    total = variances.sum()
    return points, float(variances[-2:].sum() / total) if total > 0 else 1.0
