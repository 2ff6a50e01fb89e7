"""Pull the factors behind images apart, without labels.

>>> import unweave
>>> model = unweave.load("rooms-cpu")
>>> codes = model.encode(images)          # images: uint8 (n, H, W, 3)
>>> pictures = model.decode(codes.aligned)

Importing the package loads nothing else; torch is imported with the first name that needs it.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unweave.errors import UserError
    from unweave.estimator import UnitEncoder
    from unweave.models.base import Codes, UnitModel
    from unweave.models.diffusion import DiffusionModel
    from unweave.models.folder import load

__version__ = version("unweave")

__all__ = ["Codes", "DiffusionModel", "UnitEncoder", "UnitModel", "UserError", "load"]

_HOMES = {
    "Codes": "models.base",
    "DiffusionModel": "models.diffusion",
    "UnitEncoder": "estimator",
    "UnitModel": "models.base",
    "UserError": "errors",
    "load": "models.folder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unweave' has no attribute {name!r}")
    return getattr(importlib.import_module(f"unweave.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
