"""Curves of a training record."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from unweave.report.figures import save_figure

Record = Sequence[dict[str, Any]]


def curves_figure(record: Record, path: Path, beside: Sequence[Record] = ()) -> Path:
    """Draws the `panels` of a record over the images seen; the axes also cover the range of the records `beside`."""
    names = panels(record)
    figure, row = plt.subplots(1, len(names), figsize=(3 * len(names), 2.4), layout="constrained", squeeze=False)
    reach = [record, *beside]
    for axes, name in zip(row[0], names):
        axes.set_title(TITLES[name], fontsize=9, loc="left")
        DRAW[name](axes, record, reach)
        axes.set_xlabel("images seen, in thousands", fontsize=7)
        axes.set_xlim(0, max(each[-1]["images"] for each in reach) / 1000)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, path)


def panels(record: Record) -> list[str]:
    """The curves of a record: `loss`, its `parts`, and with anchors `lambda` and `anchors`."""
    anchored = any(any(line.get("anchors_alive", ())) for line in record)
    present = {"loss": True, "parts": bool(_parts(record)), "lambda": anchored, "anchors": anchored}
    return [name for name, has in present.items() if has]


def _parts(record: Record) -> list[str]:
    """The parts of the loss without a panel of their own."""
    return [name for name in record[-1].get("per_step", {}) if name not in ("loss", "lambda", "pull_distance")]


def _loss(axes: Axes, record: Record, reach: Sequence[Record]) -> None:
    _line(axes, record, lambda line: line.get("loss"), label="training")
    _line(axes, record, lambda line: line.get("held_out_loss"), label="held out", linestyle="--")
    axes.set_yscale("log")
    axes.set_ylim(_limits([_values(each, key) for each in reach for key in ("loss", "held_out_loss")], 1.3))
    axes.legend(fontsize=7, frameon=False)


def _each_part(axes: Axes, record: Record, reach: Sequence[Record]) -> None:
    names = _parts(record)
    for name, color in zip(names, plt.rcParams["axes.prop_cycle"].by_key()["color"]):
        _line(
            axes,
            record,
            lambda line, name=name: line.get(name),
            label=LABELS.get(name, name.replace("_", " ")),
            color=color,
        )
    axes.set_yscale("log")
    low, high = _limits([_values(each, name) for each in reach for name in names], 1.3)
    axes.set_ylim(low, high * (high / low) ** (0.12 * len(names)))  # room for the legend above the curves
    axes.legend(fontsize=7, frameon=False, loc="upper right")


def _lambda(axes: Axes, record: Record, reach: Sequence[Record]) -> None:
    _line(axes, record, lambda line: line.get("lambda"))
    axes.set_ylim(0, 1.1 * max(1e-3, *(float(np.nanmax(_values(each, "lambda"), initial=0)) for each in reach)))


def _anchors(axes: Axes, record: Record, reach: Sequence[Record]) -> None:
    for unit in range(len(record[-1]["anchors_alive"])):
        _line(axes, record, lambda line, unit=unit: line["anchors_alive"][unit], color="0.8", linewidth=0.8)
    _line(axes, record, lambda line: float(np.mean(line["anchors_alive"])))
    axes.set_ylim(0, 1.1 * max(1, *(max(line.get("anchors_alive", [0])) for each in reach for line in each)))


TITLES = {
    "loss": "loss",
    "parts": "parts of the loss",
    "lambda": "weight of the anchors, lambda",
    "anchors": "anchors per unit, and their mean",
}
LABELS = {"kl": "KL"}
DRAW = {"loss": _loss, "parts": _each_part, "lambda": _lambda, "anchors": _anchors}


def _line(axes: Axes, record: Record, value: Callable[[dict[str, Any]], float | None], **style: Any) -> None:
    points = [(line["images"] / 1000, number) for line in record if (number := value(line)) is not None]
    if points:
        marker = "." if len(points) < 3 else ""  # a line of one point would be invisible
        axes.plot(*zip(*points), **{"color": "#1f5fa8", "linewidth": 1.4, "marker": marker, **style})


def _values(record: Record, key: str) -> np.ndarray:
    return np.array([line[key] for line in record if line.get(key) is not None], float)


def _limits(values: Sequence[np.ndarray], margin: float) -> tuple[float, float]:
    """Limits of a logarithmic axis: the smallest and largest positive value, with a margin."""
    every = np.concatenate(values)
    every = every[every > 0]
    return (float(every.min()) / margin, float(every.max()) * margin) if every.size else (0.1, 1.0)
