"""Data sets with known factors; see `base.FactorDataset` for what each offers."""

from collections.abc import Callable
from pathlib import Path

from unweave.config import DataConfig
from unweave.data.base import FactorDataset, Frozen, StateSpace
from unweave.data.cache import cached, default_folder
from unweave.data.dsprites import DSprites
from unweave.data.rooms import Rooms
from unweave.errors import require

__all__ = ["DSprites", "FactorDataset", "Frozen", "Rooms", "StateSpace", "open_dataset"]

DATASETS = {"rooms": Rooms, "dsprites": DSprites}
IMAGE_SIZES = (32, 64)


def open_dataset(config: DataConfig, image_size: int, say: Callable[[str], None]) -> FactorDataset:
    """The data set that the options name, with its frozen factors, from the cache where it fits there.

    `say` is told what is written where. Raises `UserError` for unknown factors, values and image sizes.
    """
    require(
        image_size in IMAGE_SIZES,
        f"model.image_size is {image_size}: {config.name} is drawn at {' or '.join(map(str, IMAGE_SIZES))} px",
    )
    dataset: FactorDataset = DATASETS[config.name](image_size)
    if config.frozen:
        dataset = Frozen(dataset, config.frozen_values)
    return cached(dataset, Path(config.cache) if config.cache else default_folder(), config.cache_gb, say)
