"""What the tests of noise levels and of solvers share: networks, the best one for a Gaussian, diffusers' schedule."""

import torch

PREDICTIONS = {"noise": "epsilon", "v": "v_prediction", "image": "sample"}  # on the variance-preserving path
ALL = [*PREDICTIONS, "flow"]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(x, t):
    """Stands for a U-Net: some smooth function of the noisy latents and the time."""
    return torch.sin(x * (1 + t[:, None, None, None] / 1000)) + 0.1 * x


def abar(schedule):
    return schedule.signal**2


def diffusers_scheduler(kind, schedule, **options):
    """diffusers' scheduler with our float64 alphas written over its float32 ones."""
    scheduler = kind(
        beta_start=0.0015,
        beta_end=0.0155,
        beta_schedule="scaled_linear",
        prediction_type=PREDICTIONS[schedule.config.prediction],
        **options,
    )
    assert torch.allclose(scheduler.alphas_cumprod.double(), abar(schedule), atol=1e-4)
    scheduler.alphas_cumprod = abar(schedule)
    return scheduler


def gaussian_optimum(schedule, mean, spread):
    """The best prediction for latents that are N(mean, spread^2) in every entry, in closed form."""

    def predict(noisy, t):
        signal, sigma = (table[t][:, None, None, None] for table in (schedule.signal, schedule.sigma))
        gain = signal * spread**2 / (signal**2 * spread**2 + sigma**2)
        latent = mean + gain * (noisy - signal * mean)
        return schedule.target(latent, (noisy - signal * latent) / sigma, t)

    return predict
