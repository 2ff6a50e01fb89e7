"""The parts of the viewer's page as HTML with embedded pictures; all typed text is escaped."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from unweave.metrics.suite import DESCRIPTIONS, PUBLISHED
from unweave.report.pictures import png_address
from unweave.viewer.session import Drawn, Reading


class Score(NamedTuple):
    """A row of the table of scores."""

    title: str
    value: float
    untrained: float
    chance: str
    asks: str


def pictures(named: Sequence[tuple[str, np.ndarray]]) -> str:
    """Pictures (H, W, 3) side by side, each with a text below."""
    return _part("pictures", named)


def rows(drawn: Sequence[Drawn]) -> str:
    """Rows of pictures, each with its title."""
    return _part("rows", drawn)


def readings(units: Sequence[Reading], num_images: int) -> str:
    """The units of a picture as a table; they are compared with those of `num_images` images."""
    return _part("readings", units, num_images)


def scores(results: dict[str, Any], labels: Sequence[str]) -> str:
    """The scores of a run with their meaning, and the importance of each unit for each factor."""
    data, values = results["data"], results["scores"]
    table = []
    for name in PUBLISHED:
        text = DESCRIPTIONS[name]
        level = text.chance_level(data["factor_sizes"])
        chance = text.chance if level is None else f"{level:.3f}"
        table.append(Score(text.title, values[name], results["untrained"][name], chance, text.asks))
    factors = [name.replace("_", " ") for name in data["factor_names"]]
    about = f"On {data['images']:,} images of {data['name']}, with the constants of published tables; 1 is perfect."
    return _part("scores", table, factors, list(zip(labels, values["importance"])), about)


def _part(name: str, *values: object) -> str:
    return f'<div class="unweave">{getattr(_PARTS, name)(*values)}</div>'


def _png(image: np.ndarray) -> str:
    """A picture (H, W, 3) as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return png_address(buffer.getvalue())


def _parts() -> Any:
    environment = Environment(
        loader=PackageLoader("unweave", "viewer"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["png"] = _png
    return environment.get_template("parts.html").module


_PARTS = _parts()
