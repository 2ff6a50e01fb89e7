"""`unweave score`: codes and factors from files, all scores as one table, JSON and pictures."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from rich.table import Table

from unweave.config import UserError, require
from unweave.metrics.inputs import Protocol
from unweave.metrics.suite import SuiteResult, score_grid, score_rows, summarise
from unweave.record import console, say

ENDINGS = (".npy", ".npz", ".csv", ".parquet")
OF_UNITS = ("scalar_", "token_", "aligned_", "anchor_")  # columns that `unweave encode` writes beside the factors


class Columns(NamedTuple):
    """A table of numbers, or of words, with a name for each column."""

    values: np.ndarray
    names: tuple[str, ...]


def score_files(
    codes: Path, factors: Path | None, sizes: Sequence[int], metrics: Sequence[str], protocol: Protocol, seeds: int
) -> tuple[list[SuiteResult], tuple[str, ...]]:
    """The results of `seeds` evaluation seeds, and the names of the factors.

    Factors come from their own file, from the file of the codes, or, with `sizes`, from the row numbers of a full grid.
    Raises `UserError`, naming the file, where one cannot be read or they do not fit.
    """
    require(seeds >= 1, f"seeds is {seeds}: must be at least 1")
    table = read_codes(codes)
    if sizes:
        require(factors is None, f"give factors ({factors}) or sizes {list(sizes)}, not both")
        names = tuple(f"factor {index}" for index in range(len(sizes)))
        return [score_grid(table, sizes, metrics=metrics, protocol=protocol, seed=seed) for seed in range(seeds)], names
    labels = read_factors(factors or codes)
    return [
        score_rows(table, labels.values, metrics=metrics, protocol=protocol, seed=seed) for seed in range(seeds)
    ], labels.names


def read_codes(path: Path) -> np.ndarray:
    """Codes (N, D), or (N, units, dim), of a file: `scalars` or `codes` of an npz, the columns `scalar_0`, ... of what
    `unweave encode` wrote, else every column."""
    found = _read(path)
    if isinstance(found, dict):
        if len(found) == 1:
            return next(iter(found.values()))
        for name in ("scalars", "codes"):
            if name in found:
                return found[name]
        raise UserError(f"{path} has the arrays {sorted(found)}: call the codes `scalars` or `codes`")
    if isinstance(found, np.ndarray):
        return found
    names = [name for name in found.column_names if name.startswith("scalar_")] or found.column_names
    return _numbers(found, names, path)


def read_factors(path: Path) -> Columns:
    """Factors (N, F) of a file: `factors` of an npz, what `unweave encode` wrote beside units, else every column."""
    found = _read(path)
    if isinstance(found, dict):
        require("factors" in found, f"{path} has the arrays {sorted(found)}: call the factors `factors`")
        values = found["factors"]
        names = found.get("factor_names", np.arange(values.shape[1] if values.ndim == 2 else 0))
        return Columns(values, tuple(str(name) for name in names))
    if isinstance(found, np.ndarray):
        values = found[:, None] if found.ndim == 1 else found
        return Columns(values, tuple(f"factor {index}" for index in range(values.shape[-1])))
    encoded = any(name.startswith("scalar_") for name in found.column_names)
    names = [name for name in found.column_names if not encoded or not (name == "index" or name.startswith(OF_UNITS))]
    require(bool(names), f"{path} has no factors: give them in a second file")
    columns = [_column(found, name, path) for name in names]
    if any(column.dtype.kind in "US" for column in columns):
        columns = [column.astype(str) for column in columns]
    return Columns(np.stack(columns, axis=1), tuple(names))


def show(results: Sequence[SuiteResult], codes: Path) -> None:
    """Prints one table, and every note once."""
    several = len(results) > 1
    table = Table(title=f"{codes}: protocol {results[0].protocol}", title_justify="left")
    for column in ("score", "value", *(["s.d."] if several else []), "chance"):
        table.add_column(column, justify="left" if column == "score" else "right")
    for score, spread in summarise(results):
        title = score.metric if score.name == "score" else f"{score.metric} {score.name}"
        shown = [f"{value:.3f}" if not math.isnan(value) else "-" for value in (score.value, spread, score.chance)]
        table.add_row(title, shown[0], *([shown[1]] if several else []), shown[2])
    console.print(table)
    for note in dict.fromkeys(note for result in results for note in result.notes):
        say(f"note: {note}")


def as_json(results: Sequence[SuiteResult]) -> str:
    """Every number of every seed, with mean and standard deviation; what is not defined is null."""
    summary = [
        {**score._asdict(), "standard_deviation": spread, "seeds": len(results)} for score, spread in summarise(results)
    ]
    runs = [
        {
            "seed": result.seed,
            "scores": [score._asdict() for score in result.scores],
            "matrices": {name: matrix.tolist() for name, matrix in result.matrices.items()},
            "notes": list(result.notes),
            "seconds": result.seconds,
        }
        for result in results
    ]
    return json.dumps(_defined({"protocol": results[0].protocol, "summary": summary, "runs": runs}), indent=2) + "\n"


def _defined(value: Any) -> Any:
    """NaN as null, which JSON knows."""
    if isinstance(value, dict):
        return {key: _defined(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_defined(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _read(path: Path) -> np.ndarray | dict[str, np.ndarray] | pa.Table:
    require(path.suffix in ENDINGS, f"{path} ends in {path.suffix!r}: choose one of {', '.join(ENDINGS)}")
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        if path.suffix == ".csv":
            return pa_csv.read_csv(path)
        found = np.load(path, allow_pickle=False)
        return found if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError, EOFError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _numbers(table: pa.Table, names: Sequence[str], path: Path) -> np.ndarray:
    columns = [_column(table, name, path) for name in names]
    for name, column in zip(names, columns):
        require(column.dtype.kind in "biuf", f"{path} column {name!r} holds no numbers: codes are numbers")
    return np.stack(columns, axis=1)


def _column(table: pa.Table, name: str, path: Path) -> np.ndarray:
    column = table[name]
    require(column.null_count == 0, f"{path} column {name!r} is empty in {column.null_count} of {len(column)} rows")
    values = column.to_numpy()
    return values.astype(str) if values.dtype.kind == "O" else values
