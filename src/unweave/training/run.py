"""All that stays the same during a run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unweave.config import DataConfig, RunConfig, VQRunConfig
from unweave.data.base import ImageSet
from unweave.record import Log, Record
from unweave.training.runtime import Fabric


@dataclass(frozen=True)
class Run:
    """One process's view of a run: its options, its folder and its images."""

    fabric: Fabric
    config: RunConfig | VQRunConfig
    folder: Path
    dataset: ImageSet
    trained_on: DataConfig | None
    """The options of the data set; None for images in memory."""
    rows: np.ndarray
    held_out: np.ndarray
    record: Record
    log: Log

    @property
    def quiet(self) -> bool:
        """Whether this process prints and writes nothing, because another does."""
        return not self.fabric.is_global_zero
