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
    """Loss, pull and number of anchors over the images seen; axes reach as far as records `beside` this one need."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), layout="constrained")
    reach = [record, *beside]
    axes[0].set_title("loss", fontsize=9, loc="left")
    _line(axes[0], record, lambda line: line.get("loss"), label="training")
    _line(axes[0], record, lambda line: line.get("held_out_loss"), label="held out", linestyle="--")
    axes[0].set_yscale("log")
    axes[0].set_ylim(_limits([_values(each, key) for each in reach for key in ("loss", "held_out_loss")], 1.3))
    axes[0].legend(fontsize=7, frameon=False)
    axes[1].set_title("pull of the anchors, lambda", fontsize=9, loc="left")
    _line(axes[1], record, lambda line: line.get("lambda"))
    axes[1].set_ylim(0, 1.1 * max(1e-3, *(float(np.nanmax(_values(each, "lambda"), initial=0)) for each in reach)))
    axes[2].set_title("anchors of each unit, and their mean", fontsize=9, loc="left")
    num_units = len(record[-1].get("anchors_alive", []))
    for unit in range(num_units):
        _line(axes[2], record, lambda line, unit=unit: line["anchors_alive"][unit], color="0.8", linewidth=0.8)
    _line(axes[2], record, lambda line: np.mean(line["anchors_alive"]) if line.get("anchors_alive") else None)
    axes[2].set_ylim(0, 1.1 * max(1, *(max(line.get("anchors_alive", [0])) for each in reach for line in each)))
    for one in axes:
        one.set_xlabel("images seen, in thousands", fontsize=7)
        one.set_xlim(0, max(each[-1]["images"] for each in reach) / 1000)
        one.tick_params(labelsize=7)
        one.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, path)


def _line(axes: Axes, record: Record, value: Callable[[dict[str, Any]], float | None], **style: Any) -> None:
    points = [(line["images"] / 1000, found) for line in record if (found := value(line)) is not None]
    if points:
        marker = "." if len(points) < 3 else ""  # a line of one point cannot be seen
        axes.plot(*zip(*points), **{"color": "#1f5fa8", "linewidth": 1.4, "marker": marker, **style})


def _values(record: Record, key: str) -> np.ndarray:
    return np.array([line[key] for line in record if line.get(key) is not None], float)


def _limits(values: Sequence[np.ndarray], margin: float) -> tuple[float, float]:
    """The least and the largest positive value, with room around them, for a logarithmic axis."""
    every = np.concatenate(values)
    every = every[every > 0]
    return (float(every.min()) / margin, float(every.max()) * margin) if every.size else (0.1, 1.0)
