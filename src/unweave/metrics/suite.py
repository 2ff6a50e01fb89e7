"""All scores of one representation at once: what they share is drawn once, and each says what it left out."""

import math
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.errors import require
from unweave.metrics.beta_vae import METRIC as BETA_VAE
from unweave.metrics.dci import METRIC as DCI
from unweave.metrics.downstream import METRIC as DOWNSTREAM
from unweave.metrics.explicitness import METRIC as EXPLICITNESS
from unweave.metrics.factor_vae import METRIC as FACTOR_VAE
from unweave.metrics.infomec import METRIC as INFOMEC
from unweave.metrics.inputs import Protocol, Standardiser, check_protocol, check_sizes, classes, one_number_per_unit
from unweave.metrics.irs import METRIC as IRS
from unweave.metrics.metric import Description, Sample, full_name
from unweave.metrics.mig import METRIC as MIG
from unweave.metrics.modularity import METRIC as MODULARITY
from unweave.metrics.sampling import cell_index, sample_rows
from unweave.metrics.sap import METRIC as SAP
from unweave.metrics.tad import METRIC as TAD
from unweave.metrics.udr import DESCRIPTION as UDR

Vectors = Literal["pca", "flat"]
"""Units that are vectors: one number each, their first principal component; or every number a code of its own."""

OFFICIAL_TRAIN, OFFICIAL_TEST = 10_000, 5_000


class Score(NamedTuple):
    """One number of one score."""

    metric: str
    name: str
    """What the number is: `dci` has three."""
    value: float
    chance: float
    """What codes without information score, where that is known; else NaN."""


class SuiteResult(NamedTuple):
    """The scores of one representation under one protocol and seed."""

    protocol: Protocol
    seed: int
    scores: tuple[Score, ...]
    matrices: dict[str, NDArray[np.float64]]
    """By metric, the matrix behind it, units by factors."""
    notes: tuple[str, ...]
    """What was left out or makes a score mean less, each beginning with the metric's name."""
    seconds: dict[str, float]
    """By metric."""

    def by_name(self) -> dict[str, float]:
        """The numbers by the names that files have for them: `factor_vae`, `dci_disentanglement`."""
        return {full_name(score.metric, score.name): score.value for score in self.scores}


ROWS = (
    FACTOR_VAE,
    DCI,
    BETA_VAE,
    MIG,
    SAP,
    MODULARITY,
    EXPLICITNESS,
    INFOMEC,
    IRS,
    TAD,
    DOWNSTREAM,
)
"""The scores of one representation, in the order of tables. UDR compares several and stands alone."""
TABLE = {metric.name: metric for metric in ROWS}
METRICS = tuple(metric.name for metric in ROWS if metric.by_default)
"""Those that are computed unless others are named: TAD needs binary factors, `downstream` takes a while more."""

DESCRIPTIONS: dict[str, Description] = {
    full_name(metric.name, number): text for metric in ROWS for number, text in metric.descriptions.items()
} | {"udr": UDR}
"""By the names that files have for the numbers, in the order of tables."""
PUBLISHED = tuple(full_name(metric.name, number) for metric in ROWS if metric.published for number in metric.numbers)
"""The numbers of the field's published tables, which are taken of an untrained extractor too."""


def score_grid(
    codes: ArrayLike,
    factor_sizes: Sequence[int],
    *,
    metrics: Sequence[str] = METRICS,
    protocol: Protocol = "robust",
    seed: int = 0,
    vectors: Vectors = "pca",
) -> SuiteResult:
    """Scores codes (cells, D) or (cells, units, dim) of a full factor grid in C order.

    Rows are drawn as in the reference, 10,000 to train and 5,000 to test; under `robust` the codes are standardised
    first. Raises `UserError` for an unknown metric, and as the scores themselves do.
    """
    table = _prepared(codes, metrics, protocol, vectors)
    sizes = check_sizes(factor_sizes, len(table))
    train, test = sample_rows(sizes, OFFICIAL_TRAIN, OFFICIAL_TEST, seed)
    rows = table[cell_index(train, sizes)], train, table[cell_index(test, sizes)], test
    return _score(Sample(rows, (table, sizes), protocol, seed), metrics, ())


def score_rows(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    metrics: Sequence[str] = METRICS,
    protocol: Protocol = "robust",
    seed: int = 0,
    vectors: Vectors = "pca",
    test: ArrayLike | None = None,
) -> SuiteResult:
    """Scores codes (N, D) or (N, units, dim) with factors (N, F), discrete or continuous, of images without a grid.

    `test` (N,) bool says which rows to test on, all others train; without it a third of the rows, drawn under the
    seed, is kept for that. At most 10,000 train and 5,000 test, as in the reference. A factor whose numbers are not
    whole is sorted into ten classes of equal size. Raises `UserError` for an unknown metric, for a `test` that is no
    such split, and as the scores themselves do.
    """
    table = _prepared(codes, metrics, protocol, vectors)
    labels, notes = classes(factors, len(table))
    train, tested = _split(len(table), seed, test)
    rows = table[train], labels[train], table[tested], labels[tested]
    return _score(Sample(rows, None, protocol, seed), metrics, notes)


def intervals(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    metrics: Sequence[str] = METRICS,
    protocol: Protocol = "robust",
    seed: int = 0,
    vectors: Vectors = "pca",
    test: ArrayLike | None = None,
    num: int = 100,
    level: float = 0.95,
) -> dict[tuple[str, str], tuple[float, float]]:
    """Percentile bootstrap intervals (Efron 1979) of the numbers of `score_rows`, by (metric, name).

    The split of `score_rows` stays; training and test rows are drawn anew from themselves, `num` times, so that no
    row is in both. Says how far other images of the same kind would move a number, not how far another training would.
    Takes `num` times as long as `score_rows`. Raises `UserError` as that does, and for `num` below 10 and a `level`
    outside (0, 1).
    """
    require(num >= 10, f"num is {num}: an interval needs at least 10 draws")
    require(0 < level < 1, f"level is {level}: choose one between 0 and 1")
    table = _prepared(codes, metrics, protocol, vectors)
    labels, notes = classes(factors, len(table))
    train, tested = _split(len(table), seed, test)
    rng = np.random.default_rng(seed)
    values: dict[tuple[str, str], list[float]] = {}
    for _ in range(num):
        first, second = rng.choice(train, len(train)), rng.choice(tested, len(tested))
        rows = table[first], labels[first], table[second], labels[second]
        for score in _score(Sample(rows, None, protocol, seed), metrics, notes).scores:
            values.setdefault((score.metric, score.name), []).append(score.value)
    tails = [(1 - level) / 2, (1 + level) / 2]
    bounds = {key: np.quantile(drawn, tails) for key, drawn in values.items()}
    return {key: (float(low), float(high)) for key, (low, high) in bounds.items()}


def _split(num_rows: int, seed: int, test: ArrayLike | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train and to test on, in an order drawn under the seed."""
    require(num_rows >= 6, f"codes has {num_rows} rows: scores need at least 6")
    order = np.random.RandomState(seed).permutation(num_rows)
    if test is None:
        num_test = min(num_rows // 3, OFFICIAL_TEST)
        return order[num_test:][:OFFICIAL_TRAIN], order[:num_test]
    tested = np.asarray(test)
    require(
        tested.shape == (num_rows,) and tested.dtype == bool,
        f"test has shape {tested.shape} and dtype {tested.dtype}: should be ({num_rows},) bool, true for the test rows",
    )
    num_test = int(tested.sum())
    require(2 <= num_test <= num_rows - 4, f"test names {num_test} of {num_rows} rows: need at least 2, and 4 others")
    return order[~tested[order]][:OFFICIAL_TRAIN], order[tested[order]][:OFFICIAL_TEST]


def check_metrics(metrics: Sequence[str]) -> None:
    """Raises `UserError` for a name that is no metric."""
    unknown = [name for name in metrics if name not in TABLE]
    require(not unknown, f"metrics has {unknown}: choose from {', '.join(TABLE)}")
    require(len(metrics) > 0, f"metrics is empty: choose from {', '.join(TABLE)}")


def summarise(results: Sequence[SuiteResult]) -> list[tuple[Score, float]]:
    """The mean of each number over results of several seeds, and its standard deviation (NaN for one)."""
    rows = []
    for same in zip(*(result.scores for result in results), strict=True):
        values = np.array([score.value for score in same])
        spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        rows.append((same[0]._replace(value=float(values.mean())), spread))
    return rows


def _prepared(codes: ArrayLike, metrics: Sequence[str], protocol: Protocol, vectors: Vectors) -> NDArray[np.float64]:
    """Codes (N, D), standardised under `robust`; what is asked for is checked first."""
    check_metrics(metrics)
    check_protocol(protocol)
    require(vectors in ("pca", "flat"), f"vectors is {vectors!r}: choose pca or flat")
    array = np.asarray(codes)
    table = one_number_per_unit(array.reshape(len(array), -1) if vectors == "flat" and array.ndim == 3 else array)
    return Standardiser.of(table)(table) if protocol == "robust" else table


def _score(sample: Sample, metrics: Sequence[str], notes: tuple[str, ...]) -> SuiteResult:
    scores: list[Score] = []
    matrices: dict[str, NDArray[np.float64]] = {}
    all_notes, seconds = [*notes], {}
    for name in metrics:
        metric, start = TABLE[name], time.perf_counter()
        result = sample.result(metric)
        seconds[name] = time.perf_counter() - start
        scores += [Score(name, number, *map(float, take(result))) for number, take in metric.numbers.items()]
        if metric.matrix:
            matrices[name] = np.asarray(metric.matrix(result), float)
        all_notes += [f"{name}: {note}" for note in result.notes]
    return SuiteResult(sample.protocol, sample.seed, tuple(scores), matrices, tuple(all_notes), seconds)
