"""How many Gaussians a unit needs: split, merge and prune by one criterion.

U units, K Gaussians, D dimensions. All units go together; one that has settled is left alone.
"""

from typing import Literal

import torch
from torch import Tensor

from unweave.nn.anchors import mixture
from unweave.nn.anchors.mixture import Mixture, Points

Criterion = Literal["bic", "icl"]

TRIAL_STEPS = 60
FINAL_STEPS = 300
MOST_IN_VAIN = 8  # splits of a unit that improve nothing, one after the other, before it counts as settled


def grow(points: Points, criterion: Criterion, k_max: int, min_size: float, reg_covar: float) -> Mixture:
    """Mixtures of 1 to `k_max` Gaussians (U, k_max, ...): grown from one, what improves the criterion is kept.

    Splits are tried at the Gaussian that spreads most, several in a row; merges at the closest pair; Gaussians with
    fewer than `min_size` points are dropped. Deterministic.
    """
    fitted = mixture.fit(points, single(points, reg_covar, k_max), reg_covar).mixture
    search = _Search(points, criterion, reg_covar)
    fitted = search.split_all(fitted, k_max)
    fitted = search.merge_all(fitted)
    counts = fitted.weights * points.weights.sum(1, keepdim=True)
    keep = (counts >= min_size) | (counts == counts.amax(1, keepdim=True))
    weights = torch.where(keep, fitted.weights, 0)
    weights = weights / weights.sum(1, keepdim=True)
    fitted = _in_order(fitted._replace(weights=weights))
    return mixture.fit(points, fitted, reg_covar, FINAL_STEPS, 1e-8).mixture


def regroup(points: Points, members: Tensor, reg_covar: float) -> Mixture:
    """As many Gaussians as there are groups, started from the moments of the groups, `members` (U, n, K) of 0 and 1."""
    part = members * points.weights.unsqueeze(2)
    counts = part.sum(1)  # (U, K)
    means = (part.mT @ points.values) / counts.clamp_min(1e-12).unsqueeze(2)
    centred = points.values.unsqueeze(1) - means.unsqueeze(2)  # (U, K, n, D)
    scatter = torch.einsum("unk,uknd,ukne->ukde", part, centred, centred) / counts.clamp_min(1e-12)[..., None, None]
    start = mixture.make_mixture(counts / counts.sum(1, keepdim=True), means, scatter, reg_covar)
    return mixture.fit(points, start, reg_covar, FINAL_STEPS).mixture


def single(points: Points, reg_covar: float, k_max: int) -> Mixture:
    """One Gaussian with the mean and the covariance of the points, and room for `k_max`."""
    share = (points.weights / points.weights.sum(1, keepdim=True)).unsqueeze(2)  # (U, n, 1)
    mean = (share * points.values).sum(1, keepdim=True)  # (U, 1, D)
    centred = points.values - mean
    scatter = (share * centred).mT @ centred
    one = torch.ones(len(mean), 1, dtype=torch.float64)
    return mixture.make_mixture(one, mean, scatter.unsqueeze(1), reg_covar).widen(k_max)


class _Search:
    """Trials of other numbers of Gaussians, for all units that have not settled at once."""

    def __init__(self, points: Points, criterion: Criterion, reg_covar: float):
        self.points = points
        self.criterion: Criterion = criterion
        self.reg_covar = reg_covar

    def score(self, points: Points, fitted: Mixture, log_likelihood: Tensor) -> Tensor:
        """(U,): log-likelihood less half the free parameters times log n (Schwarz 1978); `icl` also less the entropy
        of the assignment (Biernacki et al. 2000)."""
        num = points.weights.sum(1)
        score = log_likelihood - 0.5 * mixture.num_parameters(fitted) * num.log()
        return score - mixture.entropy(points, fitted) if self.criterion == "icl" else score

    def scored(self, points: Points, start: Mixture, steps: int = TRIAL_STEPS) -> tuple[Mixture, Tensor]:
        fit = mixture.fit(points, start, self.reg_covar, steps)
        return fit.mixture, self.score(points, fit.mixture, fit.log_likelihood)

    def split_all(self, fitted: Mixture, k_max: int) -> Mixture:
        """Splits the most spread Gaussian of each unit again and again, and returns the best on the way.

        A split may be in vain by itself and still lead to a good one: of four levels, no two Gaussians describe halves
        that do not overlap. So it goes on until `MOST_IN_VAIN` splits in a row improved nothing.
        """
        best, best_score = self.scored(self.points, fitted)
        path, in_vain = best, torch.zeros(len(best.weights), dtype=torch.int64)
        while True:
            units = ((path.num_alive < k_max) & (in_vain < MOST_IN_VAIN)).nonzero().squeeze(1)
            if not len(units):
                return best
            spread = path.weights * torch.linalg.eigvalsh(path.covariances)[..., -1]
            chosen = torch.where(path.weights > 0, spread, -1).argmax(1)[units]
            points = self.points.take(units)
            room = min(k_max, int(path.num_alive[units].max()) + 1)
            trial, score = self.scored(points, _split(path.take(units).widen(room), chosen))
            trial = trial.widen(k_max)
            path = path.put(units, trial)
            better = score > best_score[units]
            won = units[better]
            best = best.put(won, trial.take(better.nonzero().squeeze(1)))
            best_score[won] = score[better]
            in_vain[units] += 1
            in_vain[won] = 0

    def merge_all(self, fitted: Mixture) -> Mixture:
        """Merges the closest pair of each unit until that improves no unit's score."""
        fitted, best = self.scored(self.points, fitted)
        units = (fitted.num_alive > 1).nonzero().squeeze(1)
        while len(units):
            points = self.points.take(units)
            trial, score = self.scored(points, _merge(fitted.take(units), self.reg_covar))
            better = score > best[units]
            won = units[better]
            fitted = fitted.put(won, trial.take(better.nonzero().squeeze(1)))
            best[won] = score[better]
            units = won[fitted.num_alive[won] > 1]
        return fitted


def _split(start: Mixture, chosen: Tensor) -> Mixture:
    """Puts two Gaussians, one standard deviation apart from the mean, in the place of one of each unit (U,)."""
    rows = torch.arange(len(chosen))
    values, vectors = torch.linalg.eigh(start.covariances[rows, chosen])  # ascending
    step = vectors[..., -1] * values[:, -1:].sqrt()  # (U, D)
    free = start.num_alive  # the first unused one, since those in use come first
    weights, means = start.weights.clone(), start.means.clone()
    parts = [part.clone() for part in (start.covariances, start.precision_chol, start.log_det)]
    for part in parts:
        part[rows, free] = part[rows, chosen]
    weights[rows, free] = weights[rows, chosen] = start.weights[rows, chosen] / 2
    means[rows, free] = start.means[rows, chosen] + step
    means[rows, chosen] = start.means[rows, chosen] - step
    return Mixture(weights, means, *parts)


def _merge(start: Mixture, reg_covar: float) -> Mixture:
    """One Gaussian with their joint moments in the place of each unit's closest pair: the one whose merger loses
    least by Runnalls' (2007) bound."""
    merged_weight, mean, scatter = _pair_moments(start)
    cost = merged_weight * torch.logdet(scatter) - (start.weights * torch.logdet(start.covariances)).unsqueeze(2)
    cost = cost - (start.weights * torch.logdet(start.covariances)).unsqueeze(1)
    alive = start.weights > 0
    pairs = alive.unsqueeze(1) & alive.unsqueeze(2) & torch.ones(cost.shape[1:]).triu(1).bool()
    flat = torch.where(pairs, cost, torch.inf).flatten(1).argmin(1)
    rows, first, second = torch.arange(len(flat)), flat // cost.shape[2], flat % cost.shape[2]
    weights, means, scatters = start.weights.clone(), start.means.clone(), start.covariances.clone()
    weights[rows, first] = merged_weight[rows, first, second]
    means[rows, first] = mean[rows, first, second]
    scatters[rows, first] = scatter[rows, first, second]
    weights[rows, second] = 0
    return _in_order(mixture.make_mixture(weights, means, scatters, reg_covar))


def _pair_moments(start: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    """Weight (U, K, K), mean (U, K, K, D) and covariance (U, K, K, D, D) of every two Gaussians taken together."""
    a, b = start.weights.unsqueeze(2), start.weights.unsqueeze(1)
    total = a + b
    part = torch.where(total > 0, a / total, 0.5)[..., None]  # (U, K, K, 1)
    apart = start.means.unsqueeze(2) - start.means.unsqueeze(1)  # (U, K, K, D)
    mean = start.means.unsqueeze(1) + part * apart
    within = part[..., None] * start.covariances.unsqueeze(2) + (1 - part[..., None]) * start.covariances.unsqueeze(1)
    between = (part * (1 - part))[..., None] * apart.unsqueeze(4) * apart.unsqueeze(3)
    return total, mean, within + between


def _in_order(fitted: Mixture) -> Mixture:
    """The Gaussians in use first, by their mean along the first dimension."""
    place = torch.where(fitted.weights > 0, fitted.means[..., 0], torch.inf)
    order = place.argsort(dim=1, stable=True)
    rows = torch.arange(len(order)).unsqueeze(1)
    return Mixture(*(part[rows, order] for part in fitted))
