"""One page about a run, or two side by side: a single file without scripts that asks for nothing from elsewhere."""

import datetime
import functools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from unweave.configfile import differences, to_dict
from unweave.data.base import FactorDataset, has_attributes
from unweave.files import write_text
from unweave.metrics.downstream import OFFICIAL_SIZES
from unweave.metrics.suite import DESCRIPTIONS, PUBLISHED
from unweave.models.base import UnitModel
from unweave.models.folder import ATTRIBUTES, home, read_results
from unweave.record import clock, read_record, versions
from unweave.report.anchor_figures import dispersion
from unweave.report.curves import TITLES, curves_figure, panels
from unweave.report.pictures import Explorer, Picture, png_address

MOST_LINES = 12  # of the training record
PROTOCOL = "robust"  # of the scores besides the four


Take = Callable[[dict[str, Any], str], tuple[float | None, float | None]]
"""Results and the name of a score -> its value for the model and for an untrained extractor, where there is one."""


class Figure(NamedTuple):
    """A picture as a part of the page."""

    picture: Picture
    address: str
    """The picture itself, as a data URI."""
    width: int
    height: int


class ScoreRow(NamedTuple):
    """A score, and what each run reaches: its value and that of an untrained extractor, None where there is none."""

    title: str
    source: str
    asks: str
    chance: str
    values: list[tuple[float | None, float | None]]


@dataclass(frozen=True)
class Column:
    """What the page says of one run."""

    name: str
    labels: list[str]
    facts: list[tuple[str, str]]
    results: dict[str, Any] | None
    attributes: dict[str, Any] | None
    """TAD, where it was taken."""
    no_scores: str
    """Why there are no scores, and what to do about it; empty where there are."""
    matrix: list[tuple[str, list[float]]]
    """Units, and how much each matters for each factor."""
    anchors: list[tuple[str, int, float, float]]
    """Units, their anchors, the part of the images that the largest has, and their dispersion."""
    record: list[dict[str, Any]]
    figures: dict[str, Figure]
    options: list[tuple[str, str]]
    versions: list[tuple[str, str]]


def write_report(explorers: Mapping[str, Explorer], path: Path) -> Path:
    """Writes the page about models, by the names they were opened with, to `path`; all stand beside the first.

    Pictures are drawn as the explorers say. Raises `UserError` when the page cannot be written.
    """
    records = {name: _read_record(name) for name in explorers}
    kinds = {name: explorer.model.describe() for name, explorer in explorers.items()}
    with tempfile.TemporaryDirectory() as folder:
        columns = [
            _column(
                name,
                replace(explorer, captions=False),
                records,
                [other for other in explorers if kinds[other] == kinds[name]],
                Path(folder) / str(number),
            )
            for number, (name, explorer) in enumerate(explorers.items())
        ]
    environment = Environment(
        loader=PackageLoader("unweave", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    (_, explorer), *others = explorers.items()
    first = explorer.model
    text = environment.get_template("page.html").render(
        columns=columns,
        title=" beside ".join(filter(None, [columns[0].name, ", ".join(column.name for column in columns[1:])])),
        scores=[_score(name, columns, _of_both) for name in PUBLISHED],
        other_scores=_other_scores(columns),
        tad=DESCRIPTIONS["tad"],
        protocol=PROTOCOL,
        differences={name: _differences(first, explorer.model) for name, explorer in others},
        written=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    write_text(path, text)
    return path


def _column(
    name: str,
    explorer: Explorer,
    records: Mapping[str, list[dict[str, Any]]],
    alike: Sequence[str],
    folder: Path,
) -> Column:
    """`alike` are the models whose losses can be compared with this one's: their curves share axes."""
    model, results = explorer.model, read_results(home(name), explorer.model)
    attributes = read_results(home(name), model, ATTRIBUTES)
    pictures = {
        "reconstructions": explorer.reconstructions(folder),
        "swaps": explorer.swaps(folder),
        "traversals": explorer.traversals(folder),
    }
    if model.attention_layers():
        pictures["attention"] = explorer.attention(folder)
    if model.anchors.num_alive.any():
        pictures["anchors"] = explorer.anchors(folder)
    if records[name]:
        others = [records[other] for other in alike if other != name and records[other]]
        pictures["curves"] = _curves(records[name], others, folder)
    labels = [label.replace("_", " ").replace("\n", ": ") for label in explorer.labels]
    shares = results["scores"]["importance"] if results else []
    return Column(
        name,
        labels,
        _facts(explorer),
        results,
        attributes,
        "" if results or attributes else _no_scores(name, explorer),
        list(zip(labels, shares)),
        _anchors(explorer, labels),
        _thinned(records[name]),
        {key: _figure(picture) for key, picture in pictures.items()},
        _options(name, explorer),
        _versions(results or attributes),
    )


def _read_record(name: str) -> list[dict[str, Any]]:
    """The training record of a run; empty for a model that has none beside it."""
    path = home(name) / "metrics.jsonl"
    return read_record(path) if path.is_file() else []


def _curves(record: list[dict[str, Any]], beside: Sequence[list[dict[str, Any]]], folder: Path) -> Picture:
    caption = (
        "The loss should fall and then stay flat. On held-out images, which are never trained on, it should stay as "
        "low, or else the model memorises images."
    )
    if "anchors" in panels(record):
        caption += (
            " A pull near 0 means that the anchors do nothing. Anchors appear as a unit's values separate; a unit that "
            "keeps one anchor is continuous, or unused."
        )
    shown = "; ".join(TITLES[name] for name in panels(record))
    return Picture(
        curves_figure(record, folder / "curves.png", beside),
        "Training",
        caption,
        f"Curves over the images seen: {shown}. The loss at the end is {record[-1]['loss']:.4g}.",
    )


def _figure(picture: Picture) -> Figure:
    with Image.open(picture.path) as image:
        return Figure(picture, png_address(picture.path.read_bytes()), *image.size)


def _facts(explorer: Explorer) -> list[tuple[str, str]]:
    model, data = explorer.model, explorer.dataset
    config, history = model.config, model.history
    factors = ", ".join(name.replace("_", " ") for name in data.factor_names) or "none known"
    facts = [
        ("images shown here", f"{len(data):,} of {data.name}, {config.image_size} x {config.image_size} px"),
        ("their factors, for scores only", factors),
        *model.facts(),
    ]
    if model.trained_on:
        held = f", held: {', '.join(model.trained_on.fixed)}" if model.trained_on.fixed else ""
        facts.insert(0, ("trained on", (model.trained_on.folder or model.trained_on.name + held)))
    if history:
        text = f"{history['images']:,} images in {history['step']:,} steps, {clock(history['seconds'])}"
        facts.insert(0, ("trained for", text))
    return facts


def _no_scores(name: str, explorer: Explorer) -> str:
    if isinstance(explorer.dataset, FactorDataset) or has_attributes(explorer.dataset):
        return f"No scores of this model as it stands yet: unweave evaluate {name}"
    if explorer.dataset.factor_names:
        return f"Scores of images without a full grid of factors: unweave encode {name}, then unweave score"
    return "There are no labels to score with. Models can still be compared without: unweave udr"


def _anchors(explorer: Explorer, labels: Sequence[str]) -> list[tuple[str, int, float, float]]:
    codes = explorer.sample.codes
    alive = explorer.model.anchors.num_alive.tolist()
    rows = []
    for unit, label in enumerate(labels):
        largest = np.bincount(codes.anchors[:, unit]).max() / len(codes.anchors)
        rows.append((label, alive[unit], float(largest), dispersion(codes.scalars[:, unit], codes.anchors[:, unit])))
    return rows if any(alive) else []


def _thinned(record: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some of the lines of a record, evenly, with the last."""
    chosen = np.unique(np.linspace(0, len(record) - 1, min(len(record), MOST_LINES)).round().astype(int))
    return [record[line] for line in chosen]


def _options(name: str, explorer: Explorer) -> list[tuple[str, str]]:
    """The options of the run, or of the model where there is no run around it, each with its whole name."""
    path, data = home(name) / "config.json", explorer.model.trained_on
    if path.is_file():
        return _flat(json.loads(path.read_text(encoding="utf-8")))
    return _flat({"model": to_dict(explorer.model.config), "data": to_dict(data) if data else {}})


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += _flat(value, f"{prefix}{name}.")
        else:
            lines.append((prefix + name, json.dumps(value, ensure_ascii=False)))
    return lines


def _versions(results: dict[str, Any] | None) -> list[tuple[str, str]]:
    scored = results["versions"] if results else {}
    return [(f"{name}, this page", text) for name, text in versions().items()] + [
        (f"{name}, scores", text) for name, text in scored.items()
    ]


def _score(name: str, columns: Sequence[Column], take: Take, more: str = "") -> ScoreRow:
    about = DESCRIPTIONS[name]
    found = [column.results for column in columns]
    levels = {about.chance_level(results["data"]["factor_sizes"]) for results in found if results}
    numbers = [f"{level:.3f}" for level in sorted(level for level in levels if level is not None)]
    values = [take(results, name) if results else (None, None) for results in found]
    return ScoreRow(about.title + more, about.source, about.asks, " / ".join(numbers) or about.chance, values)


def _of_both(results: dict[str, Any], name: str) -> tuple[float | None, float | None]:
    return results["scores"][name], results["untrained"][name]


def _other_scores(columns: Sequence[Column]) -> list[ScoreRow]:
    """The scores that are taken of the model alone; those that no run has are left out."""

    def suite(results: dict[str, Any], name: str) -> tuple[float | None, float | None]:
        return results["other_scores"][PROTOCOL].get(name), None

    def efficiency(results: dict[str, Any], _: str, num_labels: int) -> tuple[float | None, float | None]:
        found = results["downstream"]
        return dict(zip(found["labels"], found["efficiency"])).get(num_labels), None

    rows = [_score(name, columns, suite) for name in DESCRIPTIONS]
    for num in OFFICIAL_SIZES[1:]:
        take = functools.partial(efficiency, num_labels=num)
        rows.append(_score("downstream", columns, take, f", {num:,} labels"))
    return [row for row in rows if any(value is not None for value, _ in row.values)]


def _differences(first: UnitModel, second: UnitModel) -> list[str]:
    """The options in which a model differs from the first one, as lines."""
    if type(first.config) is type(second.config):
        lines = differences(first.config, second.config, "model.")
    else:
        lines = [f"model: {first.describe()} -> {second.describe()}"]
    if first.trained_on and second.trained_on:
        lines += differences(first.trained_on, second.trained_on, "data.")
    return lines
