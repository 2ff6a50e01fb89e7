"""The run folder, whose checkpoints survive a kill, a full disk and a flipped bit.

    RUN/config.json         the options of the run
    RUN/metrics.jsonl       the training record
    RUN/state/000000064000/ a checkpoint after that many images: tensors.safetensors and manifest.json with its hash;
                            the last two are kept
    RUN/starts/0/           a run for each of several restarts; without its state when one has been chosen
    RUN/model/              the trained model, see `models.folder`; of a first stage, a folder of diffusers
    RUN/results.json        scores, when they have been computed; TAD in attributes.json, FID in frechet.json

A checkpoint is written to a hidden folder, which is then renamed: it is complete or missing.
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
"""Options that a resumed run may change, because they have no effect on the training so far."""


class Checkpoint(NamedTuple):
    """The state of a run after `images` images: named tensors and JSON values."""

    images: int
    tensors: Tensors
    values: dict[str, Any]


def open_run(run: Path, config: C) -> C:
    """Makes the run folder, or checks that the run in it has these options; returns the config to use.

    Its paths of the data are absolute, so that the run can be resumed from any working folder. Raises `UserError` if
    the folder holds a run with other options (each is named) or other files.
    """
    path, config = run / "config.json", _with_absolute_paths(config)
    if path.exists():
        # the options must be the same
        try:
            before = _with_absolute_paths(read_json(type(config), path))
        except UserError as error:
            raise UserError(f"{run} holds no run of this kind ({error}): choose another --run") from None
        changed = [line for line in differences(before, config) if line.split(":")[0] not in MAY_CHANGE]
        require(
            not changed,
            f"{run} holds a run with other options ({'; '.join(changed)}): choose another --run, or the same options",
        )
    else:
        # the folder must be new or empty
        foreign = sorted(item.name for item in run.iterdir())[:3] if run.is_dir() else []
        require(not foreign, f"{run} is not empty and holds no run (found {', '.join(foreign)}): choose another --run")
        require(not run.is_file(), f"{run} is a file: choose another --run")
    write_text(path, to_json(config))
    for leftover in run.glob("state/.*"):  # from a process that was killed while saving
        shutil.rmtree(leftover)
    return config


def _with_absolute_paths(config: C) -> C:
    """Paths that do not exist stay as they are; opening them raises the error."""
    given = {name: getattr(config.data, name) for name in ("folder", "labels", "cache")}
    absolute = {name: os.path.abspath(os.path.expanduser(path)) for name, path in given.items() if path}
    valid = {name: path for name, path in absolute.items() if name == "cache" or "{" in path or os.path.exists(path)}
    return replace(config, data=replace(config.data, **valid))


def save(run: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint and removes all but the last two. Raises `UserError` if it cannot be written; earlier ones
    are then kept as they are."""
    # write into a hidden folder, then rename it
    state = run / "state"
    folder = state / f"{checkpoint.images:012d}"
    fresh = state / f".{folder.name}.{os.getpid()}"
    with explain_os_errors(folder, "Nothing is lost: free space and run the same command again."):
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

    # remove earlier ones
    for old in _folders(run)[:-NUM_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load(run: Path, log: Log) -> Checkpoint | None:
    """The newest intact checkpoint; None if there is none yet.

    A damaged one is logged and the one before it is used. Raises `UserError` if all are damaged.
    """
    folders = _folders(run)
    for folder in reversed(folders):
        try:
            return _read(folder)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            log(f"{folder} is damaged ({error}); using the checkpoint before it")
    require(not folders, f"no checkpoint in {run / 'state'} can be read: delete that folder to start again")
    return None


def newest(run: Path) -> Path | None:
    """The folder of the newest checkpoint, intact or not."""
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
