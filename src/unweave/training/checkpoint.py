"""The run folder: what is in it, and how it survives a kill, a full disk and a flipped bit.

    RUN/config.json         the options of the run
    RUN/metrics.jsonl       the training record
    RUN/state/000000064000/ a checkpoint after that many images: tensors.safetensors and manifest.json with its hash;
                            the last two are kept
    RUN/starts/0/           a run for each start where several are made; without its state once one was chosen
    RUN/model/              the trained model as it stands, see `models.folder`; of a first stage, diffusers' folder
    RUN/results.json        scores, once they were computed; TAD in attributes.json, FID in frechet.json

A checkpoint is written into a hidden folder and renamed: it is there whole or not at all.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from unweave.config import RunConfig, VQRunConfig
from unweave.configfile import differences, read_json, to_json
from unweave.errors import UserError, require
from unweave.files import explain_os_errors, hash_of, sync, write_text
from unweave.record import Log

Tensors = dict[str, torch.Tensor]
C = TypeVar("C", bound=RunConfig | VQRunConfig)

TENSORS = "tensors.safetensors"
MANIFEST = "manifest.json"
NUM_KEPT = 2

MAY_CHANGE = (
    "train.images",
    "train.workers",
    "train.threads",
    "train.log_every_images",
    "train.save_every_images",
    "train.accelerator",
    "train.compile",
    "data.cache",
    "data.cache_gb",
)
"""Options that a resumed run may change: they do not change what was trained so far."""


class Checkpoint(NamedTuple):
    """The state of a run after `images` images: named tensors and JSON values."""

    images: int
    tensors: Tensors
    values: dict[str, Any]


def open_run(run: Path, config: C) -> C:
    """Makes the run folder or, where it holds a run, checks that it is this one; returns the config to use.

    In it the paths of the data are whole, so that the run resumes from any working folder. Raises `UserError` when the
    folder holds a run with other options (each is named) or other files.
    """
    path, config = run / "config.json", _with_whole_paths(config)
    if path.exists():
        try:
            before = _with_whole_paths(read_json(type(config), path))
        except UserError as error:
            raise UserError(f"{run} holds no run of this kind ({error}): choose another --run") from None
        changed = [line for line in differences(before, config) if line.split(":")[0] not in MAY_CHANGE]
        require(
            not changed,
            f"{run} holds a run with other options ({'; '.join(changed)}): choose another --run, or the same options",
        )
    else:
        foreign = sorted(item.name for item in run.iterdir())[:3] if run.is_dir() else []
        require(not foreign, f"{run} is not empty and holds no run (found {', '.join(foreign)}): choose another --run")
        require(not run.is_file(), f"{run} is a file: choose another --run")
    write_text(path, to_json(config))
    for leftover in run.glob("state/.*"):  # of a process that was killed while saving
        shutil.rmtree(leftover)
    return config


def _with_whole_paths(config: C) -> C:
    """Paths that lead nowhere stay as they are: whoever opens them says so."""
    typed = {name: getattr(config.data, name) for name in ("folder", "labels", "cache")}
    whole = {name: os.path.abspath(os.path.expanduser(path)) for name, path in typed.items() if path}
    there = {name: path for name, path in whole.items() if name == "cache" or "{" in path or os.path.exists(path)}
    return replace(config, data=replace(config.data, **there))


def save(run: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint and removes all but the last two.

    Raises `UserError` when it cannot be written; the ones before stay as they are.
    """
    state = run / "state"
    folder = state / f"{checkpoint.images:012d}"
    fresh = state / f".{folder.name}.{os.getpid()}"
    with explain_os_errors(folder, "Nothing is lost: make room and run the same command again."):
        try:
            fresh.mkdir(parents=True)
            save_file({name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}, fresh / TENSORS)
            manifest = {"images": checkpoint.images, "values": checkpoint.values, "sha256": hash_of(fresh / TENSORS)}
            (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            for name in (TENSORS, MANIFEST):
                sync(fresh / name)
            if folder.exists():
                shutil.rmtree(folder)
            fresh.rename(folder)
            sync(state)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    for old in _folders(run)[:-NUM_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load(run: Path, log: Log) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where there is none yet.

    A damaged one is named through `log` and the one before it is used; `UserError` when all are damaged.
    """
    folders = _folders(run)
    for folder in reversed(folders):
        try:
            return _read(folder)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            log(f"{folder} is damaged ({error}); going back to the checkpoint before it")
    require(not folders, f"no checkpoint in {run / 'state'} can be read: delete that folder to start anew")
    return None


def newest(run: Path) -> Path | None:
    """The folder of the newest checkpoint, whole or not."""
    folders = _folders(run)
    return folders[-1] if folders else None


def _read(folder: Path) -> Checkpoint:
    manifest = json.loads((folder / MANIFEST).read_text())
    if hash_of(folder / TENSORS) != manifest["sha256"]:
        raise ValueError(f"the hash of {TENSORS} is not the one in {MANIFEST}")
    return Checkpoint(int(manifest["images"]), load_file(folder / TENSORS), manifest["values"])


def _folders(run: Path) -> list[Path]:
    state = run / "state"
    return sorted(item for item in state.iterdir() if item.name.isdigit()) if state.is_dir() else []
