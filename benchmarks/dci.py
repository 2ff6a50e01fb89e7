"""Times DCI against scikit-learn's GradientBoostingClassifier at the official size: 10,000 rows, 20 codes, one thread.

    OMP_NUM_THREADS=1 python benchmarks/dci.py

A whole fit by scikit-learn takes five to ten minutes, so it fits one factor of the six (`--factor`, the one with four
values unless given) with three seeds; ours fits the same factor three times, then all six. The ratio is of the medians.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import __version__ as sklearn_version
from sklearn.ensemble import GradientBoostingClassifier

import record
from unweave.metrics import boosting, dci, sample_rows

SIZES = (10, 10, 10, 8, 4, 15)  # Shapes3D: 57 trees per stage
REPEATS = 3


def representation(factors: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """20 codes: six noisy factors, six mixtures of all factors, eight of noise alone."""
    sizes = np.asarray(SIZES, float)
    signal = (factors - (sizes - 1) / 2) / np.sqrt((sizes**2 - 1) / 12)
    mixing, _ = np.linalg.qr(np.random.default_rng(100).normal(size=(6, 6)))
    rng = np.random.default_rng(seed)
    noisy = signal + 0.35 * rng.normal(size=signal.shape)
    mixed = signal @ mixing + 0.1 * rng.normal(size=signal.shape)
    return np.concatenate([noisy, mixed, rng.normal(size=(len(factors), 8))], axis=1)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def compare_one_factor(codes: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Ours and scikit-learn's on one factor (N, 1), alternating, with the same seeds."""
    ours_s, theirs_s, ours, theirs = [], [], [], []
    for seed in range(REPEATS):
        seconds, model = timed(lambda seed=seed: boosting.fit(codes, labels, seed=seed, num_threads=1))
        ours_s.append(seconds)
        ours.append(model.importances[:, 0])
        seconds, model = timed(lambda seed=seed: GradientBoostingClassifier(random_state=seed).fit(codes, labels[:, 0]))
        theirs_s.append(seconds)
        theirs.append(model.feature_importances_)
    num_values = len(np.unique(labels))
    num_trees = boosting.NUM_STAGES * (1 if num_values == 2 else num_values)
    return {
        "trees": num_trees,
        "ours_s": ours_s,
        "sklearn_s": theirs_s,
        "ours_ms_per_tree": 1e3 * median(ours_s) / num_trees,
        "sklearn_ms_per_tree": 1e3 * median(theirs_s) / num_trees,
        "times_faster": median(theirs_s) / median(ours_s),
        "largest_importance_difference": max(np.abs(a - b).max() for a, b in zip(ours, theirs)),
        "largest_difference_between_sklearn_seeds": np.ptp(theirs, axis=0).max(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factor", type=int, default=4, help="the factor that scikit-learn fits, 0 to 5")
    factor = parser.parse_args().factor
    train, test = sample_rows(SIZES)
    codes, codes_test = representation(train, seed=1), representation(test, seed=2)
    boosting.fit(codes[:100], train[:100]).predict(codes)  # compile

    one = compare_one_factor(codes, train[:, factor : factor + 1])
    whole = [timed(lambda: dci(codes, train, codes_test, test, num_threads=1)) for _ in range(REPEATS)]
    two_threads_s, _ = timed(lambda: dci(codes, train, codes_test, test, num_threads=2))
    result = whole[0][1]
    numbers = {
        "note": "sklearn fits one factor only; times_faster compares the medians of three fits of that factor",
        "sklearn": sklearn_version,
        "train_rows": len(train),
        "test_rows": len(test),
        "codes": codes.shape[1],
        "compared_factor": factor,
        "compared": one,
        "whole_dci_trees": boosting.NUM_STAGES * sum(SIZES),
        "whole_dci_one_thread_s": [seconds for seconds, _ in whole],
        "whole_dci_two_threads_s": two_threads_s,
        "disentanglement": result.disentanglement,
        "completeness": result.completeness,
        "informativeness_test": result.informativeness_test,
    }
    print(record.write("dci", numbers).read_text())


if __name__ == "__main__":
    main()
