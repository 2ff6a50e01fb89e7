"""EM for many mixtures at once against scikit-learn's, step by step, and what no mixture may break."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from unweave.errors import UserError
from unweave.nn.anchors import mixture
from unweave.nn.anchors.mixture import Points, make_mixture
from unweave.nn.encoder import UnitMLPs

NUM_UNITS, RIDGE = 3, 1e-4


def points_of(dim, n=600):
    """Scalars, or the real ReLU tokens of scalars: (U, n, dim) float64."""
    generator = torch.Generator().manual_seed(dim)
    scalars = torch.randn(n, NUM_UNITS, generator=generator)
    if dim == 1:
        return scalars.T.unsqueeze(2).double()
    torch.manual_seed(0)
    with torch.no_grad():
        tokens = UnitMLPs(NUM_UNITS, (1, 256, 512, dim), final_relu=True)(scalars)
    assert 0.3 < (tokens == 0).float().mean() < 0.7
    return tokens.transpose(0, 1).double()


def start_of(values, num):
    """Random points as means, the data's covariance for all."""
    rows = torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(1))[:num]
    means = values[:, rows]
    centred = values - values.mean(1, keepdim=True)
    scatter = (centred.mT @ centred / values.shape[1]).unsqueeze(1).expand(-1, num, -1, -1)
    weights = torch.full((len(values), num), 1 / num, dtype=torch.float64)
    return weights, means, scatter


@pytest.mark.parametrize(("dim", "num"), [(1, 4), (32, 8), (16, 12)])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_step_equals_scikit_learn(dim, num, steps):
    values = points_of(dim)
    weights, means, scatter = start_of(values, num)
    start = make_mixture(weights, means, scatter, RIDGE)
    held = Points(values, torch.ones(values.shape[:2], dtype=torch.float64))
    ours = mixture.fit(held, start, RIDGE, max_steps=steps, tol=-1.0)
    for unit in range(NUM_UNITS):
        precision = torch.linalg.inv(start.covariances[unit]).numpy()
        reference = GaussianMixture(
            num,
            covariance_type="full",
            weights_init=weights[unit].numpy(),
            means_init=means[unit].numpy(),
            precisions_init=precision,
            reg_covar=RIDGE,
            max_iter=steps,
            tol=0,
        ).fit(values[unit].numpy())
        theirs = reference.covariances_
        assert np.abs(ours.mixture.weights[unit].numpy() - reference.weights_).max() < 1e-8
        assert np.abs(ours.mixture.means[unit].numpy() - reference.means_).max() < 1e-8
        assert np.abs(ours.mixture.covariances[unit].numpy() - theirs).max() < 1e-8


def test_log_likelihood_is_scikit_learns_and_never_falls():
    values = points_of(16)
    held = Points(values, torch.ones(values.shape[:2], dtype=torch.float64))
    found = make_mixture(*start_of(values, 8), RIDGE)
    before = torch.full((NUM_UNITS,), -torch.inf, dtype=torch.float64)
    for _ in range(12):
        fit = mixture.fit(held, found, RIDGE, max_steps=1, tol=-1.0)
        assert (fit.log_likelihood >= before - 1e-3 * before.abs()).all()  # the ridge is no part of the likelihood
        assert torch.allclose(fit.mixture.weights.sum(1), torch.ones(NUM_UNITS, dtype=torch.float64), atol=1e-12)
        found, before = fit.mixture, fit.log_likelihood


def test_weighted_points_equal_repeated_ones():
    values = points_of(1, 200)
    counts = torch.randint(1, 4, values.shape[:2], generator=torch.Generator().manual_seed(0))
    start = make_mixture(*start_of(values, 3), RIDGE)
    weighted = mixture.fit(Points(values, counts.double()), start, RIDGE, 10, -1.0)
    for unit in range(NUM_UNITS):
        repeated = values[unit : unit + 1].repeat_interleave(counts[unit], dim=1)
        alone = Points(repeated, torch.ones(repeated.shape[:2], dtype=torch.float64))
        one = mixture.fit(alone, start.take(torch.tensor([unit])), RIDGE, 10, -1.0)
        assert torch.allclose(weighted.mixture.means[unit], one.mixture.means[0], atol=1e-10)
        assert torch.allclose(weighted.log_likelihood[unit], one.log_likelihood[0], atol=1e-8)


def test_density_integrates_what_its_covariance_says():
    """The log-density of the fitted mixture is that of torch's own Gaussians with the same moments."""
    values = points_of(16)
    held = Points(values, torch.ones(values.shape[:2], dtype=torch.float64))
    fit = mixture.fit(held, make_mixture(*start_of(values, 4), 1e-3), 1e-3, 5, -1.0)
    for unit in range(NUM_UNITS):
        parts = torch.distributions.MultivariateNormal(fit.mixture.means[unit], fit.mixture.covariances[unit])
        joint = parts.log_prob(values[unit].unsqueeze(1)) + fit.mixture.weights[unit].log()
        assert torch.allclose(joint.logsumexp(1).sum(), fit.log_likelihood[unit], rtol=1e-8)


def test_ridge_that_is_too_small_is_named():
    with pytest.raises(UserError, match="reg_covar is 0.0: the covariance of mixture 0, Gaussian 0"):
        make_mixture(torch.ones(1, 1).double(), torch.zeros(1, 1, 2).double(), torch.zeros(1, 1, 2, 2).double())
