"""What a score says of itself at the end of its file: how it is computed, its numbers, and their descriptions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unweave.metrics.inputs import Protocol

_LEVELS: dict[str, Callable[[Sequence[int]], float]] = {
    "0": lambda _: 0.0,
    "0.5": lambda _: 0.5,
    "1 / F": lambda sizes: 1 / len(sizes),
    "majority": lambda sizes: float(np.mean([1 / size for size in sizes])),
}


class Description(NamedTuple):
    """A number of a score in words, for tables, reports and pages."""

    title: str
    source: str
    asks: str
    """The question that the number answers."""
    chance: str
    """What codes without information reach."""

    def chance_level(self, factor_sizes: Sequence[int]) -> float | None:
        """`chance` as a number on a full grid of factors with these sizes; None where no number says it."""
        level = _LEVELS.get(self.chance)
        return level(factor_sizes) if level else None


class Metric(NamedTuple):
    """A score of one representation."""

    name: str
    compute: Callable[["Sample"], Any]
    """Its result, which has `notes`."""
    numbers: dict[str, Callable[[Any], tuple[float, float]]]
    """By name, a number of the result and its chance level, NaN where unknown. A single number is called `score`."""
    descriptions: dict[str, Description]
    """Those of the numbers that tables describe, by name."""
    matrix: Callable[[Any], NDArray[Any]] | None = None
    """The matrix behind the result, (units, factors)."""
    by_default: bool = True
    """Whether it is computed unless other scores are named: not where it suits few data sets, or takes long."""
    published: bool = False
    """Whether it is in the field's published tables, for which it is computed of an untrained extractor too."""


@dataclass(frozen=True)
class Sample:
    """What scores are computed from, and the results so far: what several scores need is computed once."""

    rows: tuple[NDArray[np.float64], NDArray[np.generic], NDArray[np.float64], NDArray[np.generic]]
    """Codes and factors to train on, codes and factors to test on."""
    grid: tuple[NDArray[np.float64], tuple[int, ...]] | None
    """Codes of a full grid of factors in C order, and the factors' sizes; None for images without one."""
    protocol: Protocol
    seed: int
    _results: dict[str, Any] = field(default_factory=dict)

    def score(self, of_grid: Callable[..., Any], of_rows: Callable[..., Any]) -> Any:
        """The result of a score that has a function for grids and one for rows, which takes all rows together."""
        codes, factors, codes_test, factors_test = self.rows
        rows = np.concatenate([codes, codes_test]), np.concatenate([factors, factors_test])
        function, inputs = (of_grid, self.grid) if self.grid else (of_rows, rows)
        return function(*inputs, protocol=self.protocol, seed=self.seed)

    def result(self, metric: Metric) -> Any:
        """The result of a score."""
        if metric.name not in self._results:
            self._results[metric.name] = metric.compute(self)
        return self._results[metric.name]


def full_name(metric: str, number: str) -> str:
    """How files call a number of a score: `factor_vae`, `dci_disentanglement`."""
    return metric if number == "score" else f"{metric}_{number.replace(' ', '_')}"


def only(chance: float = math.nan) -> dict[str, Callable[[Any], tuple[float, float]]]:
    """The number of a result that has one, `score`, with its chance level."""
    return {"score": lambda result: (result.score, chance)}
