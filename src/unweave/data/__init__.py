"""Data sets: generated, published, or your own pictures; `base` has their interface."""

from pathlib import Path

from unweave.config import DataConfig
from unweave.data.base import FactorDataset, Fixed, ImageSet, StateSpace
from unweave.data.cache import Stored, StoredGrid, cache_folder, cached, store_path
from unweave.data.hub import HUB, HubSource, is_hub
from unweave.data.labels import Labels, labels_of, read_labels
from unweave.data.pictures import ArraySource, FolderSource, Pictures, ZipSource
from unweave.data.sets import check_drawn, draw, open_published
from unweave.data.sets.dsprites import DSprites
from unweave.data.sets.rooms import Rooms
from unweave.data.shards import ShardSource, find_shards
from unweave.data.store import Source, Store, converted
from unweave.errors import UserError, require
from unweave.record import Log

__all__ = [
    "DSprites",
    "FactorDataset",
    "Fixed",
    "ImageSet",
    "Rooms",
    "StateSpace",
    "check_name",
    "is_place",
    "open_dataset",
]

SMALLEST_SIZE = 8
HOW_CROPPED = {
    "center": "cropped to their middle square",
    "pad": "padded with black bars",
    "stretch": "stretched to a square",
    "celeba_128": "cropped to 128 px around CelebA's faces",
    "celeba_96": "resized to CelebA's 96 px and cropped to the middle 64",
}


def is_place(place: str) -> bool:
    """Whether `place` may have images: an existing path, shards in braces, or a set of the Hub."""
    return place.startswith(HUB) or "{" in place or Path(place).expanduser().exists()


def check_name(config: DataConfig) -> None:
    """Raises `UserError` unless the options name a generated set or images of your own."""
    if not config.folder:
        check_drawn(config.name)


def open_dataset(config: DataConfig, image_size: int, log: Log) -> ImageSet:
    """The data set of the options, with its fixed factors; from the cache if it fits there.

    A `FactorDataset` if the images are a full grid of factors. Logs what is written where. Raises `UserError` for
    unknown names, factors, values and image sizes, and for images that are missing or damaged.
    """
    folder = cache_folder(config.cache)
    if config.folder:
        return _open_own(config, image_size, folder, log)
    require(not config.labels, f"data.labels is {config.labels}: labels belong to your own images, see data.folder")
    dataset = draw(config.name, image_size)
    if config.fixed:
        dataset = Fixed(dataset, config.fixed_values)
    return cached(dataset, folder, config.cache_gb, log)


def _open_own(config: DataConfig, size: int, folder: Path, log: Log) -> ImageSet:
    """The images of `config.folder`, from their store."""
    # store the images
    place, path = config.folder, Path(config.folder).expanduser()
    require(is_place(place), f"data.folder is {place}, which does not exist")
    require(size >= SMALLEST_SIZE, f"model.image_size is {size}: must be at least {SMALLEST_SIZE}")
    published = open_published(path, size) if path.exists() else None
    source = published or _source(config, size, folder, log)
    store = converted(source, store_path(folder, source.name, size, source.version), config, log)

    # a published grid, or images with a table of labels
    if published:
        require(not config.labels, f"data.labels is {config.labels}: {path} is a published set with its own labels")
        log(f"{path} is {source.name}: {len(source):,} images, {' x '.join(map(str, published.space.sizes))}")
        dataset = StoredGrid(source.name, source.version, published.space, store.path)
        return Fixed(dataset, config.fixed_values) if config.fixed else dataset
    if config.fixed:
        log(f"{place} has no factors: {', '.join(config.fixed)} of data.fixed does not apply")
    log(f"{place}: images are {HOW_CROPPED[config.crop]} at {size} px (--data.crop center, pad or stretch)")
    return Stored(source.name, source.version, store.path, _labels(source, store, config, log))


def _source(config: DataConfig, size: int, folder: Path, log: Log) -> Source:
    place, path = config.folder, Path(config.folder).expanduser()
    if is_hub(place):
        return HubSource(place, size, config.crop)
    if shards := find_shards(place):
        return ShardSource(shards, path.name, size, config.crop, folder, log)
    if path.is_dir():
        return FolderSource(path, size, config.crop)
    if path.suffix == ".zip":
        return ZipSource(path, size, config.crop)
    if path.suffix in (".npy", ".npz"):
        return ArraySource(path, size, config.crop)
    raise UserError(
        f"data.folder is {place}: choose a folder or .zip of pictures, an .npy or .npz array, .tar shards, a .parquet "
        f"file, a data set of Hugging Face (hf://OWNER/NAME), or a published file (.h5, .npz, .tar.gz)"
    )


def _labels(source: Source, store: Store, config: DataConfig, log: Log) -> Labels | None:
    """Labels from the table of the options, else those of the source of the images."""
    names, columns = (source.names, source.columns) if isinstance(source, Pictures) else ((), None)
    if config.labels:
        return read_labels(Path(config.labels).expanduser(), names, store.kept(len(source)), len(source))
    return labels_of(columns, store.kept(len(source)), log) if columns is not None else None
