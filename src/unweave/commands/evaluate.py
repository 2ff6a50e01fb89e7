"""What a person reads of a run's scores: a table, and which unit holds which factor."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from unweave.config import Sampling
from unweave.data import open_dataset
from unweave.data.base import has_attributes, require_grid
from unweave.evaluation.encode import data_config
from unweave.evaluation.frechet import BATCH_SIZE, distance_to_data
from unweave.evaluation.model import evaluate, evaluate_attributes, write_results
from unweave.metrics.suite import DESCRIPTIONS, PUBLISHED
from unweave.models.base import UnitModel, find_device
from unweave.models.card import write_card
from unweave.models.folder import ATTRIBUTES, RESULTS, find, home, load, read_results
from unweave.record import console, log
from unweave.report.figures import importance_figure
from unweave.report.pictures import unit_labels


def evaluate_run(
    run: str, out: Path, seed: int = 0, device: str = "auto", data: str = "", cache_gb: float = 0.0
) -> dict[str, Any]:
    """Scores a run, model folder or bundled model: `results.json`, `report/units.png` in `out`, a table on screen.

    On images with binary attributes the score is TAD, and the file `attributes.json`. Where the folder is the run's
    own, the scores go into the card of its model too.
    """
    model = load(run, find_device(device))
    images = open_dataset(data_config(model, data, cache_gb), model.config.image_size, log)
    if has_attributes(images):
        results = evaluate_attributes(model, images, seed)
        write_results(results, out / ATTRIBUTES)
        _onto_card(run, out, model)
        show_attributes(results, model.unit_names)
        log(f"wrote {out / ATTRIBUTES}")
        return results
    dataset = require_grid(images)
    results = evaluate(model, dataset, seed)
    write_results(results, out / RESULTS)
    _onto_card(run, out, model)
    importance_figure(results, unit_labels(model, None), out / "report" / "units.png")
    show(results, model.unit_names)
    log(f"wrote {out / RESULTS} and {out / 'report' / 'units.png'}")
    return results


def _onto_card(run: str, out: Path, model: UnitModel) -> None:
    """Writes the card of a model anew, with its scores, where they are in the folder of its own run."""
    if out == home(run) and find(run).is_relative_to(out):
        write_card(model, find(run), read_results(out, model), read_results(out, model, ATTRIBUTES))


def measure_distance(
    run: str,
    out: Path,
    inception: Path | None,
    num: int,
    num_real: int,
    sampling: Sampling,
    device: str = "auto",
    data: str = "",
    batch_size: int = BATCH_SIZE,
) -> dict[str, Any]:
    """The distance of a model's pictures from its data: a line on screen, and `frechet.json` in `out`."""
    model = load(run, find_device(device))
    dataset = open_dataset(data_config(model, data), model.config.image_size, log)
    found = distance_to_data(model, dataset, num, inception, sampling, num_real, batch_size, log)
    write_results(found, out / "frechet.json")
    log(f"{found['name']}: {found['value']:.4g} ({found['features']}); wrote {out / 'frechet.json'}")
    return found


def show(results: dict[str, Any], unit_names: dict[int, str]) -> None:
    """Prints the scores beside those of an untrained extractor, and the factors with the units that hold them."""
    trained, untrained = results["scores"], results["untrained"]
    scores = Table(title="scores of the unit scalars (official constants)", title_justify="left")
    for column in ("score", "this model", "untrained", "chance", "perfect"):
        scores.add_column(column, justify="left" if column == "score" else "right")
    for name in PUBLISHED:
        chance = DESCRIPTIONS[name].chance_level(results["data"]["factor_sizes"])
        numbers = [f"{value:.3f}" for value in (trained[name], untrained[name], chance)]
        scores.add_row(DESCRIPTIONS[name].title, *numbers, "1")
    console.print(scores)
    console.print(_holders(results, unit_names))
    more = ", ".join(text.title for name, text in DESCRIPTIONS.items() if name not in (*PUBLISHED, "tad", "udr"))
    log(f"also in results.json: {more}")
    for note in trained["notes"]:
        log(f"note: {note}")


def show_attributes(results: dict[str, Any], unit_names: dict[int, str]) -> None:
    """Prints TAD beside that of an untrained extractor, and the attributes that are captured with their units."""
    names = results["data"]["factor_names"]
    table = Table(title=f"TAD of {results['protocol']['images']:,} images", title_justify="left")
    for column in ("definition", "this model", "captured", "untrained", "captured"):
        table.add_column(column, justify="left" if column == "definition" else "right")
    for definition, found in results["scores"].items():
        cells = [
            (f"{one['tad']:.3f}", f"{len(one['captured'])} of {len(names)}")
            for one in (found, results["untrained"][definition])
        ]
        table.add_row(definition, *cells[0], *cells[1])
    console.print(table)
    exact = results["scores"]["exact"]
    for one in exact["leads"]:
        named = f"unit {one['unit']} {unit_names.get(one['unit'], '')}".strip()
        log(f"{one['attribute']}: {named} predicts it with area {one['area']:.2f}, the next with {one['next']:.2f}")
    for note in exact["notes"]:
        log(f"note: {note}")


def _holders(results: dict[str, Any], unit_names: dict[int, str]) -> Table:
    """Factors, the two units that matter most for each, and how accurately all units together predict its value."""
    table = Table(title="which unit holds which factor", title_justify="left")
    for column in ("factor", "values", "first unit", "second unit", "accuracy, all units"):
        table.add_column(column, justify="left" if column == "factor" else "right")
    importance = np.array(results["scores"]["importance"])  # (N, F)
    for column, name in enumerate(results["data"]["factor_names"]):
        order = np.argsort(-importance[:, column], kind="stable")
        named = [f"{unit} {unit_names.get(unit, '')}".strip() for unit in order[:2]]
        shares = [f"{label} ({importance[unit, column]:.0%})" for label, unit in zip(named, order)]
        accuracy = results["scores"]["accuracy_per_factor"][column]
        size = results["data"]["factor_sizes"][column]
        table.add_row(name, str(size), *shares, *[""] * (2 - len(shares)), f"{accuracy:.0%}")
    return table
