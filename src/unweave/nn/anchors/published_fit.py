"""The published fit of a unit's Gaussians, from a seed (docs/fidelity.md, points 6 to 15).

It repeats the arithmetic: tokens are min-max scaled to [-1, 0], eight random points are the first means, EM takes
thirty steps without a test of convergence, Gaussians are split by dispersion or by a coin toss, with the budget and the
order of the published code. It leaves out the races between threads, swallowed exceptions, clusters of NaN and more
Gaussians than `k_max` (points 11, 13, 14 and 15).

n images, N units, D token width, K Gaussians.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from unweave.nn.anchors import mixture
from unweave.nn.anchors.mixture import Mixture, Points

BATCH = 512  # images that the published code encodes, and aligns, at once
NUM_START = 8
NUM_STEPS = 30
RIDGE = 1e-6
MARGIN = 1e-6
DISPERSION = 0.5
SPLIT_CHANCE = 0.5
SPLIT_BUDGET = 3
MIN_COUNT = 10.0
ROWS_AT_ONCE = 4096  # whitened, each takes K times its memory


class PublishedFit(NamedTuple):
    """Mixtures in the normalised space, and the extremes (N,) of the tokens that normalised it."""

    mixture: Mixture
    low: Tensor
    high: Tensor


def normalise(tokens: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(x - max) / (max - min + 1e-6) per unit: tokens (n, N, D) to [-1, 0]."""
    return (tokens - high[:, None]) / (high - low + MARGIN)[:, None]


def denormalise(scaled: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The inverse of `normalise`, which the published code lacks: (n, N, D) to tokens."""
    return scaled * (high - low + MARGIN)[:, None] + high[:, None]


def fit(tokens: Tensor, k_max: int, seed: int) -> PublishedFit:
    """Fits each unit of tokens (n, N, D) on its own, with its own random stream."""
    tokens = tokens.double().cpu()
    low, high = tokens.amin((0, 2)), tokens.amax((0, 2))
    scaled = normalise(tokens, low, high)
    fitted = []
    for unit in range(tokens.shape[1]):
        generator = torch.Generator().manual_seed(seed * 1_000_003 % 2**62 + unit)
        fitted.append(_fit_unit(scaled[:, unit], k_max, generator).widen(k_max))
    return PublishedFit(Mixture(*(torch.cat(parts) for parts in zip(*fitted))), low, high)


def _fit_unit(x: Tensor, k_max: int, generator: torch.Generator) -> Mixture:
    """x (n, D) -> a mixture (1, K, ...)."""
    points = Points(x.unsqueeze(0), torch.ones(1, len(x), dtype=torch.float64))
    fitted = _em(points, _start(x, min(NUM_START, k_max, len(x)), generator))
    fitted = _split(points, fitted, k_max, generator)
    counts = _responsibilities(points, fitted).sum(0)
    keep = (counts >= MIN_COUNT) | (counts == counts.max())
    fitted = Mixture(*(part[:, keep] for part in fitted))
    return _em(points, fitted._replace(weights=fitted.weights / fitted.weights.sum()))


def _start(x: Tensor, num: int, generator: torch.Generator) -> Mixture:
    """Random points as means, identity covariances, equal weights."""
    chosen = torch.randperm(len(x), generator=generator)[:num]
    weights = torch.full((1, num), 1 / num, dtype=torch.float64)
    identity = torch.eye(x.shape[1], dtype=torch.float64).expand(1, num, -1, -1)
    return mixture.make_mixture(weights, x[chosen].unsqueeze(0), identity, reg_covar=RIDGE)


def _em(points: Points, start: Mixture) -> Mixture:
    return mixture.fit(points, start, RIDGE, NUM_STEPS, tol=-1.0).mixture


def _responsibilities(points: Points, fitted: Mixture) -> Tensor:
    """(n, K): the responsibility of each Gaussian for each point."""
    offsets = (fitted.means[0].unsqueeze(1) @ fitted.precision_chol[0]).squeeze(1)  # (K, D)
    parts = []
    for x in points.values[0].split(ROWS_AT_ONCE):
        whitened = torch.einsum("nd,kde->nke", x, fitted.precision_chol[0]) - offsets
        parts.append((fitted.weights[0].log() + fitted.log_det[0] - 0.5 * whitened.square().sum(-1)).softmax(1))
    return torch.cat(parts)


def _split(points: Points, fitted: Mixture, k_max: int, generator: torch.Generator) -> Mixture:
    """Passes of splits, as published. Each split uses up budget, except one that leaves all Gaussians tight, which ends
    the pass.

    A pass splits places of the list. A split removes its Gaussian from the list and appends two, so that a later place
    refers to the next Gaussian (point 9).
    """
    splits, members = 0, _members(points, fitted)
    while splits < SPLIT_BUDGET and fitted.weights.shape[1] < k_max and (members.sum(0) >= 2).any():
        # the places to split: wide Gaussians, and others by a coin toss
        tossed = torch.rand(members.shape[1], generator=generator) < SPLIT_CHANCE
        places = ((_dispersions(points, members) > DISPERSION) | tossed).nonzero().flatten().tolist()
        if not places:
            break

        # split them one after the other
        for place in places:
            own = points.values[0][members[:, place]]
            if len(own) < 2 or fitted.weights.shape[1] >= k_max:
                continue
            part = Points(own.unsqueeze(0), torch.ones(1, len(own), dtype=torch.float64))
            fitted = _replaced(fitted, place, _em(part, _start(own, 2, generator)))
            members = _members(points, fitted)
            if (_dispersions(points, members) <= DISPERSION).all():
                break
            splits += 1
    return fitted


def _replaced(fitted: Mixture, place: int, children: Mixture) -> Mixture:
    """The mixture without the Gaussian at `place`, with its two children at the end. The weights of the children are
    halved, independently of the parent's (point 10)."""
    stays = torch.arange(fitted.weights.shape[1]) != place
    halved = children._replace(weights=children.weights / 2)
    joined = Mixture(*(torch.cat([part[:, stays], new], dim=1) for part, new in zip(fitted, halved)))
    return joined._replace(weights=joined.weights / joined.weights.sum())


def _members(points: Points, fitted: Mixture) -> Tensor:
    """(n, K) bool: the points for which each Gaussian has a responsibility above a half."""
    return _responsibilities(points, fitted) > 0.5


def _dispersions(points: Points, members: Tensor) -> Tensor:
    """(K,): mean distance of each Gaussian's members from their centroid; 0 without any."""
    parts = [points.values[0][column] for column in members.T]
    away = [(part - part.mean(0)).norm(dim=1).mean() if len(part) else part.new_zeros(()) for part in parts]
    return torch.stack(away)
