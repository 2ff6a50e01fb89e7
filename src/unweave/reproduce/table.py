"""The results of finished jobs as a table: JSON with all numbers, Markdown to read.

The spread over trainings is the standard deviation of their means over evaluation seeds. The spread over evaluation
seeds is the standard deviation within a training, averaged over trainings. Both are sample standard deviations, with
n - 1; one value has none.
"""

import json
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from unweave.metrics.downstream import OFFICIAL_SIZES
from unweave.reproduce.plan import FIRST, Job, Request
from unweave.reproduce.printed import DCI, FACTOR_VAE, PRINTED, TAD, Row

TITLES = {
    FACTOR_VAE: "FactorVAE",
    DCI: "DCI-D",
    "dci_completeness": "DCI-C",
    "dci_informativeness": "DCI-I",
    TAD: "TAD",
    "tad_captured": "attributes captured",
    **{
        f"downstream_{part}_with_{size}_labels": f"{part}, {size:,}"
        for part in ("accuracy", "efficiency")
        for size in OFFICIAL_SIZES
    },
}
ACCURACIES = tuple(name for name in TITLES if name.startswith("downstream_accuracy"))
EFFICIENCIES = tuple(f"downstream_efficiency_with_{size}_labels" for size in OFFICIAL_SIZES[1:])
CAPTIONS = {
    "table1": "FactorVAE score and DCI disentanglement",
    "table2": "TAD, and the distance of drawn images from the data",
    "ablation": "Skip Dropout and anchors, one without the other",
    "downstream": "Sample efficiency: accuracy with few labels",
}


def collect(request: Request, jobs: Sequence[Job], results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The content of `table.json`; except for times it does not depend on interruptions."""
    return {
        "table": request.table,
        "scale": request.scale,
        "seeds": list(request.seeds),
        "evaluation_seeds": request.size.evaluation_seeds,
        "sets": {name: _set(request, name, jobs, results) for name in request.sets},
        "losses": {job.name: results[job.name]["losses"] for job in jobs},
        "seconds": {job.name: results[job.name]["seconds"] for job in jobs},
    }


def _set(request: Request, name: str, jobs: Sequence[Job], results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    first = results[f"{name}/{FIRST}"]
    rows: dict[str, list[Job]] = {}
    for job in jobs:
        if job.method and job.name.startswith(f"{name}/"):
            rows.setdefault(job.row, []).append(job)
    printed = PRINTED.get(request.table, {})
    return {
        "first_stage": {key: first[key] for key in ("images", "psnr", "ssim", "codes_used", "perplexity")},
        "rows": [_row(same[0], [results[job.name] for job in same], printed, name) for same in rows.values()],
        "printed": {method: _printed(sets.get(name)) for method, sets in printed.items() if name in sets},
    }


def _printed(row: Row | None) -> dict[str, Any]:
    return {score: number._asdict() if number else None for score, number in (row or {}).items()}


def _row(job: Job, runs: Sequence[dict[str, Any]], printed: dict[str, dict[str, Row]], name: str) -> dict[str, Any]:
    assert job.method is not None
    row: dict[str, Any] = {
        "row": job.row,
        "title": job.method.title,
        "images": runs[0]["images"],
        "official_codes": job.method.official,
        "printed": _printed(printed.get(job.method.printed, {}).get(name)),
        **{
            protocol: {
                score: _spreads([[one[score] for one in run["last"][protocol]] for run in runs])
                for score in runs[0]["last"][protocol][0]
                if score != "seed"
            }
            for protocol in ("official", "robust")
        },
        "best_step": _best(runs),
        "untrained": {score: _spreads([[run["untrained"][score]] for run in runs]) for score in runs[0]["untrained"]},
    }
    if "distance" in runs[0]:
        distances = [run["distance"] for run in runs]
        row["distance"] = {
            "name": distances[0]["name"],
            "images": distances[0]["images"],
            **_spreads([[one["value"]] for one in distances]),
        }
    return {**row, "beats_untrained": _beats(row)}


def _spreads(values: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """The mean and both spreads of values by training and evaluation seed."""
    means = [fmean(same) for same in values]
    within = [stdev(same) for same in values if len(same) > 1]
    return {
        "mean": fmean(means),
        "training_spread": stdev(means) if len(means) > 1 else None,
        "evaluation_spread": fmean(within) if within else None,
    }


def _headline(scores: dict[str, Any]) -> tuple[str, ...]:
    return (FACTOR_VAE, DCI) if DCI in scores else (TAD,)


def _best(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The best snapshot of each training: that of the highest sum of official scores, evaluation seed 0."""
    chosen = []
    for run in runs:
        last = {"images": run["images"], **run["last"]["official"][0]}
        names = _headline(last)
        chosen.append(max([*run["snapshots"], last], key=lambda one: sum(one[name] for name in names)))
    scores = {name: _spreads([[one[name]] for one in chosen]) for name in _headline(chosen[0])}
    return {"images": [one["images"] for one in chosen], "of": len(runs[0]["snapshots"]) + 1, "scores": scores}


def _beats(row: dict[str, Any]) -> bool | None:
    """Whether the trained units score higher than the untrained extractor by more than both spreads over trainings, in
    the last headline score under the robust protocol; None for one training."""
    name = _headline(row["robust"])[-1]
    trained, untrained = row["robust"][name], row["untrained"][name]
    if trained["training_spread"] is None:
        return None
    return trained["mean"] - untrained["mean"] > max(trained["training_spread"], untrained["training_spread"])


def as_json(table: dict[str, Any]) -> str:
    return json.dumps(table, indent=2, allow_nan=False) + "\n"


def as_markdown(table: dict[str, Any]) -> str:
    """The table in Markdown, with a line about each cell."""
    parts = [f"# {table['table']}: {CAPTIONS[table['table']]}", _about(table)]
    for name, one in table["sets"].items():
        parts += [f"## {name}", *_blocks(table["table"], one), _remarks(one)]
    fallen = [job for job, losses in table["losses"].items() if not losses["fell"]]
    fell = "no, not in " + ", ".join(fallen) if fallen else f"yes, in all {len(table['losses'])} trainings"
    parts.append(f"Losses fell from the first tenth of the steps to the last: {fell}.")
    return "\n\n".join(parts) + "\n"


def _about(table: dict[str, Any]) -> str:
    seeds = len(table["seeds"])
    return (
        f"Scale `{table['scale']}`, {seeds} training{'s' if seeds > 1 else ''} a row (seeds "
        f"{', '.join(map(str, table['seeds']))}), {table['evaluation_seeds']} evaluation seeds each. Ours: mean "
        "(± over trainings, ± over evaluation seeds). *Best step* is the snapshot of each training with the highest "
        "scores, chosen by its labels, ± over trainings; all other numbers are of the last step."
    )


def _blocks(kind: str, one: dict[str, Any]) -> list[str]:
    rows = one["rows"]
    if kind == "downstream":
        return [
            _scores("Official protocol", rows, "official", (*ACCURACIES, *EFFICIENCIES)),
            _scores("Robust protocol", rows, "robust", (*ACCURACIES, *EFFICIENCIES)),
            "Printed: not at hand. An efficiency is an accuracy over that with 10,000 labels; chance over chance is 1.",
        ]
    names = _headline(rows[0]["official"])
    more = ("tad_captured",) if TAD in names else ("dci_completeness", "dci_informativeness")
    blocks = [_beside_printed(one, names), _scores("Robust protocol", rows, "robust", (*names, *more), untrained=True)]
    if kind == "table2":
        blocks.insert(1, _distances(one))
    return blocks


def _beside_printed(one: dict[str, Any], names: Sequence[str]) -> str:
    head = ["official protocol"]
    for name in names:
        head += [*(["printed"] if one["printed"] else []), f"{TITLES[name]}, last step", "best step"]
    lines = []
    for row in one["rows"]:
        cells = [row["title"]]
        for name in names:
            cells += [_printed_cell(row["printed"].get(name))] if one["printed"] else []
            cells += [_cell(row["official"][name]), _cell(row["best_step"]["scores"][name])]
        lines.append(cells)
    for method, scores in one["printed"].items():
        cells = [f"{method} (printed only)"]
        for name in names:
            cells += [_printed_cell(scores.get(name)), "-", "-"]
        lines.append(cells)
    return _markdown(head, lines)


def _distances(one: dict[str, Any]) -> str:
    head = ["drawn images", "printed FID", "ours", "measured", "images"]
    lines = [
        [
            row["title"],
            _printed_cell(row["printed"].get("FID"), 1),
            _cell(row["distance"], 2),
            row["distance"]["name"],
            f"{row['distance']['images']:,}",
        ]
        for row in one["rows"]
    ]
    lines += [
        [f"{method} (printed only)", _printed_cell(scores.get("FID"), 1), "-", "-", "-"]
        for method, scores in one["printed"].items()
    ]
    return _markdown(head, lines)


def _scores(
    title: str, rows: Sequence[dict[str, Any]], protocol: str, names: Sequence[str], untrained: bool = False
) -> str:
    head = [title.lower(), *(TITLES[name] for name in names)]
    lines = [[row["title"], *(_cell(row[protocol][name]) for name in names)] for row in rows]
    if untrained:
        judged = _headline(rows[0][protocol])[-1]
        head += [f"{TITLES[judged]} untrained", "beats the untrained extractor"]
        said = {True: "yes", False: "no", None: "one training: not known"}
        for line, row in zip(lines, rows):
            line += [_cell(row["untrained"][judged]), said[row["beats_untrained"]]]
    return _markdown(head, lines)


def _remarks(one: dict[str, Any]) -> str:
    first, beaten = one["first_stage"], [row["beats_untrained"] for row in one["rows"]]
    quality = f"PSNR {first['psnr']:.1f} dB on held-out images, " if first["psnr"] is not None else ""
    used = f"{first['codes_used']} codes in use, " if first["codes_used"] is not None else ""
    scored = {row["title"]: row["official_codes"] for row in one["rows"]}
    images = ", ".join(dict.fromkeys(f"{row['images']:,}" for row in one["rows"]))
    components = ", ".join(title for title, codes in scored.items() if codes == "components") or "none"
    return (
        f"First stage: {quality}{used}{first['images']:,} images; second: {images}. The official protocol scores the "
        f"first principal component of each unit's token ({components}), or its scalar (others), at the scale that it "
        "has; the robust one scores standardised scalars. "
        f"At least one row beats the untrained extractor by more than the spread over trainings: "
        f"{'yes' if True in beaten else 'no' if False in beaten else 'not known'}."
    )


def _cell(stat: dict[str, Any], digits: int = 3) -> str:
    spreads = [stat["training_spread"], stat["evaluation_spread"]]
    shown = ", ".join(f"± {spread:.{digits}f}" for spread in spreads if spread is not None)
    return f"{stat['mean']:.{digits}f}" + (f" ({shown})" if shown else "")


def _printed_cell(number: dict[str, float] | None, digits: int = 3) -> str:
    return f"{number['mean']:.{digits}f} ± {number['spread']:.{digits}f}" if number else "-"


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
