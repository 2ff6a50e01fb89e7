"""From a model and a data set to `results.json`: codes, scores, and an untrained extractor beside it.

What is scored are the unit scalars, standardised over the data, on the factors that are not frozen; the constants are
the official ones and are all written down with the result.
"""

import inspect
import json
import math
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unweave.configfile import to_dict
from unweave.data.base import FactorDataset
from unweave.errors import require
from unweave.files import write_text
from unweave.metrics import boosting, cell_index, dci, downstream, factor_vae_score, sample_rows
from unweave.metrics.inputs import Protocol, Scale
from unweave.metrics.suite import METRICS, score_grid
from unweave.models.diffusion import DiffusionModel, evaluating
from unweave.models.images import normalise
from unweave.nn.encoder import FeatureExtractor
from unweave.record import Display

CHUNK = 512
PROTOCOLS: tuple[Protocol, ...] = ("official", "robust")
OTHERS = tuple(name for name in METRICS if name not in ("factor_vae", "dci"))


def evaluate(model: DiffusionModel, dataset: FactorDataset, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """Scores a model on a data set with a full factor grid; returns what `results.json` holds.

    `scores` are the model's FactorVAE score and DCI, `untrained` those of its extractor with fresh weights under
    `seed`, `other_scores` all others of the model under both protocols, `downstream` its accuracies with few labels.
    Raises `UserError` when the images have another size than the model's, or no factor varies.
    """
    start = time.monotonic()
    size = model.config.image_size
    require(
        dataset.image_shape == (size, size, 3),
        f"{dataset.name} has images {dataset.image_shape}: this model wants ({size}, {size}, 3)",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = FeatureExtractor(model.config.encoder, size).to(model.device)

    codes = standardise(scalars_of(model.encoder, dataset, "encoding", quiet))
    baseline = standardise(scalars_of(untrained, dataset, "encoding, untrained", quiet))
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
        "versions": {"unweave": version("unweave"), "torch": torch.__version__, "python": platform.python_version()},
    }


def write_results(results: dict[str, Any], path: Path) -> None:
    """Writes what was found as JSON, atomically."""
    write_text(path, json.dumps(results, indent=2) + "\n")


@torch.no_grad()
def scalars_of(encoder: FeatureExtractor, dataset: FactorDataset, what: str, quiet: bool = False) -> np.ndarray:
    """The unit scalars of every image of a data set, in its order: (images, N) float32."""
    device = next(encoder.parameters()).device
    parts = []
    with evaluating(encoder), Display(what, len(dataset), "images", quiet) as display:
        for start in range(0, len(dataset), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(dataset)))
            parts.append(encoder.scalars(normalise(torch.from_numpy(dataset.images(rows)).to(device))).cpu().numpy())
            display.update(len(rows) + start)
    return np.concatenate(parts)


def standardise(scalars: np.ndarray) -> np.ndarray:
    """Each unit to mean 0 and standard deviation 1, float64; a unit that is constant becomes 0."""
    return Scale.of(scalars, rounding=1e-7)(scalars)  # float32's


def score(codes: np.ndarray, sizes: tuple[int, ...], seed: int, what: str, quiet: bool = False) -> dict[str, Any]:
    """FactorVAE score and DCI of the codes (images, N) of a full grid of factors with these sizes, by name."""
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
    """Every other score of codes (images, N) of a full grid, by name, with its notes; null where it is not defined."""
    found = score_grid(codes, sizes, metrics=OTHERS, protocol=protocol, seed=seed)
    names = [one.metric if one.name == "score" else f"{one.metric}_{one.name}" for one in found.scores]
    values = [None if math.isnan(one.value) else one.value for one in found.scores]
    return {**dict(zip(names, values)), "notes": list(found.notes)}


def _protocol(seed: int) -> dict[str, Any]:
    """Every constant of the scores, as their signatures have them."""
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
