"""The published fit of a unit's Gaussians, under a seed (method sections 5.2 and 5.3).

It repeats the arithmetic: tokens min-max scaled the odd way, eight random points as first means, thirty EM steps
whatever they achieve, splits by dispersion or by the toss of a coin with the budget counted as published. It leaves out
the races between threads, swallowed exceptions, clusters of NaN and more Gaussians than `k_max` (section 6, points 11,
13 and 15).

n images, N units, D token width, K Gaussians.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from unweave.nn import mixture
from unweave.nn.mixture import HeldPoints, Mixture

NUM_START = 8
NUM_STEPS = 30
RIDGE = 1e-6
MARGIN = 1e-6
DISPERSION = 0.5
SPLIT_CHANCE = 0.5
SPLIT_BUDGET = 3
MIN_COUNT = 10.0


class Found(NamedTuple):
    """Mixtures in the normalised space, and the extremes (N,) of the tokens that normalised it."""

    mixture: Mixture
    low: Tensor
    high: Tensor


def normalise(tokens: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(x - max) / (max - min + 1e-6) per unit: tokens (n, N, D) to [-1, 0] (section 5.2)."""
    return (tokens - high[:, None]) / (high - low + MARGIN)[:, None]


def denormalise(scaled: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The inverse of `normalise`, which published code has no use for: (n, N, D) to tokens."""
    return scaled * (high - low + MARGIN)[:, None] + high[:, None]


def fit(tokens: Tensor, k_max: int, seed: int) -> Found:
    """Fits each unit of tokens (n, N, D) on its own, with its own random stream."""
    tokens = tokens.double().cpu()
    low, high = tokens.amin((0, 2)), tokens.amax((0, 2))
    scaled = normalise(tokens, low, high)
    fitted = []
    for unit in range(tokens.shape[1]):
        generator = torch.Generator().manual_seed(seed * 1_000_003 % 2**62 + unit)
        fitted.append(_fit_unit(scaled[:, unit], k_max, generator).widen(k_max))
    return Found(Mixture(*(torch.cat(parts) for parts in zip(*fitted))), low, high)


def _fit_unit(x: Tensor, k_max: int, generator: torch.Generator) -> Mixture:
    """x (n, D) -> a mixture (1, K, ...)."""
    points = HeldPoints(x.unsqueeze(0), torch.ones(1, len(x), dtype=torch.float64))
    fitted = _em(points, _start(x, min(NUM_START, k_max, len(x)), generator))
    fitted = _split(points, fitted, k_max, generator)
    counts = _answers(points, fitted).sum(0)
    keep = (counts >= MIN_COUNT) | (counts == counts.max())
    fitted = Mixture(*(part[:, keep] for part in fitted))
    return _em(points, fitted._replace(weights=fitted.weights / fitted.weights.sum()))


def _start(x: Tensor, num: int, generator: torch.Generator) -> Mixture:
    """Random points as means, identity covariances, equal weights."""
    chosen = torch.randperm(len(x), generator=generator)[:num]
    weights = torch.full((1, num), 1 / num, dtype=torch.float64)
    identity = torch.eye(x.shape[1], dtype=torch.float64).expand(1, num, -1, -1)
    return mixture.make_mixture(weights, x[chosen].unsqueeze(0), identity, reg_covar=RIDGE)


def _em(points: HeldPoints, start: Mixture) -> Mixture:
    return mixture.fit(points, start, "full", RIDGE, NUM_STEPS, tol=-1.0).mixture


def _answers(points: HeldPoints, fitted: Mixture) -> Tensor:
    """(n, K): how far each Gaussian answers for each point."""
    whitened = torch.einsum("nd,kde->nke", points.values[0], fitted.factors[0])
    whitened = whitened - (fitted.means[0].unsqueeze(1) @ fitted.factors[0]).squeeze(1)
    log_joint = fitted.weights[0].log() + fitted.log_det[0] - 0.5 * whitened.square().sum(-1)
    return log_joint.softmax(1)


def _split(points: HeldPoints, fitted: Mixture, k_max: int, generator: torch.Generator) -> Mixture:
    """Passes of splits, as published: each split counts against the budget unless all Gaussians are already tight,
    which ends the pass after one split and counts nothing."""
    splits = 0
    while splits < SPLIT_BUDGET and fitted.weights.shape[1] < k_max:
        members = _answers(points, fitted) > 0.5  # (n, K)
        dispersion = torch.stack([_dispersion(points.values[0][column]) for column in members.T])
        tossed = torch.rand(len(dispersion), generator=generator) < SPLIT_CHANCE
        candidates = ((dispersion > DISPERSION) | tossed).nonzero().flatten().tolist()
        candidates = [k for k in candidates if members[:, k].sum() >= 2]
        if not candidates:
            break
        gone: list[int] = []
        children: list[Mixture] = []
        for k in candidates:
            if fitted.weights.shape[1] + len(gone) >= k_max:
                break
            own = points.values[0][members[:, k]]
            part = HeldPoints(own.unsqueeze(0), torch.ones(1, len(own), dtype=torch.float64))
            children.append(_em(part, _start(own, 2, generator)))
            gone.append(k)
            if not (dispersion > DISPERSION).any():
                break
            splits += 1
        fitted = _replaced(fitted, gone, children)
    return fitted


def _replaced(fitted: Mixture, gone: list[int], children: list[Mixture]) -> Mixture:
    """The mixture with each parent's two children in its place; a child's weight is half its own, whatever the
    parent's was (section 6, point 10)."""
    keep = torch.ones(fitted.weights.shape[1], dtype=torch.bool)
    keep[gone] = False
    halved = [child._replace(weights=child.weights / 2) for child in children]
    parts = [Mixture(*(part[:, keep] for part in fitted)), *halved]
    joined = Mixture(*(torch.cat(columns, dim=1) for columns in zip(*parts)))
    return joined._replace(weights=joined.weights / joined.weights.sum())


def _dispersion(x: Tensor) -> Tensor:
    """Mean distance of points from their centroid; 0 for none."""
    if not len(x):
        return torch.zeros((), dtype=torch.float64)
    return (x - x.mean(0)).norm(dim=1).mean()
