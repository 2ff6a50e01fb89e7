"""Depth-3 regression trees with exact splits, compiled: what one boosting stage does to the residuals.

N rows, D columns (codes that vary), T trees of a stage (one per class of every factor).

The columns are sorted once per fit. A *key* is a sorted entry in one integer: the bits of the float32 value above, the
row number below. A node owns the same range of every sorted column, and splitting it partitions each range stably, so
that the children are sorted too: a tree costs O(N D) per level (presorting as in SLIQ, Mehta et al. 1996). Trees are
complete: nodes 0 to 6 in heap order and eight leaves. A node that is not split sends all its rows left.
"""

import numpy as np
from numpy.typing import NDArray

from unweave.compiled import compiled

NUM_NODES = 7
NUM_LEAVES = 8
TIE = np.float32(1e-7)
"""Neighbours no further apart than this are never separated (scikit-learn's FEATURE_THRESHOLD)."""
PURE = np.finfo(np.float64).eps
"""A node whose residuals vary less than this is not split (scikit-learn's EPSILON)."""
EQUAL = 1.0 + 1e-10
"""Splits whose qualities differ by less than this factor are equal: the first visited wins, not the rounding error."""
ROW_BITS = 0xFFFFFFFF

Keys = NDArray[np.int64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


def sort_columns(columns: NDArray[np.float32]) -> Keys:
    """Sorted keys (D, N) of float32 columns (D, N)."""
    rows = np.argsort(columns, axis=1, kind="stable")
    values = np.take_along_axis(columns, rows, axis=1)
    return (values.view(np.int32).astype(np.int64) << 32) | rows


@compiled
def _value(key):
    return np.int32(key >> 32).view(np.float32)


@compiled
def _centre(keys, residuals, centred):
    """Writes the residuals of a node's rows minus their mean; returns the sum of their squares."""
    total = 0.0
    for key in keys:
        total += residuals[key & ROW_BITS]
    mean = total / keys.size
    squares = 0.0
    for key in keys:
        row = key & ROW_BITS
        centred[row] = residuals[row] - mean
        squares += centred[row] ** 2
    return squares


@compiled
def _scan(keys, centred, bar):
    """The best cut of one sorted column above `bar`: (the bar it sets, rows to its left), or (bar, 0).

    With centred residuals of sum S over the n_l rows to the left, a cut lowers the squared error by
    S^2 (n_l + n_r) / (n_l n_r); its quality is that without the constant n_l + n_r. The comparison avoids the division.
    """
    cut = 0
    left_sum = 0.0
    left = 0.0
    total = float(keys.size)
    last = np.float32(np.inf)  # no cut before the first row
    for position in range(keys.size):
        key = keys[position]
        value = _value(key)
        if value > last + TIE and left_sum * left_sum > bar * left * (total - left):
            bar = EQUAL * (left_sum * left_sum / (left * (total - left)))
            cut = position
        last = value
        left_sum += centred[key & ROW_BITS]
        left += 1.0
    return bar, cut


@compiled
def _best_split(keys, start, stop, residuals, centred, visit):
    """Best split of the node with rows `start:stop`: (column, rows to the left, decrease of the squared error).

    Columns are visited in the order `visit`, which decides between equal ones. All rows go left where nothing splits.
    """
    size = stop - start
    if size < 2 or _centre(keys[0, start:stop], residuals, centred) <= PURE * size:
        return 0, size, 0.0
    bar, best_column, best_cut = -1.0, 0, size  # below any quality: a useless split may open a useful one
    for column in visit:
        bar, cut = _scan(keys[column, start:stop], centred, bar)
        if cut > 0:
            best_column, best_cut = column, cut
    return best_column, best_cut, max(bar, 0.0) / EQUAL * size


@compiled
def _partition(keys, start, stop, cut, node_of_row, into):
    """Copies the range of every column, left child first, each child in sorted order (left children are odd)."""
    for column in range(keys.shape[0]):
        left, right = start, start + cut
        for position in range(start, stop):
            key = keys[column, position]
            goes_left = node_of_row[key & ROW_BITS] & 1
            into[column, left if goes_left else right] = key
            left += goes_left
            right += 1 - goes_left


@compiled
def _grow(keys, residuals, visits, scratch, centred, node_of_row, splits, thresholds, gains):
    """Grows one tree; writes its splits, the decrease of the squared error by column, and each row's node."""
    starts = np.zeros(2 * NUM_NODES + 1, np.int64)
    stops = np.zeros(2 * NUM_NODES + 1, np.int64)
    stops[0] = keys.shape[1]
    for node in range(NUM_NODES):
        level = 0 if node == 0 else 1 if node < 3 else 2
        source = keys if level == 0 else scratch[level - 1]
        start, stop, child = starts[node], stops[node], 2 * node + 1
        column, cut, gain = _best_split(source, start, stop, residuals, centred, visits[node])
        gains[column] += gain
        splits[node] = column
        thresholds[node] = np.inf
        if cut < stop - start:
            below, above = source[column, start + cut - 1], source[column, start + cut]
            thresholds[node] = _value(below) / 2.0 + _value(above) / 2.0
        for position in range(start, stop):
            node_of_row[source[column, position] & ROW_BITS] = child + (position >= start + cut)
        starts[child], stops[child] = start, start + cut
        starts[child + 1], stops[child + 1] = start + cut, stop
        if level < 2:
            _partition(source, start, stop, cut, node_of_row, scratch[level])


@compiled
def _newton_leaves(labels, label, residuals, node_of_row, step, leaves):
    """Leaf values by one Newton step of the log loss (Friedman 2001, algorithms 5 and 6), times the step size."""
    numerator = np.zeros(NUM_LEAVES)
    denominator = np.zeros(NUM_LEAVES)
    for row in range(labels.size):
        leaf = node_of_row[row] - NUM_NODES
        residual = residuals[row]
        probability = (1.0 if labels[row] == label else 0.0) - residual
        numerator[leaf] += residual
        denominator[leaf] += probability * (1.0 - probability)
    for leaf in range(NUM_LEAVES):
        saturated = denominator[leaf] < 1e-150
        leaves[leaf] = 0.0 if saturated else step * numerator[leaf] / denominator[leaf]


@compiled
def grow_trees(first, last, keys, labels, tree_factor, tree_class, steps, residuals, visits, scores, trees, gains):
    """Grows the trees `first:last` of a stage and adds them to the scores.

    labels (F, N); tree_factor, tree_class, steps (T,): the factor and class a tree is for and its step size;
    residuals and scores (T, N); visits (T, 7, D): order in which a node visits the columns; `trees` are the outputs of
    the stage: splits (T, 7), thresholds (T, 7), leaves (T, 8); gains (T, D) are added to.
    """
    splits, thresholds, leaves = trees
    num_rows = keys.shape[1]
    scratch = np.empty((2, keys.shape[0], num_rows), np.int64)
    centred = np.empty(num_rows)
    node_of_row = np.empty(num_rows, np.int8)
    for tree in range(first, last):
        _grow(
            keys, residuals[tree], visits[tree], scratch, centred, node_of_row,
            splits[tree], thresholds[tree], gains[tree],
        )  # fmt: skip
        own_labels = labels[tree_factor[tree]]
        _newton_leaves(own_labels, tree_class[tree], residuals[tree], node_of_row, steps[tree], leaves[tree])
        for row in range(num_rows):
            scores[tree, row] += leaves[tree, node_of_row[row] - NUM_NODES]


@compiled
def compute_residuals(first, last, labels, offsets, scores, residuals):
    """Residuals y - p of the rows `first:last`, from labels (F, N) and scores (T, N).

    The trees `offsets[f]:offsets[f + 1]` are the classes of factor f (softmax), or its class 1 alone (sigmoid).
    """
    for factor in range(labels.shape[0]):
        begin, end = offsets[factor], offsets[factor + 1]
        for row in range(first, last):
            label = labels[factor, row]
            if end - begin == 1:
                residuals[begin, row] = label - 1.0 / (1.0 + np.exp(-scores[begin, row]))
                continue
            highest = scores[begin:end, row].max()
            total = 0.0
            for tree in range(begin, end):
                residuals[tree, row] = np.exp(scores[tree, row] - highest)
                total += residuals[tree, row]
            for tree in range(begin, end):
                residuals[tree, row] = (1.0 if tree - begin == label else 0.0) - residuals[tree, row] / total


@compiled
def add_trees(first, last, columns, splits, thresholds, leaves, scores):
    """Adds all trees to the scores (T, N) of the rows `first:last` of float32 columns (D, N).

    splits, thresholds (S, T, 7) and leaves (S, T, 8) of S stages, added in the order of the fit.
    """
    for stage in range(splits.shape[0]):
        for tree in range(splits.shape[1]):
            for row in range(first, last):
                node = 0
                for _ in range(3):
                    goes_right = columns[splits[stage, tree, node], row] > thresholds[stage, tree, node]
                    node = 2 * node + 1 + goes_right
                scores[tree, row] += leaves[stage, tree, node - NUM_NODES]
