"""What a person reads of a run's scores: a table, and which unit holds which factor."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from unweave.data import open_dataset
from unweave.data.base import require_grid
from unweave.evaluate import evaluate, write_results
from unweave.export import data_config
from unweave.models.folder import load
from unweave.record import console, say
from unweave.report.figures import importance_figure
from unweave.runtime import device as device_of


def evaluate_run(
    run: str, out: Path, seed: int = 0, device: str = "auto", data: str = "", cache_gb: float = 0.0
) -> dict[str, Any]:
    """Scores a run, model folder or bundled model: `results.json`, `report/units.png` in `out`, a table on screen."""
    model = load(run, device_of(device))
    dataset = require_grid(open_dataset(data_config(model, data, cache_gb), model.config.image_size, say))
    results = evaluate(model, dataset, seed)
    write_results(results, out / "results.json")
    importance_figure(results, out / "report" / "units.png")
    show(results)
    say(f"wrote {out / 'results.json'} and {out / 'report' / 'units.png'}")
    return results


def show(results: dict[str, Any]) -> None:
    """Prints the scores beside those of an untrained extractor, and the factors with the units that hold them."""
    trained, untrained = results["scores"], results["untrained"]
    scores = Table(title="scores of the unit scalars (official constants)", title_justify="left")
    for column in ("score", "this model", "untrained", "chance", "perfect"):
        scores.add_column(column, justify="left" if column == "score" else "right")
    rows = (
        ("FactorVAE", "factor_vae", f"{trained['factor_vae_chance']:.3f}"),
        ("DCI disentanglement", "dci_disentanglement", "0"),
        ("DCI completeness", "dci_completeness", "0"),
        ("DCI informativeness", "dci_informativeness", _chance(results)),
    )
    for title, name, chance in rows:
        scores.add_row(title, f"{trained[name]:.3f}", f"{untrained[name]:.3f}", chance, "1")
    console.print(scores)
    console.print(_holders(results))
    say("BetaVAE, MIG, SAP, modularity, explicitness, InfoMEC, IRS (other_scores) and downstream: see results.json")
    for note in trained["notes"]:
        say(f"note: {note}")


def _chance(results: dict[str, Any]) -> str:
    return f"{np.mean([1 / size for size in results['data']['factor_sizes']]):.3f}"


def _holders(results: dict[str, Any]) -> Table:
    """Factors, the two units that matter most for each, and how well all units together tell its value."""
    table = Table(title="which unit holds which factor", title_justify="left")
    for column in ("factor", "values", "first unit", "second unit", "told from all units"):
        table.add_column(column, justify="left" if column == "factor" else "right")
    importance = np.array(results["scores"]["importance"])  # (N, F)
    for column, name in enumerate(results["data"]["factor_names"]):
        order = np.argsort(-importance[:, column], kind="stable")
        shares = [f"{unit} ({importance[unit, column]:.0%})" for unit in order[:2]]
        accuracy = results["scores"]["accuracy_per_factor"][column]
        size = results["data"]["factor_sizes"][column]
        table.add_row(name, str(size), *shares, *[""] * (2 - len(shares)), f"{accuracy:.0%}")
    return table


def unit_labels(results: dict[str, Any] | None, num_units: int) -> list[str]:
    """`unit 3`, or with results `unit 3` and the factor that it matters most for, where it matters."""
    if results is None:
        return [f"unit {unit}" for unit in range(num_units)]
    importance = np.array(results["scores"]["importance"])
    labels = []
    for unit in range(num_units):
        factor = int(importance[unit].argmax())
        held = importance[unit, factor] >= 0.2
        labels.append(f"unit {unit}\n{results['data']['factor_names'][factor]}" if held else f"unit {unit}")
    return labels
