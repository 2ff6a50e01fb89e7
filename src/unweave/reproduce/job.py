"""One job of a table: train, encode every image at each snapshot, score. A finished job has a `result.json`.

JOB/run/                     the run, which can be resumed
JOB/codes/000000016000.npz   per snapshot `scalars` and `components` (n, N) float32
JOB/result.json              scores and losses
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from unweave.config import DiffusionConfig, RunConfig, VQGANConfig, VQRunConfig
from unweave.configfile import differences, from_dict, to_dict
from unweave.data import open_dataset
from unweave.data.base import FactorDataset, ImageSet
from unweave.errors import require
from unweave.evaluation.model import scalars_of
from unweave.files import write_atomically, write_text
from unweave.metrics.inputs import Protocol, one_number_per_unit
from unweave.metrics.suite import score_grid, score_rows
from unweave.models.base import UnitModel, find_device
from unweave.models.folder import load
from unweave.record import Log, log, read_record
from unweave.reproduce.plan import Job, Request
from unweave.reproduce.recipes import Kind, Method
from unweave.training.checkpoint import MAY_CHANGE
from unweave.training.loop import crosses
from unweave.training.main import train

CHUNK = 2048
RESULT = "result.json"
GRID_SCORES = "factor_vae", "dci"

C = TypeVar("C", bound=RunConfig | VQRunConfig)
ROBUST: Kind = "scalars"


def finished(job: Job, request: Request) -> dict[str, Any] | None:
    """The result of a finished job; None if it is not finished. Raises `UserError` if its folder holds a job with other
    options."""
    path = request.out / job.name / RESULT
    try:
        result = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        require(False, f"{path} cannot be read: delete it, and its job is scored again")
        raise

    # the options must be those that it was trained with
    ours = _plain(job.config)
    changed = [
        line
        for line in differences(from_dict(type(ours), result["options"], str(path)), ours)
        if line.split(":")[0] not in MAY_CHANGE
    ]
    require(
        not changed,
        f"{path.parent} has other options ({'; '.join(changed)}): choose another --out, or delete that folder",
    )
    asked = _asked(job, request)
    return result if result["asked"] == asked else None


def do(job: Job, request: Request, log: Log = log) -> dict[str, Any]:
    """Does what is left to do of a job and returns its result, which is written to `result.json`."""
    before = finished(job, request)
    if before is not None:
        return before

    # train and score
    folder, start, processor = request.out / job.name, time.monotonic(), time.process_time()
    log(f"{job.name}: {job.config.train.images:,} images")
    if job.method is None:
        train(job.config, folder / "run", log)
        scores: dict[str, Any] = _reconstruction_scores(folder / "run")
    else:
        scores = _second_stage(job, job.method, request, folder, log)

    # write the result
    record = read_record(folder / "run" / "metrics.jsonl")
    result = {
        "options": to_dict(_plain(job.config)),
        "asked": _asked(job, request),
        "images": record[-1]["images"],
        "losses": losses(record),
        **scores,
        "seconds": {
            "training": record[-1]["seconds"],
            "this call": round(time.monotonic() - start, 1),
            "processor": round(time.process_time() - processor, 1),
        },
    }
    write_text(folder / RESULT, json.dumps(result, indent=2) + "\n")
    return result


def _plain(config: C) -> C:
    """The options of a training without the folders of its files."""
    data = replace(config.data, folder=Path(config.data.folder).name, labels=Path(config.data.labels).name, cache="")
    model = config.model
    if isinstance(model, VQGANConfig):
        files = model.perceptual
        names = replace(files, backbone=Path(files.backbone).name, heads=Path(files.heads).name)
        return replace(config, data=data, model=replace(model, perceptual=names))
    if isinstance(model, DiffusionConfig):
        return replace(config, data=data, model=replace(model, tokenizer=replace(model.tokenizer, folder="")))
    return replace(config, data=data)


def _asked(job: Job, request: Request) -> dict[str, Any]:
    """How a job is scored: if this differs from its result, it is scored again, but not trained again."""
    if job.method is None:
        return {}
    asked: dict[str, Any] = {"evaluation_seeds": request.size.evaluation_seeds, "official": job.method.official}
    if request.table == "table2":
        asked["distance"] = "FID" if request.inception else "without Inception"
    return asked


def losses(record: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean loss over the first and over the last tenth of the steps, and whether it fell."""
    steps = [loss for line in record for loss in line["per_step"]["loss"]]
    tenth = max(1, len(steps) // 10)
    first, last = float(np.mean(steps[:tenth])), float(np.mean(steps[-tenth:]))
    return {"first": first, "last": last, "fell": last < first}


def _reconstruction_scores(run: Path) -> dict[str, Any]:
    last = read_record(run / "metrics.jsonl")[-1]
    return {name: last.get(name) for name in ("psnr", "ssim", "codes_used", "perplexity")}


def _second_stage(job: Job, method: Method, request: Request, folder: Path, log: Log) -> dict[str, Any]:
    # train, and encode at each snapshot
    config, codes = job.config, folder / "codes"
    assert isinstance(config, RunConfig)
    dataset = open_dataset(config.data, config.model.image_size, log)
    train(config, folder / "run", log, on_save=lambda model: _encode_snapshot(model, config, request, dataset, codes))
    model = load(folder / "run", find_device())
    *earlier, last = sorted(codes.glob("*.npz"))

    # score the snapshots
    log(f"{job.name}: scoring")
    scores: dict[str, Any] = {
        "snapshots": [
            {"images": int(path.stem), **_scores(path, method.official, dataset, "official", 0)} for path in earlier
        ],
        "last": {
            "official": _last(last, method.official, dataset, "official", request),
            "robust": _last(last, ROBUST, dataset, "robust", request),
        },
        "untrained": _untrained(model, config.train.seed, dataset),
    }
    if request.table == "table2":
        scores["distance"] = _distance(model, dataset, request, config.train.seed, log)
    return scores


def _last(path: Path, kind: Kind, dataset: ImageSet, protocol: Protocol, request: Request) -> list[dict[str, Any]]:
    """Scores by evaluation seed."""
    seeds = range(request.size.evaluation_seeds)
    return [{"seed": seed, **_scores(path, kind, dataset, protocol, seed, ("downstream",))} for seed in seeds]


def _encode_snapshot(model: UnitModel, config: RunConfig, request: Request, dataset: ImageSet, folder: Path) -> None:
    """Writes the codes of all images if the model that was just saved is a snapshot."""
    images, options = model.history["images"], config.train
    every = options.save_every_images * request.size.saves_per_snapshot
    path = folder / f"{images:012d}.npz"
    due = images >= options.images or crosses(images - options.batch_size, images, every)
    if due and not path.exists():
        encode(model, dataset, path)


def encode(model: UnitModel, dataset: ImageSet, path: Path) -> None:
    """Writes `scalars` (n, N) and `components` (n, N) of all n images of a set.

    `components` has the first principal component of each unit's aligned tokens over the set, which is what the
    published script scores.
    """
    scalars = np.empty((len(dataset), model.num_units), np.float32)
    tokens = np.empty((len(dataset), model.num_units, model.token_dim), np.float32)
    for start in range(0, len(dataset), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(dataset)))
        codes = model.encode(dataset.images(rows))
        scalars[rows], tokens[rows] = codes.scalars, codes.aligned
    arrays = {"scalars": scalars, "components": one_number_per_unit(tokens).astype(np.float32)}

    def write(fresh: Path) -> None:
        with fresh.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    write_atomically(path, write)


def _scores(
    path: Path, kind: Kind, dataset: ImageSet, protocol: Protocol, seed: int, more: tuple[str, ...] = ()
) -> dict[str, float]:
    return score(np.load(path, allow_pickle=False)[kind], dataset, protocol, seed, more)


def score(
    codes: np.ndarray, dataset: ImageSet, protocol: Protocol, seed: int, more: tuple[str, ...] = ()
) -> dict[str, float]:
    """Scores of codes (n, N) by name: FactorVAE score, DCI and `more` on a grid of factors, else TAD of the labels."""
    if isinstance(dataset, FactorDataset):
        result = score_grid(codes, dataset.factor_sizes, metrics=(*GRID_SCORES, *more), protocol=protocol, seed=seed)
    else:
        labels = dataset.factors(np.arange(len(dataset)))
        result = score_rows(codes, labels, metrics=("tad",), protocol=protocol, seed=seed)
    return result.by_name()


def _untrained(model: UnitModel, seed: int, dataset: ImageSet) -> dict[str, float]:
    """Scores of the scalars of the untrained extractor, under the robust protocol."""
    scalars = scalars_of(model.untrained(seed), dataset, np.arange(len(dataset)), "encoding, untrained", quiet=True)
    return score(scalars, dataset, "robust", 0)


def _distance(model: UnitModel, dataset: ImageSet, request: Request, seed: int, log: Log) -> dict[str, Any]:
    """Distance of generated images from the set: FID with Inception's weights, else a distance of another name."""
    from unweave.evaluation.frechet import distance_to_data

    size = request.size
    distance = distance_to_data(
        model,
        dataset,
        num=size.drawn,
        weights=request.inception,
        sampling=replace(size.sampling, seed=seed),
        log=log,
    )
    return {name: distance[name] for name in ("name", "value", "images")}
