"""Rows and interventions drawn as the field's reference draws them, random stream included.

The reference is disentanglement_lib (Locatello et al. 2019): each score gets a fresh `RandomState(0)`. A cell is a row
of the full factor grid in C order, the first factor slowest.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from unweave.compiled import compiled

ROW_BATCH = 16
"""Rows that the reference draws at a time."""
VOTE_CHUNK = 512
"""Votes whose cells are held at a time."""

Cells = NDArray[np.int64]


def sample_factors(rng: np.random.RandomState, factor_sizes: Sequence[int], num: int) -> Cells:
    """Independent uniform factors (num, F), one call of `randint` per factor."""
    return np.stack([rng.randint(size, size=num) for size in factor_sizes], axis=1).astype(np.int64)


def cell_index(factors: Cells, factor_sizes: Sequence[int]) -> Cells:
    """Rows (n,) of the full grid that hold the factors (n, F)."""
    return np.asarray(np.ravel_multi_index(tuple(factors.T), tuple(factor_sizes)), np.int64)


def sample_rows(
    factor_sizes: Sequence[int], num_train: int = 10_000, num_test: int = 5_000, seed: int = 0
) -> tuple[Cells, Cells]:
    """Factors (num_train, F) and (num_test, F) of the rows that DCI, MIG, SAP and modularity share.

    Drawn with replacement, in batches of 16, train before test; the defaults are the official constants.
    """
    rng = np.random.RandomState(seed)  # its stream is part of the definition
    return in_batches(rng, factor_sizes, num_train), in_batches(rng, factor_sizes, num_test)


def in_batches(rng: np.random.RandomState, factor_sizes: Sequence[int], num: int) -> Cells:
    """Factors (num, F) as the reference draws rows: sixteen at a time."""
    firsts = range(0, num, ROW_BATCH)
    batches = [sample_factors(rng, factor_sizes, min(ROW_BATCH, num - first)) for first in firsts]
    return np.concatenate([np.empty((0, len(factor_sizes)), np.int64), *batches])


def interventions(
    rng: np.random.RandomState, factor_sizes: Sequence[int], num: int, batch_size: int
) -> Iterator[tuple[Cells, Cells]]:
    """Yields (fixed factor (n,), cells (n, batch_size)) until there are `num` votes.

    A vote draws a factor, then `batch_size` values of each factor in turn; the drawn factor keeps its first value
    throughout. The stream is `rng`'s own, read in large pieces: afterwards `rng` stands further on than the votes need.
    """
    sizes = np.asarray(factor_sizes, np.int64)
    words, used, done = np.empty(0, np.uint32), 0, 0
    words_per_vote = 1 + 2 * batch_size * len(sizes)  # a draw takes fewer than two words on average
    while done < num:
        wanted = min(VOTE_CHUNK, num - done)
        fresh = rng.randint(0, 2**32, size=wanted * words_per_vote, dtype=np.uint32)
        words = np.concatenate([words[used:], fresh])
        factors, cells = np.empty(wanted, np.int64), np.empty((wanted, batch_size), np.int64)
        count, used = _draw_votes(words, sizes, factors, cells)
        done += count
        yield factors[:count], cells[:count]


def row_interventions(
    rng: np.random.RandomState, labels: Cells, num: int, batch_size: int
) -> Iterator[tuple[Cells, Cells]]:
    """Yields (fixed factor (n,), rows (n, batch_size)) until there are `num` votes, for labels (N, F) of rows.

    The value that is fixed is that of a row drawn evenly, so that frequent values are fixed more often.
    """
    order = np.argsort(labels, axis=0, kind="stable")  # rows that share a value lie together
    counts = [np.bincount(column) for column in labels.T]
    firsts = [np.concatenate([[0], np.cumsum(count)[:-1]]) for count in counts]
    done = 0
    while done < num:
        wanted = min(VOTE_CHUNK, num - done)
        factors = rng.randint(labels.shape[1], size=wanted).astype(np.int64)
        picked = labels[rng.randint(len(labels), size=wanted), factors]
        first = np.array([firsts[factor][value] for factor, value in zip(factors, picked)])
        count = np.array([counts[factor][value] for factor, value in zip(factors, picked)])
        place = first[:, None] + (rng.random_sample((wanted, batch_size)) * count[:, None]).astype(np.int64)
        done += wanted
        yield factors, order[place, factors[:, None]]


@compiled
def _draw(words, cursor, size, out):
    """Fills `out` as `RandomState.randint(size)` does: words are masked, too large ones rejected.

    Returns the new cursor, or -1 where the words run out.
    """
    highest = size - 1
    mask = 0
    while mask < highest:
        mask = 2 * mask + 1
    if highest == 0:
        out[:] = 0
        return cursor
    for position in range(out.size):
        value = size
        while value > highest:
            if cursor == words.size:
                return -1
            value = np.int64(words[cursor]) & mask
            cursor += 1
        out[position] = value
    return cursor


@compiled
def _draw_votes(words, sizes, factors, cells):
    """Draws votes until `factors` is full or the words run out; returns (votes drawn, words they used)."""
    used = 0
    values = np.empty(cells.shape[1], np.int64)
    for vote in range(factors.size):
        cursor = _draw(words, used, sizes.size, factors[vote : vote + 1])
        cells[vote] = 0
        for factor in range(sizes.size):
            if cursor >= 0:
                cursor = _draw(words, cursor, sizes[factor], values)
            for row in range(values.size):
                value = values[0] if factor == factors[vote] else values[row]
                cells[vote, row] = cells[vote, row] * sizes[factor] + value
        if cursor < 0:
            return vote, used
        used = cursor
    return factors.size, used
