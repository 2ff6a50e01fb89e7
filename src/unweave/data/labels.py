"""Labels of your own images, from a table of file names."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from unweave.data.store import explain_damage
from unweave.errors import UserError, require
from unweave.record import Log


class Labels(NamedTuple):
    """A table of labels, one row per image."""

    names: tuple[str, ...]
    values: np.ndarray
    """(n, F): numbers; words are replaced by their number in alphabetical order."""


def labels_of(columns: pa.Table, kept: Sequence[int], log: Log) -> Labels | None:
    """Labels of the images `kept`, from the columns of a table (a row per image) that have a number in all those rows.

    Logs the names of the other columns. None if there is no such column.
    """
    numbers = columns.select([field.name for field in columns.schema if _is_number(field.type)])
    numbers = numbers.take(kept) if len(kept) < len(numbers) else numbers
    names = [name for name in numbers.column_names if not numbers[name].null_count]
    others = [name for name in columns.column_names if name not in names]
    if others:
        log(f"no labels, because not every image has a number there: {', '.join(others)}")
    return Labels(tuple(names), np.stack([_numbers(numbers[name]) for name in names], axis=1)) if names else None


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def read_labels(path: Path, names: Sequence[str], kept: Sequence[int], num: int) -> Labels:
    """Labels of the images `kept` of `num`, from a .csv (a header; file names, then a column per label), or CelebA's
    list_attr_celeba.txt.

    Rows are matched by the image's path, or by its file name only; rows of other images are left out. If images have no
    `names` (an array) every column is a label and the rows are the images in order. Raises `UserError` with the file
    and the column for a table that cannot be read or does not fit.
    """
    table = _celeba(path) if path.suffix == ".txt" else _csv(path)
    columns = table.column_names
    if not names:
        require(table.num_rows == num, f"{path} has {table.num_rows:,} rows for {num:,} images: give one per image")
        rows = np.asarray(kept)
    else:
        require(len(columns) >= 2, f"{path} has the columns {columns}: give file names, then a column per label")
        listed = [str(name) for name in table[columns[0]].to_pylist()]
        rows = _rows_of([names[index] for index in kept], listed, path)
        columns = columns[1:]
    for name in columns:
        empty = table[name].null_count
        require(not empty, f"{path} column {name!r} is empty in {empty:,} rows: fill them")
    return Labels(tuple(columns), np.stack([_numbers(table[name])[rows] for name in columns], axis=1))


def _rows_of(files: Sequence[str], listed: Sequence[str], path: Path) -> np.ndarray:
    whole = {name: row for row, name in enumerate(listed)}
    short = {name.rpartition("/")[2]: row for row, name in enumerate(listed)}
    rows = [whole.get(name, short.get(name.rpartition("/")[2], -1)) for name in files]
    missing = [name for name, row in zip(files, rows) if row < 0]
    require(
        not missing,
        f"{path} has no row for {missing[0] if missing else ''} ({len(missing):,} of {len(files):,} images have none): "
        f"add them, or remove the images",
    )
    return np.array(rows, np.int64)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    values = column.to_numpy()
    if values.dtype.kind in "biuf":
        return values.astype(np.float64) if values.dtype.kind == "f" else values.astype(np.int64)
    return np.unique(values.astype(str), return_inverse=True)[1]


def _csv(path: Path) -> pa.Table:
    try:
        return pa_csv.read_csv(path)
    except FileNotFoundError:
        raise UserError(f"data.labels is {path}, which does not exist") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read as CSV: {str(error).splitlines()[0]}") from None


def _celeba(path: Path) -> pa.Table:
    """CelebA's own format: the number of images, the names of the attributes, then a file name and -1 or 1 for each."""
    require(path.exists(), f"data.labels is {path}, which does not exist")
    with explain_damage(path, "cannot be read as list_attr_celeba.txt"):
        count, names, body = path.read_text().split("\n", 2)
        columns = pa_csv.ReadOptions(column_names=["image", *names.split()])
        while "  " in body:
            body = body.replace("  ", " ")
        body = body.replace(" \n", "\n")
        table = pa_csv.read_csv(io.BytesIO(body.encode()), columns, pa_csv.ParseOptions(delimiter=" "))
        if int(count) != table.num_rows:
            raise ValueError(f"it should have {count} rows, but has {table.num_rows:,}")
        if not all(pa.types.is_integer(kind) for kind in table.schema.types[1:]):
            raise ValueError("attributes are -1 or 1")
        return table
