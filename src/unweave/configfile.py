"""Configs to and from JSON, and the differences between two of them."""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from unweave.config import MODELS, ModelConfig
from unweave.errors import UserError, require

T = TypeVar("T")

RENAMED = {
    "DataConfig": {"fit": "crop", "frozen": "fixed"},
    "EncoderConfig": {"kl": "beta", "kl_start": "beta_initial", "kl_settled": "beta_annealing"},
    "TrainConfig": {"starts": "restarts", "start_images": "restart_images"},
    "VQTrainConfig": {"starts": "restarts", "start_images": "restart_images"},
}
"""By class: names of options that earlier versions saved, and their present names."""
RENAMED_VALUES = {
    ("DataConfig", "crop"): {"crop": "center"},
    ("AnchorConfig", "mode"): {"official": "published", "principled": "corrected"},
}
"""By class and option: the same for values."""
REMOVED = {"AnchorConfig": {"covariance": "full"}}
"""By class: options that earlier versions saved, with the one value that is still supported."""


def to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as nested dicts of JSON values; the options of a model say in `kind` which row of `MODELS`."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    kind = {"kind": _kind_of(config)} if isinstance(config, ModelConfig) else {}
    return kind | {name: to_dict(value) if dataclasses.is_dataclass(value) else value for name, value in values.items()}


def _kind_of(config: ModelConfig) -> str:
    """The row of `MODELS` that a model's options belong to."""
    return next(name for name, row in MODELS.items() if row.options is type(config))


def to_json(config: Any) -> str:
    """A config dataclass as JSON text."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_dict(kind: type[T], values: dict[str, Any], where: str = "config") -> T:
    """The inverse of `to_dict`. Raises `UserError` that names an unknown option or a value of the wrong type.

    Missing options take their defaults and options of earlier versions their new names, so that older files load.
    """
    require(isinstance(values, dict), f"{where} should be a JSON object, found {values!r}")
    if kind is ModelConfig:
        name, values = values.get("kind", "diffusion"), {key: values[key] for key in values if key != "kind"}
        require(name in MODELS, f"{where}.kind is {name!r}: this version knows {list(MODELS)}")
        kind = typing.cast(type[T], MODELS[name].options)
    values = _with_new_names(kind.__name__, values, where)
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    require(not unknown, f"{where} has unknown options {unknown}: known are {sorted(hints)}")
    return kind(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _with_new_names(kind: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    names = RENAMED.get(kind, {})
    values = {names.get(name, name): value for name, value in values.items()}
    for name, left in REMOVED.get(kind, {}).items():
        value = values.pop(name, left)
        require(
            value == left,
            f"{where}.{name} is {value!r}: this version has only {left!r}; use an earlier version, or train again",
        )
    for (owner, name), renamed in RENAMED_VALUES.items():
        if owner == kind and isinstance(values.get(name), str):
            values[name] = renamed.get(values[name], values[name])
    return values


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        require(value in arguments, f"{where} is {value!r}: choose from {list(arguments)}")
        return value
    if origin is tuple:
        require(isinstance(value, list | tuple), f"{where} is {value!r}: should be a list")
        return tuple(_value(arguments[0], item, where) for item in value)
    if origin is dict:
        require(isinstance(value, dict), f"{where} is {value!r}: should be an object")
        return {_value(arguments[0], k, where): _value(arguments[1], v, where) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    matches = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    require(matches, f"{where} is {value!r}: should be {hint.__name__}")
    return value


def read_json(kind: type[T], path: Path) -> T:
    """A config from a JSON file. Raises `UserError` that names the file if it is missing or not valid."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error})") from None
    return from_dict(kind, values, str(path))


def differences(ours: Any, theirs: Any, prefix: str = "") -> list[str]:
    """The options in which two configs of one kind differ, as `name: ours -> theirs` lines."""
    lines = []
    for item in dataclasses.fields(ours):
        a, b = getattr(ours, item.name), getattr(theirs, item.name)
        if isinstance(a, ModelConfig) and type(a) is not type(b):
            lines.append(f"{prefix}{item.name}.kind: {_kind_of(a)!r} -> {_kind_of(b)!r}")
        elif dataclasses.is_dataclass(a) and not isinstance(a, type):
            lines += differences(a, b, f"{prefix}{item.name}.")
        elif a != b:
            lines.append(f"{prefix}{item.name}: {a!r} -> {b!r}")
    return lines
