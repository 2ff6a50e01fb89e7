"""`unweave score` and `unweave udr`: codes and factors from files, scores as a table, JSON and pictures."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from rich.table import Table

from unweave.errors import UserError, require
from unweave.metrics.inputs import Protocol, one_number_per_unit
from unweave.metrics.metric import full_name
from unweave.metrics.suite import SuiteResult, Vectors, intervals, score_grid, score_rows, summarise
from unweave.metrics.udr import UDRResult, udr
from unweave.record import console, log

Intervals = dict[tuple[str, str], tuple[float, float]]

ENDINGS = (".npy", ".npz", ".csv", ".parquet")
OF_UNITS = ("scalar_", "token_", "aligned_", "anchor_")  # columns of `unweave encode` that are not factors


class Columns(NamedTuple):
    """A table of numbers or words with named columns."""

    values: np.ndarray
    names: tuple[str, ...]


class Scored(NamedTuple):
    """The scores of a table of codes."""

    results: list[SuiteResult]
    """One per evaluation seed."""
    names: tuple[str, ...]
    """Of the factors."""
    intervals: Intervals
    """Bootstrap intervals by (metric, name); empty without `bootstrap`."""


def score_files(
    codes: Path,
    factors: Path | None,
    sizes: Sequence[int],
    metrics: Sequence[str],
    protocol: Protocol,
    seeds: int,
    bootstrap: int,
    vectors: Vectors = "pca",
    test: Sequence[Path] = (),
) -> Scored:
    """Scores the codes of a file with `seeds` evaluation seeds and `bootstrap` bootstrap samples of the rows (0: none).

    Factors come from their own file, from the file of the codes, or, with `sizes`, from the row numbers of a full grid.
    `test` are the files of a held-out split, codes and factors or both in one, on which scores that train a predictor
    are computed. Raises `UserError` with the file if one cannot be read or the files do not fit together.
    """
    # a full grid
    require(seeds >= 1, f"seeds is {seeds}: must be at least 1")
    table = read_codes(codes)
    how: dict[str, Any] = {"metrics": metrics, "protocol": protocol, "vectors": vectors}
    if sizes:
        require(factors is None, f"give factors ({factors}) or sizes {list(sizes)}, not both")
        require(bootstrap == 0, "bootstrap samples rows, which a grid given by its sizes does not allow: give factors")
        require(not test, "a grid given by its sizes has no held-out split: give factors in place of sizes")
        names = tuple(f"factor {index}" for index in range(len(sizes)))
        return Scored([score_grid(table, sizes, seed=seed, **how) for seed in range(seeds)], names, {})

    # rows with factors, and a held-out split of its own
    values, names = read_factors(factors or codes)
    if test:
        require(len(test) <= 2, f"test has {len(test)} files: give codes and factors, or one file with both")
        more, others = read_codes(test[0]), read_factors(test[-1])
        for what, first, second in (("codes", table, more), ("factors", values, others.values)):
            require(
                first.shape[1:] == second.shape[1:],
                f"{test[0]}: {what} of shape {second.shape}, but those to train on have {first.shape}",
            )
        how["test"] = np.arange(len(table) + len(more)) >= len(table)
        table, values = np.concatenate([table, more]), np.concatenate([values, others.values])
    results = [score_rows(table, values, seed=seed, **how) for seed in range(seeds)]
    return Scored(results, names, intervals(table, values, num=bootstrap, **how) if bootstrap else {})


def read_codes(path: Path) -> np.ndarray:
    """Codes (N, D), or (N, units, dim), of a file: `scalars` or `codes` of an npz, the columns `scalar_0`, ... of
    `unweave encode`, else every column. Raises `UserError` for other files."""
    content = _read(path)
    if isinstance(content, dict):
        if len(content) == 1:
            return next(iter(content.values()))
        for name in ("scalars", "codes"):
            if name in content:
                return content[name]
        raise UserError(f"{path} has the arrays {sorted(content)}: name the codes `scalars` or `codes`")
    if isinstance(content, np.ndarray):
        return content
    names = [name for name in content.column_names if name.startswith("scalar_")] or content.column_names
    return _numbers(content, names, path)


def read_factors(path: Path) -> Columns:
    """Factors (N, F) of a file: `factors` of an npz, the factors of a file of `unweave encode`, else every column.
    Raises `UserError` for other files."""
    # arrays
    content = _read(path)
    if isinstance(content, dict):
        require("factors" in content, f"{path} has the arrays {sorted(content)}: name the factors `factors`")
        values = content["factors"]
        names = content.get("factor_names", np.arange(values.shape[1] if values.ndim == 2 else 0))
        return Columns(values, tuple(str(name) for name in names))
    if isinstance(content, np.ndarray):
        values = content[:, None] if content.ndim == 1 else content
        return Columns(values, tuple(f"factor {index}" for index in range(values.shape[-1])))

    # columns of a table
    encoded = any(name.startswith("scalar_") for name in content.column_names)
    names = [name for name in content.column_names if not encoded or not (name == "index" or name.startswith(OF_UNITS))]
    require(bool(names), f"{path} has no factors: give them in a second file")
    columns = [_column(content, name, path) for name in names]
    if any(column.dtype.kind in "US" for column in columns):
        columns = [column.astype(str) for column in columns]
    return Columns(np.stack(columns, axis=1), tuple(names))


def show(scored: Scored, codes: Path) -> None:
    """Prints a table of the scores, and each note once."""
    several = len(scored.results) > 1
    table = Table(title=f"{codes}: protocol {scored.results[0].protocol}", title_justify="left")
    extra = [*(["s.d."] if several else []), *(["95 % interval"] if scored.intervals else [])]
    for column in ("score", "value", *extra, "chance"):
        table.add_column(column, justify="left" if column == "score" else "right")
    for score, spread in summarise(scored.results):
        interval = scored.intervals.get((score.metric, score.name))
        cells = [_shown(score.value), *([_shown(spread)] if several else [])]
        if interval:
            cells.append(f"{_shown(interval[0])} to {_shown(interval[1])}")
        table.add_row(full_name(score.metric, score.name), *cells, _shown(score.chance))
    console.print(table)
    for note in dict.fromkeys(note for result in scored.results for note in result.notes):
        log(f"note: {note}")


def agree(paths: Sequence[Path], relation: Literal["spearman", "lasso"]) -> UDRResult:
    """UDR of the codes in several files. Raises `UserError` as `udr` does, and if a file cannot be read."""
    require(len(paths) >= 2, f"{len(paths)} files of codes: give those of at least two models")
    return udr([one_number_per_unit(read_codes(path)) for path in paths], relation=relation)


def show_agreement(agreement: UDRResult, paths: Sequence[Path]) -> None:
    """Prints the models, the best first, and the notes."""
    table = Table(title="agreement with the other models (UDR)", title_justify="left")
    table.add_column("model")
    table.add_column("score", justify="right")
    for index in np.argsort(-agreement.scores, kind="stable"):
        table.add_row(f"{index}: {paths[index]}", _shown(float(agreement.scores[index])))
    console.print(table)
    for note in agreement.notes:
        log(f"note: {note}")


def agreement_as_json(agreement: UDRResult, paths: Sequence[Path]) -> str:
    """Scores, pairs and notes; the agreement of a model with itself is null."""
    whole = {
        "models": [str(path) for path in paths],
        "scores": agreement.scores.tolist(),
        "pairs": agreement.pairs.tolist(),
        "notes": list(agreement.notes),
    }
    return json.dumps(_defined(whole), indent=2) + "\n"


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def as_json(scored: Scored) -> str:
    """All numbers of all seeds, with mean, standard deviation and interval; undefined ones are null."""
    summary = [
        {
            **score._asdict(),
            "standard_deviation": spread,
            "interval": list(scored.intervals.get((score.metric, score.name), ())) or None,
        }
        for score, spread in summarise(scored.results)
    ]
    runs = [
        {
            "seed": result.seed,
            "scores": [score._asdict() for score in result.scores],
            "matrices": {name: matrix.tolist() for name, matrix in result.matrices.items()},
            "notes": list(result.notes),
            "seconds": result.seconds,
        }
        for result in scored.results
    ]
    whole = {"protocol": scored.results[0].protocol, "factors": list(scored.names), "summary": summary, "runs": runs}
    return json.dumps(_defined(whole), indent=2) + "\n"


def _defined(value: Any) -> Any:
    """Replaces NaN by None, for JSON."""
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
        content = np.load(path, allow_pickle=False)
        return content if isinstance(content, np.ndarray) else {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError, EOFError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _numbers(table: pa.Table, names: Sequence[str], path: Path) -> np.ndarray:
    columns = [_column(table, name, path) for name in names]
    for name, column in zip(names, columns):
        require(column.dtype.kind in "biuf", f"{path} column {name!r} has no numbers: codes are numbers")
    return np.stack(columns, axis=1)


def _column(table: pa.Table, name: str, path: Path) -> np.ndarray:
    column = table[name]
    require(column.null_count == 0, f"{path} column {name!r} is empty in {column.null_count} of {len(column)} rows")
    values = column.to_numpy()
    return values.astype(str) if values.dtype.kind == "O" else values
