"""From a model and a data set to `results.json`: codes, scores, and those of an untrained extractor.

The scores are of the units' scalars, standardised over the data, on the factors that are not fixed. The constants are
those of published tables, and the result records them.
"""

import inspect
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unweave.configfile import to_dict
from unweave.data.base import FactorDataset, ImageSet, require_size
from unweave.files import write_text
from unweave.metrics import boosting, cell_index, dci, downstream, factor_vae_score, sample_rows, tad
from unweave.metrics.inputs import Protocol, Standardiser, one_number_per_unit
from unweave.metrics.suite import METRICS, TABLE, score_grid
from unweave.metrics.tad import OFFICIAL_STEPS
from unweave.models.base import UnitModel, eval_mode
from unweave.models.pixels import normalise
from unweave.record import Display, versions

CHUNK = 512
CHANCE_AREA = 0.5  # under the ROC curve, of a unit without information
MOST_LABELLED = 10_000  # images for TAD, as published
PROTOCOLS: tuple[Protocol, ...] = ("official", "robust")
OTHERS = tuple(name for name in METRICS if not TABLE[name].published)


def evaluate(model: UnitModel, dataset: FactorDataset, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """Scores a model on a data set with a full grid of factors; returns the content of `results.json`.

    `scores` are the model's FactorVAE score and DCI, `untrained` those of its extractor with initial weights from
    `seed`, `other_scores` all others of the model under both protocols, `downstream` its accuracies with few labels.
    Raises `UserError` if the images have another size than the model's, or no factor varies.
    """
    # codes of the model, and of an untrained extractor
    start = time.monotonic()
    require_size(dataset, model.config.image_size)
    rows = np.arange(len(dataset))
    codes = standardise(scalars_of(model, dataset, rows, "encoding", quiet))
    baseline = standardise(scalars_of(model.untrained(seed), dataset, rows, "encoding, untrained", quiet))

    # their scores
    sizes = dataset.factor_sizes
    scores = score(codes, sizes, seed, "scoring", quiet)
    few_labels = downstream(codes, sizes, seed=seed, largest=scores["accuracy_per_factor"])
    return {
        "scores": scores,
        "untrained": score(baseline, sizes, seed, "scoring, untrained", quiet),
        "other_scores": {protocol: other_scores(codes, sizes, protocol, seed) for protocol in PROTOCOLS},
        "downstream": {
            "labels": list(few_labels.sizes),
            "accuracy": few_labels.accuracy.tolist(),
            "efficiency": few_labels.efficiency.tolist(),
            "notes": list(few_labels.notes),
        },
        "protocol": _protocol(seed),
        "data": {
            "name": dataset.name,
            "images": len(dataset),
            "factor_names": list(dataset.factor_names),
            "factor_sizes": list(dataset.factor_sizes),
            "config": to_dict(model.trained_on) if model.trained_on else None,
        },
        "history": model.history,
        "seconds": round(time.monotonic() - start, 1),
        "versions": versions(),
    }


def evaluate_attributes(model: UnitModel, dataset: ImageSet, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """TAD of a model on images with binary attributes, as CelebA's; returns the content of `attributes.json`.

    Computed on at most 10,000 images, chosen by `seed`, in two definitions: `published`, of the first principal
    component of each unit's token by 11 thresholds, and `exact`, of the scalars by ranks. `untrained` has those of an
    extractor with initial weights. Raises `UserError` if the images have another size than the model's, or no attribute
    varies.
    """
    start = time.monotonic()
    require_size(dataset, model.config.image_size)
    rows = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:MOST_LABELLED])
    scores = {
        name: _tad(each, dataset, rows, what, quiet)
        for name, each, what in (
            ("scores", model, "encoding"),
            ("untrained", model.untrained(seed), "encoding, untrained"),
        )
    }
    return {
        **scores,
        "protocol": {"images": len(rows), "seed": seed, "thresholds": OFFICIAL_STEPS},
        "data": {"name": dataset.name, "images": len(dataset), "factor_names": list(dataset.factor_names)},
        "history": model.history,
        "seconds": round(time.monotonic() - start, 1),
        "versions": versions(),
    }


@torch.no_grad()
def _tad(model: UnitModel, dataset: ImageSet, rows: np.ndarray, what: str, quiet: bool) -> dict[str, dict[str, Any]]:
    """TAD in both definitions, by name."""
    # scalars and tokens
    scalars = scalars_of(model, dataset, rows, what, quiet)
    device = model.device
    tokens = torch.cat([model.tokens_of(part.to(device)).cpu() for part in torch.from_numpy(scalars).split(CHUNK)])

    # their scores
    truth = dataset.factors(rows)
    results = {
        "published": tad(one_number_per_unit(tokens.numpy()), truth, method="grid"),
        "exact": tad(scalars, truth),
    }
    return {
        name: {
            "tad": result.score,
            "captured": [dataset.factor_names[column] for column in np.flatnonzero(result.captured)],
            "leads": [
                _lead(dataset.factor_names[column], result.auroc[column]) for column in np.flatnonzero(result.captured)
            ],
            "auroc": result.auroc.tolist(),
            "notes": list(result.notes),
        }
        for name, result in results.items()
    }


def _lead(attribute: str, areas: np.ndarray) -> dict[str, Any]:
    """The unit with the largest area under the ROC curve for an attribute, of areas (N,), and the two largest areas."""
    best, *others = sorted(areas.tolist(), reverse=True)
    return {
        "attribute": attribute,
        "unit": int(areas.argmax()),
        "area": best,
        "next": others[0] if others else CHANCE_AREA,
    }


def write_results(results: dict[str, Any], path: Path) -> None:
    """Writes results as JSON, atomically."""
    write_text(path, json.dumps(results, indent=2) + "\n")


@torch.no_grad()
def scalars_of(model: UnitModel, dataset: ImageSet, rows: np.ndarray, what: str, quiet: bool = False) -> np.ndarray:
    """The scalars (n, N) float32 of the images with numbers `rows` (n,)."""
    device = model.device
    # one array for all, because small arrays between large temporary ones would fragment the heap by gigabytes
    scalars = np.empty((len(rows), model.num_units), np.float32)
    with eval_mode(model), Display(what, len(rows), "images", quiet) as display:
        for start in range(0, len(rows), CHUNK):
            images = torch.from_numpy(dataset.images(rows[start : start + CHUNK]))
            scalars[start : start + CHUNK] = model.units_of(normalise(images.to(device))).cpu().numpy()
            display.update(start + len(images))
    return scalars


def standardise(scalars: np.ndarray) -> np.ndarray:
    """Scales each unit to mean 0 and standard deviation 1, float64; a constant unit becomes 0."""
    return Standardiser.of(scalars, rounding=1e-7)(scalars)  # the rounding of float32


def score(codes: np.ndarray, sizes: tuple[int, ...], seed: int, what: str, quiet: bool = False) -> dict[str, Any]:
    """FactorVAE score and DCI, by name, of the codes (images, N) of a full grid of factors of these sizes."""
    votes = factor_vae_score(codes, sizes, protocol="official", seed=seed)
    train, test = sample_rows(sizes, seed=seed)
    with Display(what, 100, "%", quiet) as display:
        trees = dci(
            codes[cell_index(train, sizes)],
            train,
            codes[cell_index(test, sizes)],
            test,
            seed=seed,
            progress=lambda done, total: display.update(100 * done // total),
        )
    return {
        "factor_vae": votes.score,
        "factor_vae_chance": votes.chance,
        "dci_disentanglement": trees.disentanglement,
        "dci_completeness": trees.completeness,
        "dci_informativeness": trees.informativeness_test,
        "accuracy_per_factor": trees.accuracy_test.tolist(),
        "importance": trees.importance.tolist(),
        "votes": votes.votes_eval.tolist(),
        "active_units": votes.active.tolist(),
        "notes": [*votes.notes, *trees.notes],
    }


def other_scores(codes: np.ndarray, sizes: tuple[int, ...], protocol: Protocol, seed: int) -> dict[str, Any]:
    """All other scores, by name, of codes (images, N) of a full grid, with notes; None if a score is not defined."""
    result = score_grid(codes, sizes, metrics=OTHERS, protocol=protocol, seed=seed)
    numbers = {name: None if math.isnan(value) else value for name, value in result.by_name().items()}
    return numbers | {"notes": list(result.notes)}


def _protocol(seed: int) -> dict[str, Any]:
    """All constants of the scores, from their signatures."""
    defaults = {
        function.__name__: {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if isinstance(parameter.default, int | float)
        }
        for function in (factor_vae_score, sample_rows)
    }
    return {
        "name": "official",
        "representation": "unit scalars, standardised over the data set",
        "seed": seed,
        "factor_vae": {**defaults["factor_vae_score"], "seed": seed},
        "dci": {
            **defaults["sample_rows"],
            "seed": seed,
            "estimator": "gradient boosting, exact splits",
            "stages": boosting.NUM_STAGES,
        },
    }
