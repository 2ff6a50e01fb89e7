"""What a score is given: made into the right arrays, or one line that names the column."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.errors import UserError, require

Protocol = Literal["official", "robust"]
"""`official`: what the field's papers ran, so that numbers compare; `robust`: the same idea without its traps."""

NUM_CLASSES = 10
"""Classes of equal size that a continuous factor is sorted into."""


def check_codes(codes: ArrayLike, name: str) -> NDArray[np.float64]:
    """Codes as float64 (N, D). Raises `UserError` where they are not a table of finite numbers."""
    try:
        table = np.asarray(codes)
    except ValueError:  # rows of different lengths
        raise UserError(f"{name} is no table: give every row the same number of codes") from None
    require(table.dtype.kind in "biuf", f"{name} has dtype {table.dtype}: should be real numbers")
    table = table.astype(np.float64)
    require(table.ndim == 2, f"{name} has shape {table.shape}: should be (rows, codes)")
    require(table.size > 0, f"{name} has shape {table.shape}: needs at least one row and one code")
    bad = ~(np.abs(table) <= np.finfo(np.float32).max)
    if bad.any():
        column = int(bad.any(axis=0).argmax())
        count = int(bad[:, column].sum())
        raise UserError(f"{name} column {column} is NaN or infinite (as float32) in {count} of {len(table)} rows")
    return table


def check_factors(factors: ArrayLike, name: str, num_rows: int) -> NDArray[np.generic]:
    """Factors (N, F) of discrete values (integers, booleans, strings, or floats that are whole).

    Raises `UserError` for other values and for a wrong number of rows.
    """
    try:
        table = np.asarray(factors)
    except ValueError:  # rows of different lengths
        raise UserError(f"{name} is no table: give every row the same number of factors") from None
    require(table.ndim == 2, f"{name} has shape {table.shape}: should be (rows, factors)")
    require(table.shape[1] > 0, f"{name} has shape {table.shape}: needs at least one factor")
    require(len(table) == num_rows, f"{name} has {len(table)} rows, the codes {num_rows}: give one row per code")
    require(table.dtype.kind in "biufUS", f"{name} has dtype {table.dtype}: should be integers or strings")
    if table.dtype.kind == "f":
        whole = (np.floor(table) == table).all(axis=0) & np.isfinite(table).all(axis=0)
        message = f"{name} column {int(whole.argmin())} has values that are no whole numbers: sort them into classes"
        require(bool(whole.all()), message)
    return table


def check_pair(
    codes_train: ArrayLike, factors_train: ArrayLike, codes_test: ArrayLike, factors_test: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Codes of training and test rows, and their factors as 0, 1, ... in the order of the values of both.

    Raises `UserError` where they do not match.
    """
    train, test = check_codes(codes_train, "codes_train"), check_codes(codes_test, "codes_test")
    labels = check_factors(factors_train, "factors_train", len(train))
    labels_test = check_factors(factors_test, "factors_test", len(test))
    ours, theirs = train.shape[1], test.shape[1]
    require(ours == theirs, f"codes_train has {ours} columns, codes_test {theirs}: give both the same codes")
    ours, theirs = labels.shape[1], labels_test.shape[1]
    require(ours == theirs, f"factors_train has {ours} columns, factors_test {theirs}: give both the same factors")
    same_kind = (labels.dtype.kind in "US") == (labels_test.dtype.kind in "US")
    require(same_kind, f"factors_train is {labels.dtype}, factors_test {labels_test.dtype}: give both the same type")
    both = as_labels(np.concatenate([labels, labels_test]))
    return train, both[: len(train)], test, both[len(train) :]


def check_rows(
    codes: ArrayLike, factors: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_], tuple[str, ...]]:
    """Codes (N, D), factors (N, F) as 0, 1, ... in their order, which of them vary, and a note about the others.

    Raises `UserError`, naming the column, for codes that are not finite, factors that are not discrete, and where no
    factor varies.
    """
    table = check_codes(codes, "codes")
    labels = as_labels(check_factors(factors, "factors", len(table)))
    return table, labels, *varying_factors(labels, "factors")


def as_labels(factors: NDArray[np.generic]) -> NDArray[np.int64]:
    """Factors (N, F) of any discrete values as 0, 1, ... in their order."""
    return np.stack([np.unique(column, return_inverse=True)[1] for column in factors.T], axis=1).astype(np.int64)


def varying_factors(factors: NDArray[np.generic], name: str) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Which columns of factors (N, F) have more than one value, and a note about the others.

    Raises `UserError` where none has.
    """
    varying = (factors != factors[:1]).any(axis=0)
    require(bool(varying.any()), f"every factor has one value in {name}: at least one needs two")
    if varying.all():
        return varying, ()
    return varying, (f"{plural(np.flatnonzero(~varying), 'factor')} left out: one value only",)


class Standardiser(NamedTuple):
    """How codes are standardised: each to mean 0 and standard deviation 1, a constant one to 0."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    """1 where a code is constant."""
    constant: NDArray[np.bool_]

    @classmethod
    def of(cls, codes: NDArray[np.floating], rounding: float = 1e-12) -> "Standardiser":
        """That of codes (N, D); what moves by no more than `rounding` of its largest value is constant."""
        mean, spread = codes.mean(axis=0, dtype=np.float64), codes.std(axis=0, dtype=np.float64)
        constant = spread <= rounding * np.abs(codes).max(axis=0)
        return cls(mean, np.where(constant, 1.0, spread), constant)

    def __call__(self, codes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Codes (n, D) standardised, float64."""
        return np.where(self.constant, 0.0, (codes - self.mean) / self.spread)


def check_protocol(protocol: str) -> None:
    """Raises `UserError` for a protocol that there is not."""
    require(protocol in ("official", "robust"), f"protocol is {protocol!r}: choose official or robust")


def check_sizes(factor_sizes: Sequence[int], num_cells: int) -> tuple[int, ...]:
    """Numbers of values of the factors of a grid with `num_cells` cells. Raises `UserError` where they do not fit."""
    sizes = tuple(int(size) for size in factor_sizes)
    require(len(sizes) > 0 and min(sizes) > 0, f"factor_sizes is {list(sizes)}: give a positive size per factor")
    product = int(np.prod(sizes, dtype=np.int64))
    require(product == num_cells, f"codes has {num_cells} rows, the factor grid {list(sizes)} has {product} cells")
    return sizes


def check_grid(codes: ArrayLike, factor_sizes: Sequence[int]) -> tuple[NDArray[np.float64], tuple[int, ...], list[int]]:
    """Codes (cells, D) of a factor grid, its sizes, and which factors vary. Raises `UserError` where they do not fit,
    and where none varies."""
    table = check_codes(codes, "codes")
    sizes = check_sizes(factor_sizes, len(table))
    varying = [factor for factor, size in enumerate(sizes) if size > 1]
    require(len(varying) > 0, f"factor_sizes is {list(sizes)}: at least one factor needs two values")
    return table, sizes, varying


def plural(names: Iterable[int], thing: str) -> str:
    """`code 3` or `codes 3, 4`, for notes."""
    words = [str(name) for name in names]
    return f"{thing}{'s' if len(words) > 1 else ''} {', '.join(words)}"


def one_number_per_unit(codes: ArrayLike) -> NDArray[np.float64]:
    """Codes (N, D) as they are; units that are vectors (N, units, dim) as their first principal component.

    In closed form from each unit's covariance; the component's largest entry is positive. Raises `UserError` for other
    shapes and for values that are not finite.
    """
    array = np.asarray(codes)
    if array.ndim != 3:
        return check_codes(array, "codes")
    require(array.dtype.kind in "biuf", f"codes has dtype {array.dtype}: should be real numbers")
    require(array.size > 0, f"codes has shape {array.shape}: needs at least one row, unit and number")
    components = np.empty(array.shape[:2])
    for unit in range(array.shape[1]):  # one at a time: all of them in float64 may not fit into memory
        vectors = array[:, unit].astype(np.float64)  # (N, dim)
        vectors -= vectors.mean(axis=0)
        covariance = vectors.T @ vectors
        if not np.isfinite(covariance).all():
            check_codes(array[:, unit], f"codes of unit {unit}")
        first = np.linalg.eigh(covariance).eigenvectors[:, -1]
        components[:, unit] = vectors @ (first * np.sign(first[np.abs(first).argmax()]))
    return components


def classes(factors: ArrayLike, num_rows: int) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """Factors (N, F) as discrete values, continuous ones sorted into classes, and a note about those.

    Raises `UserError` as `check_factors` does, and, naming the column, for numbers that are not finite.
    """
    array = np.asarray(factors)
    if array.dtype.kind != "f" or array.ndim != 2:
        return check_factors(array, "factors", num_rows), ()
    numbers = check_codes(array, "factors")
    continuous = (np.floor(numbers) != numbers).any(axis=0)
    labels = numbers.copy()
    for column in np.flatnonzero(continuous):
        edges = np.quantile(numbers[:, column], np.linspace(0, 1, NUM_CLASSES + 1)[1:-1])
        labels[:, column] = np.searchsorted(edges, numbers[:, column], side="right")
    note = f"{plural(np.flatnonzero(continuous), 'factor')} continuous: sorted into {NUM_CLASSES} classes of equal size"
    return check_factors(labels, "factors", num_rows), (note,) if continuous.any() else ()
