"""The published arithmetic of the anchors in plain numpy and torch, for comparison.

`mended` names points of docs/fidelity.md that are put right, so that a test can show that each of them is in ours.
"""

import numpy as np
import torch
from scipy.stats import multivariate_normal
from torch.distributions import MultivariateNormal

RIDGE = 1e-6
TIGHT = 0.5  # dispersion that asks for no split


def published_fit(x, k_max, generator, mended=frozenset()):
    """Points (n, D) to means (K, D), covariances (K, D, D) and weights (K,)."""

    def start(points, num):
        drawn = points[torch.randperm(len(points), generator=generator)[:num].numpy()]
        return drawn, np.stack([np.eye(x.shape[1])] * num), np.full(num, 1 / num)

    means, covariances, weights = _em(x, *start(x, 8))
    splits = 0
    while splits < 3 and len(weights) < k_max:
        coins = torch.rand(len(weights), generator=generator).numpy() < (0 if 7 in mended else 0.5)
        spread = _dispersion(x, _answers(x, means, covariances, weights))
        chosen = np.flatnonzero((spread > TIGHT) | coins)
        if not len(chosen):
            break
        for already, place in enumerate(chosen):
            k = place - already if 9 in mended else place
            members = x[_answers(x, means, covariances, weights)[:, k] > 0.5]
            if len(members) < 2 or (11 in mended and len(weights) >= k_max):
                continue
            new_means, new_covariances, new_weights = _em(members, *start(members, 2))
            parent = weights[k] if 10 in mended else 0.5
            means = np.concatenate([np.delete(means, k, 0), new_means])
            covariances = np.concatenate([np.delete(covariances, k, 0), new_covariances])
            weights = np.concatenate([np.delete(weights, k), parent * new_weights])
            weights = weights / weights.sum()
            if 8 not in mended:
                if (_dispersion(x, _answers(x, means, covariances, weights)) <= TIGHT).all():
                    break
                splits += 1
        splits += 8 in mended
    keep = _answers(x, means, covariances, weights).sum(0) >= 10
    return _em(x, means[keep], covariances[keep], weights[keep] / weights[keep].sum())


def _em(x, means, covariances, weights):
    for _ in range(30):
        answers = _answers(x, means, covariances, weights)
        counts = answers.sum(0)
        means = answers.T @ x / counts[:, None]
        parts = [(answers[:, [k]] * (x - mean)).T @ (x - mean) / counts[k] for k, mean in enumerate(means)]
        covariances, weights = np.stack(parts), counts / counts.sum()
    return means, covariances, weights


def _answers(x, means, covariances, weights):
    """(n, K)."""
    ridge = RIDGE * np.eye(x.shape[1])
    parts = zip(means, covariances, weights, strict=True)
    logs = np.stack([np.log(w) + multivariate_normal.logpdf(x, m, c + ridge) for m, c, w in parts], axis=1)
    joint = np.exp(logs - logs.max(1, keepdims=True))
    return joint / joint.sum(1, keepdims=True)


def _dispersion(x, answers):
    """(K,): mean distance of the members from their centroid."""
    groups = [x[column > 0.5] for column in answers.T]
    return np.array([np.linalg.norm(g - g.mean(0), axis=1).mean() if len(g) else 0.0 for g in groups])


def normalised(tokens, low, high):
    """Tokens (n, N, D) to -1 to 0, by the extremes (N,) of each unit."""
    return (tokens - high[:, None]) / (high - low + 1e-6)[:, None]


def published_pull(tokens, anchors, mended=frozenset()):
    """A batch of tokens (B, N, D) as training alters it, by fitted `Anchors` of mode `published`."""
    low, high = tokens.detach().amin((0, 2)), tokens.detach().amax((0, 2))  # (N,)
    if 4 in mended:
        low, high = anchors.low.float(), anchors.high.float()
    goals = []
    for unit, x in enumerate(normalised(tokens.detach(), low, high).unbind(1)):
        alive = anchors.weights[unit] > 0
        means, root = anchors.means[unit, alive], anchors.precision_chol[unit, alive]
        gaussians = MultivariateNormal(means, precision_matrix=root @ root.mT)
        logs = gaussians.log_prob(x.double().unsqueeze(1)) + anchors.weights[unit, alive].log()  # (B, K)
        goal = means[logs.argmax(1)].float()
        goal = goal + 1 if 3 in mended else goal
        goals.append(goal * (high - low)[unit] + high[unit] if 2 in mended else goal)
    goal = torch.stack(goals, dim=1)
    if 1 in mended:
        error = ((tokens - goal).norm(dim=2) / tokens.norm(dim=2)).mean()
    else:
        error = ((tokens - goal) / (tokens + 1e-6)).abs()
        error = error.mean(2, keepdim=True).detach() if 5 in mended else error.mean()
    weight = 0.1 * torch.exp(-error)
    return weight * goal + (1 - weight) * tokens
