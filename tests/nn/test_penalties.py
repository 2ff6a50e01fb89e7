"""Penalties of the VAEs against closed forms of Gaussians."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from unweave.nn.penalties import (
    covariance_penalty,
    density_ratio,
    discriminator_loss,
    draw_normal,
    gaussian_kl,
    shuffle_units,
    total_correlation,
)

CORRELATED = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, 0.4], [0.0, 0.4, 1.0]], dtype=torch.float64)
INDEPENDENT = torch.diag(torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))
NOISE = 0.15  # variance of each posterior


def known(covariance):
    """The total correlation of a Gaussian: (sum of log variances - log determinant) / 2."""
    return 0.5 * (covariance.diagonal().log().sum() - torch.logdet(covariance)).item()


def posteriors(covariance, num):
    """Means and log variances of posteriors whose average is a Gaussian of this covariance, and a draw from each."""
    torch.manual_seed(0)
    rest = covariance - NOISE * torch.eye(len(covariance), dtype=torch.float64)
    mean = torch.randn(num, len(covariance), dtype=torch.float64) @ torch.linalg.cholesky(rest).T
    log_variance = torch.full_like(mean, math.log(NOISE))
    return draw_normal(mean, log_variance), mean, log_variance


def test_divergence_is_that_of_torch():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(2, 50, 4, dtype=torch.float64)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)


def test_draws_have_their_mean_and_variance_and_pass_gradients():
    torch.manual_seed(0)
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, -2.0]], requires_grad=True)
    drawn = draw_normal(mean.expand(100_000, -1), log_variance.expand(100_000, -1))
    torch.testing.assert_close(drawn.mean(0), mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.var(0), log_variance[0].exp(), atol=0.02, rtol=0)
    (gradient,) = torch.autograd.grad(drawn.square().mean(0).sum(), log_variance)
    torch.testing.assert_close(gradient, log_variance.exp().detach(), atol=0.03, rtol=0)  # of mean^2 + variance


@pytest.mark.parametrize("covariance", [CORRELATED, INDEPENDENT])
def test_minibatch_estimate_of_the_total_correlation_of_a_gaussian(covariance):
    estimate = total_correlation(*posteriors(covariance, 2_000)).item()
    assert estimate == pytest.approx(known(covariance), abs=0.05)


def test_minibatch_estimate_is_the_formula_of_the_paper():
    """Chen et al. (2018), section 4.1 with the batch as the data set, code by code and unit by unit."""
    codes, mean, log_variance = posteriors(CORRELATED, 7)
    joint, separate = 0.0, 0.0
    for i in range(7):
        densities = [
            [Normal(mean[j, n], (0.5 * log_variance[j, n]).exp()).log_prob(codes[i, n]).exp() for n in range(3)]
            for j in range(7)
        ]
        joint += math.log(sum(math.prod(row) for row in densities) / 7) / 7
        separate += sum(math.log(sum(row[n] for row in densities) / 7) for n in range(3)) / 7
    assert total_correlation(codes, mean, log_variance).item() == pytest.approx(joint - separate)


@pytest.mark.parametrize("covariance", [CORRELATED, INDEPENDENT])
def test_discriminator_s_estimate_of_the_total_correlation_of_a_gaussian(covariance):
    codes = posteriors(covariance, 40_000)[0].float()
    discriminator = torch.nn.Sequential(
        *(torch.nn.Linear(3, 64), torch.nn.LeakyReLU(0.2), torch.nn.Linear(64, 64), torch.nn.LeakyReLU(0.2)),
        torch.nn.Linear(64, 2),
    )
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3)
    for step in range(600):
        batch = codes[step * 50 % 30_000 :][:512]
        discriminator_loss(discriminator(batch), discriminator(shuffle_units(batch))).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert density_ratio(discriminator(codes[30_000:])).item() == pytest.approx(known(covariance), abs=0.08)


def test_density_ratio_of_the_true_densities_is_the_total_correlation():
    codes = posteriors(CORRELATED, 100_000)[0]
    joint = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), CORRELATED).log_prob(codes)
    separate = Normal(0.0, CORRELATED.diagonal().sqrt()).log_prob(codes).sum(1)
    assert density_ratio(torch.stack([joint, separate], 1)).item() == pytest.approx(known(CORRELATED), abs=0.01)


def test_the_best_discriminator_of_independent_codes_knows_nothing():
    logits = torch.zeros(8, 2)
    assert discriminator_loss(logits, logits).item() == pytest.approx(math.log(2))
    sure = torch.tensor([[9.0, -9.0]]).expand(8, 2)
    assert discriminator_loss(sure, -sure).item() < 1e-6
    assert discriminator_loss(-sure, sure).item() > 10


def test_shuffling_keeps_each_unit_and_parts_them():
    codes = posteriors(CORRELATED, 20_000)[0]
    shuffled = shuffle_units(codes)
    torch.testing.assert_close(shuffled.sort(0).values, codes.sort(0).values, atol=0, rtol=0)
    off_diagonal = np.corrcoef(shuffled.T.numpy()) - np.eye(3)
    assert np.abs(off_diagonal).max() < 0.03


def test_covariance_penalty_is_the_squared_distance_from_the_identity():
    _, mean, log_variance = posteriors(CORRELATED, 500)
    covariance = np.cov(mean.numpy().T) + NOISE * np.eye(3)
    expected = np.square(covariance - np.eye(3)).sum()
    assert covariance_penalty(mean, log_variance).item() == pytest.approx(expected)
