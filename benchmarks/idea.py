"""Draws docs/images/idea.png, which explains the idea, with the bundled model: `python benchmarks/idea.py`."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import ConnectionPatch

import record
import unweave
from unweave.data import Fixed, Rooms

NAME = "rooms-cpu"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "idea.png"
SOURCE, TARGET = (1, 7, 2, 0), (5, 2, 6, 3)  # wall hue, object hue, scale, shape
PLAIN, MARKED = "#b8c4d0", "#d1495b"


def picture(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def bars(axes: Axes, values: np.ndarray, marked: list[int], title: str) -> None:
    colours = [MARKED if unit in marked else PLAIN for unit in range(len(values))]
    axes.barh(range(len(values)), values, color=colours, height=0.75)
    axes.axvline(0, color="0.5", linewidth=0.6)
    axes.set(xlim=(-2.6, 2.6), xticks=[], yticks=range(len(values)))
    axes.tick_params(length=0, labelsize=6)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9)


def arrow(start: Axes, end: Axes, start_at: tuple[float, float], end_at: tuple[float, float]) -> None:
    start.figure.add_artist(
        ConnectionPatch(
            start_at, end_at, "axes fraction", "axes fraction", axesA=start, axesB=end, arrowstyle="-|>", color="0.35"
        )
    )


def main() -> None:
    model = unweave.load(NAME)
    assert model.trained_on is not None
    rooms = Fixed(Rooms(32), model.trained_on.fixed_values)
    everything = model.scalars(rooms.images(np.arange(len(rooms))))
    images = rooms.images(rooms.index([SOURCE, TARGET]))
    codes = model.encode(images)
    standard = (codes.scalars - everything.mean(0)) / np.maximum(everything.std(0), 1e-6)

    scores = json.loads((record.RESULTS / f"{NAME}.json").read_text())
    importance = np.array(scores["importance"])  # (N, F)
    names = list(scores["accuracy_per_factor"])
    holders = importance / np.maximum(importance.sum(1, keepdims=True), 1e-9) > 0.5
    # the units that serve a factor more than all others together; a hue, being a circle, takes several
    shown = [
        (name, np.flatnonzero(holders[:, column] & (importance[:, column] > 0.05))) for column, name in enumerate(names)
    ]
    shown = [(name, units.tolist()) for name, units in shown if len(units)]

    mixed = np.repeat(codes.aligned[:1], len(shown) + 1, axis=0)
    for row, (_, units) in enumerate(shown, start=1):
        mixed[row, units] = codes.aligned[1, units]
    drawn = model.decode(mixed, noise=model.draw_noise(1, 0))

    figure = plt.figure(figsize=(2.2 + 1.75 * (len(shown) + 1), 3.9))
    grid = figure.add_gridspec(2, len(shown) + 2, width_ratios=[1, *[1] * (len(shown) + 1)], hspace=0.42, wspace=0.35)
    source, target = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
    picture(source, images[0], "an image")
    picture(target, images[1], "another")
    own = figure.add_subplot(grid[0, 1])
    bars(own, standard[0], [], "its units")
    other = figure.add_subplot(grid[1, 1])
    bars(other, standard[1], sorted({unit for _, units in shown for unit in units}), "its units")
    arrow(source, own, (1.02, 0.5), (-0.08, 0.5))
    arrow(target, other, (1.02, 0.5), (-0.08, 0.5))
    for column, (name, units) in enumerate(shown, start=2):
        values = standard[0].copy()
        values[units] = standard[1, units]
        plural = "units" if len(units) > 1 else "unit"
        above = figure.add_subplot(grid[0, column])
        bars(above, values, units, f"{plural} {', '.join(map(str, units))}\nfrom the other")
        below = figure.add_subplot(grid[1, column])
        picture(below, drawn[column - 1], f"redrawn\n({name.replace('_', ' ')})")
        arrow(above, below, (0.5, -0.03), (0.5, 1.30))
    figure.savefig(PICTURE, dpi=130, facecolor="white", bbox_inches="tight")
    print(PICTURE)


if __name__ == "__main__":
    main()
