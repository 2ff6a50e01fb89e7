"""Penalties on the codes of variational auto-encoders that disentangle.

B batch, N units. Codes are sampled from q(z|x), normal with a mean and a log variance (B, N) for each image x; q(z) is
its average over the images. All results are in nats, except that of `covariance_penalty`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def draw_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """A sample (B, N) of each normal distribution by the reparameterisation trick (Kingma and Welling 2014)."""
    return mean + torch.randn_like(mean) * (0.5 * log_variance).exp()


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || standard normal) of each image, (B,): beta-VAE multiplies it by beta (Higgins et al. 2017)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def total_correlation(codes: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z) || prod_n q(z_n)) estimated with the batch's own posteriors as q(z): beta-TCVAE (Chen et al. 2018).

    The paper's minibatch-weighted sampling differs by a constant that depends on the number of images of the data set.
    The estimate is biased low, less so for large batches.
    """
    apart = codes.unsqueeze(1) - mean  # (B, B, N): code i under the posterior of image j
    log_density = -0.5 * (apart.square() / log_variance.exp() + log_variance + math.log(2 * math.pi))
    joint = log_density.sum(2).logsumexp(1)  # (B,)
    separate = log_density.logsumexp(1).sum(1)  # (B,)
    return (joint - separate).mean() + (codes.shape[1] - 1) * math.log(len(codes))


def shuffle_units(codes: Tensor) -> Tensor:
    """Codes (B, N) with the values of each unit permuted among the images: samples of prod_n q(z_n)."""
    return torch.stack([unit[torch.randperm(len(unit), device=unit.device)] for unit in codes.unbind(1)], 1)


def density_ratio(logits: Tensor) -> Tensor:
    """Total correlation, the mean of log q(z) - log prod_n q(z_n) over samples of q(z), from a discriminator's logits
    (B, 2); exact for the optimal discriminator (Kim and Mnih 2018, equation 3)."""
    return (logits[:, 0] - logits[:, 1]).mean()


def discriminator_loss(joint: Tensor, shuffled: Tensor) -> Tensor:
    """Cross entropy of a discriminator's logits (B, 2) for codes and for shuffled codes (ibid., algorithm 2)."""
    labels = torch.arange(2, device=joint.device).repeat_interleave(len(joint))
    return F.cross_entropy(torch.cat([joint, shuffled]), labels)


def covariance_penalty(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Squared distance of the covariance of q(z) from the identity: DIP-VAE-II with lambda_od = lambda_d (Kumar et al.
    2018, equation 7)."""
    covariance = mean.T.cov() + log_variance.exp().mean(0).diag()
    return (covariance - torch.eye(len(covariance), device=mean.device)).square().sum()
