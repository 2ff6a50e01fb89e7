"""Hugging Face data sets: from the Hub, saved to disk, or a folder or file of parquet.

The `datasets` library downloads and opens them, and keeps them in its own cache (HF_HOME); the required versions run no
code of a data set. It gives pictures as undecoded files, which are decoded as all others are.
"""

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unweave.data.pictures import Crop, Pictures, read_picture, walk
from unweave.errors import UserError, require

if TYPE_CHECKING:
    from datasets import Dataset

HUB = "hf://"


class Name(NamedTuple):
    """The parts of `hf://OWNER/NAME`, with `/CONFIG` and `:SPLIT` if there are several."""

    place: str
    """OWNER/NAME, or the path of a local folder or file."""
    is_local: bool
    config: str | None = None
    split: str | None = None


def parse(address: str) -> Name:
    """Parses `hf://OWNER/NAME`, `hf://OWNER/NAME/CONFIG:SPLIT`, or a path with or without `hf://`.

    A path begins with `/`, `.` or `~`, an OWNER with none of these. Raises `UserError` for anything else.
    """
    if not address.startswith(HUB):
        return Name(str(Path(address).expanduser().absolute()), is_local=True)
    place, _, split = address.removeprefix(HUB).partition(":")
    if place.startswith(("/", ".", "~")):
        return Name(str(Path(place).expanduser().absolute()), is_local=True, split=split or None)
    parts = place.split("/")
    require(
        2 <= len(parts) <= 3 and all(parts),
        f"data.folder is {address}: write hf://OWNER/NAME, hf://OWNER/NAME/CONFIG or hf://OWNER/NAME:SPLIT",
    )
    return Name("/".join(parts[:2]), is_local=False, config=parts[2] if len(parts) == 3 else None, split=split or None)


def is_hub(address: str) -> bool:
    """Whether `address` is for the `datasets` library: hf://, a set saved by it, or parquet files without pictures."""
    path = Path(address).expanduser()
    if address.startswith(HUB) or (path.is_file() and path.suffix == ".parquet"):
        return True
    if _is_saved(path):
        return True
    has_parquet = any(path.glob("*.parquet")) or any(path.glob("*/*.parquet"))
    return has_parquet and not any(walk(path, {}))


def _is_saved(path: Path) -> bool:
    """Whether `save_to_disk` wrote a folder: one split, or several."""
    one = (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    return one or (path / "dataset_dict.json").is_file()


class HubSource(Pictures):
    """The picture column of a Hugging Face data set; the numbers in the other columns are labels."""

    def __init__(self, address: str, size: int, crop: Crop):
        dataset = _load(address)
        from datasets import Image

        column = _picture_column(dataset, address)
        name = Path(parse(address).place).name
        super().__init__(name, size, crop, dataset._fingerprint)
        self.column = column
        self.pictures = dataset.select_columns([column]).cast_column(column, Image(decode=False))
        self.columns = dataset.remove_columns([column]).with_format("arrow")[:]

    def __len__(self) -> int:
        return len(self.pictures)

    def readers(self, start: int, stop: int) -> Iterator[Callable[[], np.ndarray]]:
        return (partial(self.picture, index) for index in range(start, stop))

    def title(self, index: int) -> str:
        return f"row {index}"

    def picture(self, index: int) -> np.ndarray:
        """A picture, from the bytes in its row or from the file that the row names; nothing is downloaded."""
        cell = self.pictures[index][self.column] or {}
        if cell.get("bytes") is not None:
            return read_picture(io.BytesIO(cell["bytes"]), self.image_shape[0], self.crop)
        if cell.get("path"):
            return read_picture(Path(cell["path"]), self.image_shape[0], self.crop)
        raise ValueError("empty")


def _load(address: str) -> "Dataset":
    """One split, without a format. Raises `UserError` with the reason of the library if it cannot be loaded."""
    try:
        import datasets
        from datasets.exceptions import DatasetGenerationError
    except ModuleNotFoundError:
        raise UserError(f"data.folder is {address}: Hugging Face data sets need pip install 'unweave[hf]'") from None
    name = parse(address)
    try:
        if name.is_local and _is_saved(Path(name.place)):
            saved = datasets.load_from_disk(name.place)
            splits = saved if isinstance(saved, dict) else {str(saved.split or "all"): saved}
        elif name.is_local and Path(name.place).is_file():
            splits = datasets.load_dataset("parquet", data_files=name.place, split=name.split)
        else:
            place = name.place if name.is_local else f"hf://datasets/{name.place}"  # never a local folder of that name
            splits = datasets.load_dataset(place, name.config, split=name.split)
    except Exception as error:  # noqa: BLE001  # errors of datasets, its HTTP client and Arrow have no common base
        known = isinstance(error, DatasetGenerationError) and error.__cause__
        raise UserError(f"{address} cannot be opened: {' '.join(str(known or error).split())}") from None
    return (_split(splits, name, address) if isinstance(splits, dict) else splits).with_format(None)


def _split(splits: "dict[Any, Dataset]", name: Name, address: str) -> "Dataset":
    """The named split, or the only one. Raises `UserError` with the names for several."""
    chosen = name.split or (next(iter(splits)) if len(splits) == 1 else "")
    if chosen not in splits:
        place = "/".join(filter(None, (name.place, name.config)))
        names = ", ".join(f"{split} ({len(rows):,})" for split, rows in splits.items())
        raise UserError(f"{address} has the splits {names}: choose one, as in {HUB}{place}:{next(iter(splits))}")
    return splits[chosen]


def _picture_column(dataset: "Dataset", address: str) -> str:
    from datasets import Image

    pictures = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    columns = ", ".join(f"{name} ({_kind(feature)})" for name, feature in dataset.features.items())
    require(
        len(pictures) > 0,
        f"{address} has no column of pictures, only {columns}: cast the one that holds them, "
        f"dataset.cast_column(NAME, datasets.Image()).save_to_disk(FOLDER), and give FOLDER",
    )
    require(
        len(pictures) == 1,
        f"{address} has several columns of pictures, {' and '.join(pictures)}: keep one, "
        f"dataset.remove_columns({pictures[1:]}).save_to_disk(FOLDER), and give FOLDER",
    )
    return pictures[0]


def _kind(feature: object) -> str:
    return getattr(feature, "dtype", None) or type(feature).__name__
