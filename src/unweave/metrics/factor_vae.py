"""FactorVAE score (Kim and Mnih 2018): when one factor is held fixed, is it always the same code that stays constant?

The protocol is disentanglement_lib's, its random stream included, so that numbers compare with published tables.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unweave.errors import require
from unweave.metrics.inputs import Protocol, check_grid, check_protocol, check_rows, plural
from unweave.metrics.metric import Description, Metric
from unweave.metrics.sampling import Cells, cell_index, interventions, row_interventions, sample_factors


class FactorVAEResult(NamedTuple):
    """FactorVAE score of D codes for F factors."""

    score: float
    """Accuracy of the majority vote on the evaluation votes, the published number."""
    score_train: float
    """The same on the votes it was learnt from."""
    chance: float
    """What codes without any information score: 1 / number of factors that vary."""
    adjusted: float
    """(score - chance) / (1 - chance): 0 is chance; NaN where one factor varies."""
    votes_train: NDArray[np.int64]
    """(F, D), votes by fixed factor and code of least relative variance."""
    votes_eval: NDArray[np.int64]
    """(F, D)."""
    active: NDArray[np.bool_]
    """(D,), codes that are not pruned."""
    dropped_factors: tuple[int, ...]
    """Factors with one value, which are never fixed."""
    notes: tuple[str, ...]
    """What was left out or makes the score mean less."""


def factor_vae_score(
    codes: ArrayLike,
    factor_sizes: Sequence[int],
    *,
    protocol: Protocol = "robust",
    seed: int = 0,
    num_variance: int = 10_000,
    num_train: int = 10_000,
    num_eval: int = 5_000,
    batch_size: int = 64,
    prune: float = 0.05,
) -> FactorVAEResult:
    """FactorVAE score of codes (cells, D), one row per cell of the factor grid in C order.

    A vote fixes a random factor in `batch_size` cells and goes to the code whose variance there, relative to its
    variance over `num_variance` cells, is least. `official` leaves out codes with a standard deviation below `prune`;
    this is absolute, so the score depends on the scale of the codes. `robust` leaves out those that are constant.
    The other defaults are the official constants. Raises `UserError` for codes that are not finite or do not fit the
    grid.
    """
    check_protocol(protocol)
    table, sizes, varying = check_grid(codes, factor_sizes)
    _check_counts(num_variance=num_variance, num_train=num_train, num_eval=num_eval, batch_size=batch_size)
    free_sizes = [sizes[factor] for factor in varying]
    rng = np.random.RandomState(seed)  # its stream is part of the definition
    drawn = table[cell_index(sample_factors(rng, free_sizes, num_variance), free_sizes)]
    batches = interventions(rng, free_sizes, num_train + num_eval, batch_size)
    return _elect(table, drawn, batches, varying, len(sizes), num_train, prune if protocol == "official" else 0.0)


def factor_vae_score_rows(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    protocol: Protocol = "robust",
    seed: int = 0,
    num_train: int = 10_000,
    num_eval: int = 5_000,
    batch_size: int = 64,
    prune: float = 0.05,
) -> FactorVAEResult:
    """The same from rows alone: codes (N, D) and discrete factors (N, F) of images that do not fill a grid.

    A vote picks a factor and a row, and takes `batch_size` rows, with replacement, among those that share its value.
    Variances are over all rows. Raises `UserError`, naming the column, for codes that are not finite, factors that are
    not discrete, and where no factor varies.
    """
    check_protocol(protocol)
    table, labels, varies, _ = check_rows(codes, factors)
    _check_counts(num_variance=len(table), num_train=num_train, num_eval=num_eval, batch_size=batch_size)
    varying = np.flatnonzero(varies).tolist()
    rng = np.random.RandomState(seed)
    batches = row_interventions(rng, labels[:, varies], num_train + num_eval, batch_size)
    pruned_below = prune if protocol == "official" else 0.0
    return _elect(table, table, batches, varying, labels.shape[1], num_train, pruned_below)


def _elect(
    table: NDArray[np.float64],
    drawn: NDArray[np.float64],
    batches: Iterable[tuple[Cells, Cells]],
    varying: list[int],
    num_factors: int,
    num_train: int,
    prune: float,
) -> FactorVAEResult:
    """Counts the votes of `batches` of rows of `table`; the first `num_train` are learnt from."""
    variance = drawn.var(axis=0, ddof=1)
    active = (np.sqrt(variance) >= prune) & (np.ptp(drawn, axis=0) > 0)
    votes = np.zeros((2, num_factors, table.shape[1]), np.int64)
    num_votes = np.array([num_train, 1])
    if active.any():
        fixed, chosen = _vote(table[:, active], variance[active], batches)
        phase = np.arange(len(fixed)) >= num_train  # 0 train, 1 evaluation
        num_votes[1] = max(len(fixed) - num_train, 1)
        np.add.at(votes, (phase.astype(int), np.asarray(varying)[fixed], np.flatnonzero(active)[chosen]), 1)
    majority = votes[0].argmax(axis=0)
    right = votes[:, majority, np.arange(table.shape[1])].sum(axis=1) / num_votes
    dropped = tuple(sorted(set(range(num_factors)) - set(varying)))
    chance = 1 / len(varying)
    return FactorVAEResult(
        score=float(right[1]),
        score_train=float(right[0]),
        chance=chance,
        adjusted=float((right[1] - chance) / (1 - chance)) if len(varying) > 1 else float("nan"),
        votes_train=votes[0],
        votes_eval=votes[1],
        active=active,
        dropped_factors=dropped,
        notes=_notes(active, dropped, len(varying), prune),
    )


def _check_counts(*, num_variance: int, num_train: int, num_eval: int, batch_size: int) -> None:
    for name, value in (("num_variance", num_variance), ("batch_size", batch_size)):
        require(value >= 2, f"{name} is {value}: a variance needs at least 2 rows")
    for name, value in (("num_train", num_train), ("num_eval", num_eval)):
        require(value >= 1, f"{name} is {value}: must be at least 1")


def _vote(
    table: NDArray[np.float64], variance: NDArray[np.float64], batches: Iterable[tuple[Cells, Cells]]
) -> tuple[Cells, Cells]:
    """(Fixed factor, code of least relative variance) of every vote; the lowest code wins a tie."""
    fixed, chosen = [], []
    for factors, cells in batches:
        spread = table[cells].var(axis=1, ddof=1) / variance  # (n, D)
        fixed.append(factors)
        chosen.append(spread.argmin(axis=1))
    return np.concatenate(fixed), np.concatenate(chosen)


def _notes(active: NDArray[np.bool_], dropped: tuple[int, ...], num_varying: int, prune: float) -> tuple[str, ...]:
    notes = []
    pruned = np.flatnonzero(~active)
    below = f" or of a standard deviation below {prune}" if prune else ""
    if not active.any():
        notes.append(f"every code is constant{below}: none votes, the score is 0")
    elif pruned.size:
        notes.append(f"{plural(pruned, 'code')} never voted: constant{below}")
    if dropped:
        notes.append(f"{plural(dropped, 'factor')} never fixed: one value only")
    if num_varying == 1:
        notes.append("one factor varies: the score is 1 whatever the codes are")
    return tuple(notes)


METRIC = Metric(
    "factor_vae",
    lambda sample: sample.score(factor_vae_score, factor_vae_score_rows),
    {"score": lambda result: (result.score, result.chance)},
    {
        "score": Description(
            "FactorVAE",
            "Kim and Mnih 2018",
            "when one factor is held fixed, is it always the same code that stays constant?",
            "1 / F",
        )
    },
    matrix=lambda result: result.votes_eval.T,
    published=True,
)
