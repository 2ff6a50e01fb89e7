"""Times the scores at the official sizes: a Shapes3D grid, 20 codes, one thread; `python benchmarks/metrics.py`.

No bootstrap, one evaluation seed. The official suite, then the parts that people wait for elsewhere: FactorVAE's
15,000 votes, and the first principal component of 20 units of 32 numbers over 480,000 images. Ratios against
scikit-learn's PCA, unit by unit as the published evaluation runs it, are from the same run (on 2 units, times ten), and
so are those of DCI's trees against its gradient boosting, for one factor of six as in dci.py.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
from sklearn.decomposition import PCA

import record
from dci import SIZES, compare_one_factor, representation, timed
from unweave.metrics import cell_index, factor_vae_score, sample_rows
from unweave.metrics.inputs import one_number_per_unit
from unweave.metrics.suite import METRICS, score_grid

NUM_UNITS, TOKEN_DIM = 20, 32
SKLEARN_UNITS = 2
DCI_FACTOR = 4  # the one with fewest values, the quickest for scikit-learn


def main() -> None:
    factors = np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), axis=1)
    codes = representation(factors, seed=1)
    score_grid(codes, SIZES, metrics=METRICS, protocol="official", seed=1)  # compiles
    suite_s, result = timed(lambda: score_grid(codes, SIZES, protocol="official"))
    votes_s, _ = timed(lambda: factor_vae_score(codes, SIZES, protocol="official"))

    tokens = np.random.default_rng(0).normal(size=(len(codes), NUM_UNITS, TOKEN_DIM)).astype(np.float32)
    pca_s, _ = timed(lambda: one_number_per_unit(tokens))
    theirs_s, _ = timed(lambda: [PCA(1).fit_transform(tokens[:, unit]) for unit in range(SKLEARN_UNITS)])
    theirs_s *= NUM_UNITS / SKLEARN_UNITS

    train, _ = sample_rows(SIZES)
    trees = compare_one_factor(codes[cell_index(train, SIZES)], train[:, DCI_FACTOR : DCI_FACTOR + 1])
    numbers = {
        "threads": 1,
        "codes": codes.shape[1],
        "suite_s": suite_s,
        "suite_parts_s": result.seconds,
        "factor_vae_15000_votes_s": votes_s,
        "pca_480000x20x32_s": pca_s,
        "pca_sklearn_s": theirs_s,
        "pca_times_faster": theirs_s / pca_s,
        "dci_one_factor": trees,
        "scores": {f"{score.metric} {score.name}": score.value for score in result.scores},
    }
    print(record.write("metrics", numbers).read_text())


if __name__ == "__main__":
    main()
