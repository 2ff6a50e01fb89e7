"""UDR (Duan et al. 2020): models that disentangle agree on their codes. Chooses among models without labels."""

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from unweave.errors import require
from unweave.metrics.inputs import check_codes, plural
from unweave.metrics.linear import lasso
from unweave.metrics.metric import Description

LASSO_PENALTY = 0.1  # on standardised codes, as in the authors' code


class UDRResult(NamedTuple):
    """Agreement of M models on codes of the same images."""

    scores: NDArray[np.float64]
    """(M,): median agreement of each model with the others, 0 to 1; the highest is the one to choose."""
    pairs: NDArray[np.float64]
    """(M, M): agreement of two models; NaN on the diagonal. For `lasso`, of codes of the row's model as predicted
    from those of the column's."""
    notes: tuple[str, ...]


def udr(
    codes: Sequence[ArrayLike], *, relation: Literal["spearman", "lasso"] = "spearman", least_spread: float = 0.01
) -> UDRResult:
    """UDR of models trained alike from different seeds: `codes` has each one's (N, D) on the same N images.

    For two models a matrix R relates their codes: `spearman`, absolute rank correlations; or `lasso`, absolute
    weights of a Lasso regression of standardised codes, which requires that one code predicts another. Each
    informative code a counts for how much its best partner stands out, r_a^2 / sum_b R_ab with r_a = max_b R_ab,
    likewise each b, and the pair's agreement is the mean (equation 3). A code is informative when its standard
    deviation is above `least_spread` of the model's largest: these codes are not drawn from a posterior, whose
    divergence the paper uses. Raises `UserError` for fewer than two models, other numbers of rows, and codes that are
    not finite.
    """
    require(len(codes) >= 2, f"{len(codes)} models: agreement needs at least 2")
    tables = [check_codes(table, f"codes of model {index}") for index, table in enumerate(codes)]
    counts = [len(table) for table in tables]
    require(len(set(counts)) == 1, f"the models have codes of {counts} images: give the same images to all")
    require(counts[0] >= 3, f"{counts[0]} images: a correlation needs at least 3")
    notes: list[str] = []
    standard = []
    for index, table in enumerate(tables):
        spread = table.std(axis=0)
        informative = (spread > least_spread * spread.max()) & (np.ptp(table, axis=0) > 0)
        if not informative.all():
            notes.append(f"model {index}: {plural(np.flatnonzero(~informative), 'code')} not informative, left out")
        kept = table[:, informative]
        standard.append(_standardise(rankdata(kept, axis=0) if relation == "spearman" else kept))
    relate = _correlations if relation == "spearman" else _lasso_weights
    pairs = np.full((len(tables), len(tables)), np.nan)
    for target, source in itertools.permutations(range(len(tables)), 2):
        pairs[target, source] = _agreement(relate(standard[source], standard[target]))
    return UDRResult(np.nanmedian(pairs, axis=1), pairs, tuple(notes))


def _standardise(table: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = table - table.mean(axis=0)
    return centred / np.maximum(centred.std(axis=0), 1e-300)


def _correlations(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, D), (N, D') standardised -> (D, D')."""
    return np.abs(first.T @ second) / len(first)


def _lasso_weights(sources: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, D), (N, D') standardised -> (D, D'): the weights of source codes that predict each target code."""
    if not sources.shape[1] or not targets.shape[1]:
        return np.zeros((sources.shape[1], targets.shape[1]))
    fitted = lasso(sources, targets, LASSO_PENALTY)
    return np.abs(fitted.coef_.reshape(targets.shape[1], -1)).T


def _agreement(relation: NDArray[np.float64]) -> float:
    """Of a relation (D, D'), nothing negative; 0 where a model has no informative code."""
    if not relation.size:
        return 0.0
    parts = [(r.max(axis=0) ** 2 / np.maximum(r.sum(axis=0), 1e-300)).sum() for r in (relation, relation.T)]
    return float(sum(parts) / sum(relation.shape))


DESCRIPTION = Description(
    "UDR", "Duan et al. 2020", "do models of other seeds agree on the codes? needs no labels", "-"
)
