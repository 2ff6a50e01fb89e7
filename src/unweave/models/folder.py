"""A model as a folder: `config.json`, `model.safetensors`, a card, and `names.json` if its units have names.

The folder has all that is needed to use the model; nothing in it is code.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from unweave.config import DataConfig, ModelConfig
from unweave.configfile import from_dict, to_dict
from unweave.errors import UserError, require
from unweave.files import write_atomically, write_text
from unweave.models.base import UnitModel, make_model
from unweave.models.card import write_card
from unweave.models.tokenizer import VQ_WEIGHTS

FORMAT = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
NAMES = "names.json"
RESULTS = "results.json"
ATTRIBUTES = "attributes.json"
LONGEST_NAME = 40


def bundled() -> list[str]:
    """Names of the models that come with the package."""
    folder = resources.files("unweave") / "weights"
    return sorted(item.name for item in folder.iterdir() if item.is_dir()) if folder.is_dir() else []


def save_model(model: UnitModel, folder: Path) -> None:
    """Writes the model folder and its card, each file atomically. Raises `UserError` if it cannot be written."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(folder / WEIGHTS, lambda path: save_file(tensors, path))
    config = {
        "format": FORMAT,
        "model": to_dict(model.config),
        "trained_on": to_dict(model.trained_on) if model.trained_on else None,
        "history": model.history,
    }
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    if model.unit_names:
        _write_names(folder, model.unit_names)
    write_card(model, folder, read_results(folder.parent, model), read_results(folder.parent, model, ATTRIBUTES))


def name_unit(name: str | Path, unit: int, text: str) -> dict[int, str]:
    """Names a unit of a model on this disk, or removes its name if `text` is empty; returns all names by unit.

    Names have a file of their own, so that further training keeps them. Raises `UserError` for an unknown unit, a name
    that is too long for a label, and a shared model: bundled, or from the Hub.
    """
    folder = find(name)
    require(
        Path(name).exists(),
        f"{name} is not a folder of yours: copy {folder} to one, and name the units of the copy",
    )
    num_units = _read_config(folder)[0].num_units
    require(0 <= unit < num_units, f"there is no unit {unit}: choose from 0 to {num_units - 1}")
    text = " ".join(text.split())
    require(len(text) <= LONGEST_NAME, f"the name {text!r} has {len(text)} letters: at most {LONGEST_NAME} fit a label")
    names = {**_read_names(folder, num_units), unit: text}
    kept = {number: names[number] for number in sorted(names) if names[number]}
    _write_names(folder, kept)
    return kept


def load(name: str | Path, device: str | torch.device = "cpu") -> UnitModel:
    """A model by its folder, run folder, name as a bundled model, or name on the Hugging Face Hub.

    Ready to encode and decode (eval mode). Raises `UserError` if there is none or a file of it is damaged.
    """
    folder = find(name)
    config, trained_on, history = _read_config(folder)
    model = make_model(config)
    _load_weights(model, folder / WEIGHTS)
    model.trained_on, model.history = trained_on, history
    model.unit_names = _read_names(folder, model.num_units)
    return model.to(device).eval()


def find(name: str | Path) -> Path:
    """The folder of a model: `name` itself, its `model` folder if it is a run, a bundled one, or a download. Raises
    `UserError` if there is none."""
    # on this disk
    path = Path(name)
    for folder in (path, path / "model"):
        if (folder / WEIGHTS).is_file():
            return folder
    for folder in (path, path / "model"):
        require(
            not (folder / VQ_WEIGHTS).is_file(),
            f"{path} is a first stage, which has no units: train a model on it, --model.tokenizer.folder {folder}",
        )
    if path.exists():
        raise UserError(f"{path} holds no model: expected {CONFIG} and {WEIGHTS} there or in {path / 'model'}")

    # bundled, or on the Hub
    if str(name) in bundled():
        return Path(str(resources.files("unweave") / "weights" / str(name)))
    try:
        return Path(snapshot_download(str(name), allow_patterns=[CONFIG, WEIGHTS, NAMES]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        raise UserError(
            f"no model {str(name)!r}: not a folder, not one of the bundled {bundled()}, "
            "and it could not be downloaded from the Hugging Face Hub"
        ) from None


def home(name: str | Path) -> Path:
    """The folder for results and pictures of a model: its run folder, or else `runs/NAME` in the working folder."""
    path = Path(name)
    for run in (path, path.parent):
        if (run / "config.json").is_file() and (run / "model" / WEIGHTS).is_file():
            return run
    return Path("runs") / path.name


def read_results(folder: Path, model: UnitModel, name: str = RESULTS) -> dict[str, Any] | None:
    """The content of `results.json` (or the file `name`) in a folder; None if it is missing or not of this model."""
    try:
        results = json.loads((folder / name).read_text())
    except (OSError, ValueError):
        return None
    return results if results.get("history") == model.history else None


def _read_config(folder: Path) -> tuple[ModelConfig, DataConfig | None, dict[str, Any]]:
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text())
        model, trained_on = values["model"], values["trained_on"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error!r}): copy the model folder again") from None
    require(values.get("format") == FORMAT, f"{path} has format {values.get('format')}: this version reads {FORMAT}")
    data = from_dict(DataConfig, trained_on, f"{path}: trained_on") if trained_on else None
    return from_dict(ModelConfig, model, f"{path}: model"), data, values.get("history", {})


def _read_names(folder: Path, num_units: int) -> dict[int, str]:
    path = folder / NAMES
    if not path.exists():
        return {}
    try:
        names = {int(unit): str(text) for unit, text in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it, and name the units again") from None
    foreign = sorted(set(names) - set(range(num_units)))
    require(not foreign, f"{path} names units {foreign}: choose from 0 to {num_units - 1}")
    return names


def _write_names(folder: Path, names: dict[int, str]) -> None:
    write_text(folder / NAMES, json.dumps(names, indent=2, ensure_ascii=False) + "\n")


def _load_weights(model: UnitModel, path: Path) -> None:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}): copy the model folder again") from None
    try:
        missing, foreign = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit its {CONFIG}: {str(error).splitlines()[-1].strip()}") from None
    require(
        not missing and not foreign,
        f"{path} does not fit its {CONFIG}: missing {missing[:3]}, unknown {foreign[:3]}",
    )
