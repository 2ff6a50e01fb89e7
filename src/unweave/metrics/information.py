"""Information between codes and factors, in nats: by bins, and by nearest neighbours.

N rows, D codes, F factors, B bins, K values of a factor.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma
from scipy.stats import chi2

from unweave.compiled import compiled
from unweave.errors import require
from unweave.metrics.inputs import check_rows

NUM_BINS = 20
NUM_NEIGHBOURS = 10
JITTER = 1e-10
"""Of the noise that keeps equal codes apart, relative to their size (scikit-learn's constant)."""

Table = NDArray[np.float64]
Labels = NDArray[np.int64]


def binned(codes: Table, num_bins: int = NUM_BINS) -> Labels:
    """Codes (N, D) in `num_bins` bins of equal width, from the least to the largest value of each."""
    columns = [np.digitize(code, np.histogram(code, num_bins)[1][:-1]) - 1 for code in codes.T]
    return np.stack(columns, axis=1).astype(np.int64)


def entropies(labels: Labels) -> Table:
    """(F,): empirical entropy of each column of labels (N, F)."""
    counts = [np.bincount(column) for column in labels.T]
    return np.array([_entropy(count) for count in counts])


def mutual_information(first: Labels, second: Labels) -> Table:
    """(D, F): plug-in mutual information of every column of labels (N, D) with every column of labels (N, F).

    Its bias for independent columns is about (B - 1) (K - 1) / (2 N).
    """
    ours, theirs = entropies(first), entropies(second)
    information = np.empty((first.shape[1], second.shape[1]))
    for column, labels in enumerate(second.T):
        size = labels.max() + 1
        for row, bins in enumerate(first.T):
            joint = _entropy(np.bincount(bins * size + labels))
            information[row, column] = max(ours[row] + theirs[column] - joint, 0.0)
    return information


def informative(information: Table, first: Labels, second: Labels, alpha: float = 1e-3) -> NDArray[np.bool_]:
    """(D,): whether a code has more information about some factor than chance at level `alpha`.

    Under independence 2 N I is chi-squared with (B - 1) (K - 1) degrees of freedom, over the bins that are used.
    """
    used = np.array([len(np.unique(column)) for column in first.T])
    values = np.array([len(np.unique(column)) for column in second.T])
    freedom = np.maximum((used[:, None] - 1) * (values - 1), 1)
    threshold = chi2.ppf(1 - alpha / information.shape[1], freedom)
    return np.asarray((2 * len(first) * information > threshold).any(axis=1), bool)


def neighbour_information(codes: Table, labels: Labels, rng: np.random.RandomState) -> Table:
    """(F, D): mutual information of each factor with each code by nearest neighbours (Ross 2014), never below 0.

    The estimator and its jitter are those of scikit-learn's `mutual_info_classif` with ten neighbours, called for every
    factor and, within a factor, for every code.
    """
    spread = codes.std(axis=0)
    scaled = codes / np.where(spread > 0, spread, 1)
    size = np.maximum(1, np.abs(scaled).mean(axis=0))
    information = np.empty((labels.shape[1], codes.shape[1]))
    for row, values in enumerate(labels.T):
        for column, code in enumerate(scaled.T):
            jittered = code + JITTER * size[column] * rng.standard_normal(len(code))
            information[row, column] = _ross(jittered, values)
    return information


def _ross(code: Table, labels: Labels) -> float:
    counts = np.bincount(labels)
    kept = counts[labels] > 1
    code, labels = code[kept], labels[kept]
    if not len(code):
        return 0.0
    radius, neighbours = np.empty(len(code)), np.empty(len(code))
    for value in np.unique(labels):
        rows = np.flatnonzero(labels == value)
        rows = rows[np.argsort(code[rows], kind="stable")]
        k = min(NUM_NEIGHBOURS, len(rows) - 1)
        radius[rows] = _distances_to_neighbour(code[rows], k)
        neighbours[rows] = k
    order = np.argsort(code, kind="stable")
    closer = np.empty(len(code))
    closer[order] = _num_closer(code[order], radius[order])
    mean = digamma(neighbours).mean() - digamma(counts[labels]).mean() - digamma(closer).mean()
    return max(0.0, float(digamma(len(code)) + mean))


@compiled
def _distances_to_neighbour(values, k):
    """Distance of each of the sorted values to its k-th nearest other one."""
    distances = np.empty(values.size)
    first = 0  # of the k + 1 values in a row that are nearest to the current one
    for i in range(values.size):
        while first + k + 1 < values.size and values[first + k + 1] - values[i] < values[i] - values[first]:
            first += 1
        distances[i] = max(values[i] - values[first], values[first + k] - values[i])
    return distances


@compiled
def _num_closer(values, radius):
    """How many of the sorted values, itself among them, are closer to each than its radius."""
    counts = np.empty(values.size)
    for i in range(values.size):
        low, high = 0, i  # the first that is closer, by bisection
        while low < high:
            middle = (low + high) // 2
            if values[i] - values[middle] < radius[i]:
                high = middle
            else:
                low = middle + 1
        start = low
        low, high = i, values.size  # the first behind that is not
        while low < high:
            middle = (low + high) // 2
            if values[middle] - values[i] < radius[i]:
                low = middle + 1
            else:
                high = middle
        counts[i] = max(low - start, 1)
    return counts


def _entropy(counts: NDArray[np.int64]) -> float:
    part = counts[counts > 0] / counts.sum()
    return float(-(part * np.log(part)).sum())


def binned_inputs(
    codes: ArrayLike, factors: ArrayLike, num_bins: int
) -> tuple[Labels, Labels, NDArray[np.bool_], tuple[str, ...]]:
    """Checked codes in bins, labels, which factors vary, and notes."""
    require(num_bins >= 2, f"num_bins is {num_bins}: must be at least 2")
    table, labels, varying, notes = check_rows(codes, factors)
    if len(table) < num_bins:
        notes = (*notes, f"{len(table)} rows are fewer than {num_bins} bins: information is mostly bias")
    return binned(table, num_bins), labels, varying, notes
