"""UDR (Duan et al. 2020): models that disentangle agree on their codes. Chooses among models without labels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from unweave.errors import require
from unweave.metrics.inputs import check_codes, plural


class UDRResult(NamedTuple):
    """Agreement of M models on codes of the same images."""

    scores: NDArray[np.float64]
    """(M,): median agreement of each model with the others, 0 to 1; the highest is the one to choose."""
    pairs: NDArray[np.float64]
    """(M, M): agreement of two models; NaN on the diagonal."""
    notes: tuple[str, ...]


def udr(codes: Sequence[ArrayLike], *, least_spread: float = 0.01) -> UDRResult:
    """UDR of models trained alike from different seeds: `codes` has each one's (N, D) on the same N images.

    For two models the absolute rank correlations R of their codes; each informative code a counts for how much its
    best partner stands out, r_a^2 / sum_b R_ab with r_a = max_b R_ab, likewise each b, and the pair's agreement is the
    mean (equation 3). A code is informative when its standard deviation is above `least_spread` of the model's
    largest: these codes are not drawn from a posterior, whose divergence the paper uses. Raises `UserError` for fewer
    than two models, other numbers of rows, and codes that are not finite.
    """
    require(len(codes) >= 2, f"{len(codes)} models: agreement needs at least 2")
    tables = [check_codes(table, f"codes of model {index}") for index, table in enumerate(codes)]
    counts = [len(table) for table in tables]
    require(len(set(counts)) == 1, f"the models have codes of {counts} images: give the same images to all")
    require(counts[0] >= 3, f"{counts[0]} images: a correlation needs at least 3")
    notes: list[str] = []
    ranks = []
    for index, table in enumerate(tables):
        spread = table.std(axis=0)
        informative = (spread > least_spread * spread.max()) & (np.ptp(table, axis=0) > 0)
        if not informative.all():
            notes.append(f"model {index}: {plural(np.flatnonzero(~informative), 'code')} not informative, left out")
        standard = rankdata(table[:, informative], axis=0)
        standard = standard - standard.mean(axis=0)
        ranks.append(standard / np.maximum(np.linalg.norm(standard, axis=0), 1e-300))
    pairs = np.full((len(tables), len(tables)), np.nan)
    for first in range(len(tables)):
        for second in range(first):
            pairs[first, second] = pairs[second, first] = _agreement(np.abs(ranks[first].T @ ranks[second]))
    return UDRResult(np.nanmedian(pairs, axis=1), pairs, tuple(notes))


def _agreement(relation: NDArray[np.float64]) -> float:
    """Of absolute correlations (D, D'); 0 where a model has no informative code."""
    if not relation.size:
        return 0.0
    parts = [(r.max(axis=0) ** 2 / np.maximum(r.sum(axis=0), 1e-300)).sum() for r in (relation, relation.T)]
    return float(sum(parts) / sum(relation.shape))
