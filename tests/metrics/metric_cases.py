"""Representations with known structure over the Shapes3D factor grid, and the values the reference gives for them.

The generators are deterministic, so the 480,000-row grids are made anew instead of being stored. The reference values
are in `fixtures/metrics_expected.json`.
"""

import json
from pathlib import Path

import numpy as np

SIZES = (10, 10, 10, 8, 4, 15)
NAMES = ("perfect", "noisy", "rotated", "dead")
EXPECTED = json.loads((Path(__file__).parents[1] / "fixtures" / "metrics_expected.json").read_text())


def grid_factors(sizes=SIZES):
    """All factor tuples (cells, F) in C order."""
    return np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)


def grid_codes(name):
    """Codes (480000, D) of a case, one row per cell."""
    sizes = np.asarray(SIZES, float)
    factors = (grid_factors() - (sizes - 1) / 2) / np.sqrt((sizes**2 - 1) / 12)  # mean 0, variance 1
    return {"perfect": _perfect, "noisy": _noisy, "rotated": _rotated, "dead": _dead}[name](factors)


def _perfect(factors):
    return factors[:, [3, 0, 5, 1, 4, 2]] * [1, -2, 0.5, 3, 1, -1]


def _noisy(factors):
    """Six codes with noise, four of noise alone."""
    rng = np.random.RandomState(11)
    signal = factors + 0.35 * rng.standard_normal(factors.shape)
    return np.concatenate([signal, rng.standard_normal((len(factors), 4))], axis=1)


def _rotated(factors):
    """Every code mixes all factors."""
    orthogonal, triangle = np.linalg.qr(np.random.RandomState(5).standard_normal((6, 6)))
    noise = np.random.RandomState(12).standard_normal(factors.shape)
    return factors @ (orthogonal * np.sign(np.diag(triangle))) + 0.01 * noise


def _dead(factors):
    """Six codes with a little noise, two constant ones, two of standard deviation 0.01."""
    rng = np.random.RandomState(13)
    clean = factors + 0.1 * rng.standard_normal(factors.shape)
    constant = np.full((len(factors), 2), 0.3)
    faint = 0.01 * rng.standard_normal((len(factors), 2))
    return np.concatenate([clean[:, :3], constant, clean[:, 3:], faint], axis=1)
