"""Tables of presets: each row is a complete run, with all values visible. The command line overrides single options."""

from unweave.config import RunConfig
from unweave.presets.base import Preset
from unweave.presets.cpu import CPU
from unweave.presets.first_stage import FIRST_STAGES
from unweave.presets.published import GPU
from unweave.presets.rivals import RIVALS

PRESETS: dict[str, Preset[RunConfig]] = {**CPU, **RIVALS, **GPU}
"""Runs of models with units."""

__all__ = ["FIRST_STAGES", "PRESETS", "Preset"]
