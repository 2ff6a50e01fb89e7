"""`unweave encode`: the units of every image of a data set in one file, parquet for tables or npz for arrays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unweave.config import DataConfig
from unweave.data import is_place, open_dataset
from unweave.data.base import ImageSet
from unweave.data.sets import DRAWN
from unweave.errors import require
from unweave.files import write_atomically
from unweave.models.base import Codes, UnitModel, find_device
from unweave.models.folder import load
from unweave.record import Display, log

CHUNK = 2048


def encode_to_file(run: str, out: Path, data: str, device: str, batch_size: int, cache_gb: float = 0.0) -> None:
    """Writes `out` (.parquet or .npz): per image the index, scalars, tokens, aligned tokens, anchors and factors.

    In parquet, `scalar_3` is the scalar of unit 3, `token_3` its token as a list, and a factor with the name of another
    column is `label_NAME`. Raises `UserError` for another ending, an unknown model or a file that cannot be written.
    """
    require(out.suffix in (".parquet", ".npz"), f"{out} ends in {out.suffix!r}: choose .parquet or .npz")
    require(batch_size >= 1, f"batch_size is {batch_size}: must be at least 1")
    model = load(run, find_device(device))
    dataset = open_dataset(data_config(model, data, cache_gb), model.config.image_size, log)
    write_atomically(out, lambda path: _WRITERS[out.suffix](model, dataset, path, batch_size))
    log(f"wrote the units of {len(dataset):,} images to {out}")


def data_config(model: UnitModel, data: str = "", cache_gb: float = 0.0) -> DataConfig:
    """The options of the data set `data`, a name or a path, or of the training data if it is empty.

    A path is opened with the data options of training, including fixed factors; `cache_gb` can raise the limit of
    stored images. Raises `UserError` for an unknown name, and without training data.
    """
    config = _named(model, data)
    return replace(config, cache_gb=max(config.cache_gb, cache_gb))


def _named(model: UnitModel, data: str) -> DataConfig:
    if data in DRAWN:
        return DataConfig(data)
    if data:
        require(is_place(data), f"data is {data!r}: choose {', '.join(DRAWN)}, a path, or hf://OWNER/NAME")
        return replace(model.trained_on or DataConfig(), folder=data, labels="")
    require(model.trained_on is not None, "the model does not say what it was trained on: name a data set with --data")
    assert model.trained_on is not None
    return model.trained_on


def _chunks(model: UnitModel, dataset: ImageSet, batch_size: int):
    """Yields (indices, codes, factors) in chunks of images, so that memory does not grow with the set."""
    with Display("encoding", len(dataset), "images") as display:
        for start in range(0, len(dataset), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(dataset)))
            yield rows, model.encode(dataset.images(rows), batch_size), dataset.factors(rows)
            display.update(start + len(rows))


def _write_parquet(model: UnitModel, dataset: ImageSet, path: Path, batch_size: int) -> None:
    writer: pq.ParquetWriter | None = None
    for rows, codes, factors in _chunks(model, dataset, batch_size):
        table = _table(rows, codes, factors, dataset.factor_names)
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def _table(rows: np.ndarray, codes: Codes, factors: np.ndarray, names: tuple[str, ...]) -> pa.Table:
    columns: dict[str, pa.Array] = {"index": pa.array(rows)}
    for unit in range(codes.scalars.shape[1]):
        columns[f"scalar_{unit}"] = pa.array(codes.scalars[:, unit])
    for unit in range(codes.scalars.shape[1]):
        columns[f"anchor_{unit}"] = pa.array(codes.anchors[:, unit])
        columns[f"token_{unit}"] = _vectors(codes.tokens[:, unit])
        columns[f"aligned_{unit}"] = _vectors(codes.aligned[:, unit])
    for column, name in enumerate(names):
        columns[f"label_{name}" if name in columns else name] = pa.array(factors[:, column])
    return pa.table(columns)


def _vectors(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _write_npz(model: UnitModel, dataset: ImageSet, path: Path, batch_size: int) -> None:
    parts = list(_chunks(model, dataset, batch_size))
    arrays = {
        name: np.concatenate([getattr(codes, name) for _, codes, _ in parts])
        for name in ("scalars", "tokens", "aligned", "anchors")
    }
    arrays["index"] = np.concatenate([rows for rows, _, _ in parts])
    arrays["factor_names"] = np.array(dataset.factor_names)
    arrays["factors"] = np.concatenate([factors for _, _, factors in parts])
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


_WRITERS = {".parquet": _write_parquet, ".npz": _write_npz}
