import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from scipy import stats

from tests.nn.noise_cases import ALL, PREDICTIONS, abar, diffusers_scheduler, random
from unweave.config import NoiseConfig
from unweave.nn.noise import Schedule


@pytest.fixture(params=PREDICTIONS)
def schedule(request):
    return Schedule(NoiseConfig(prediction=request.param))


def test_abar_is_the_published_one(schedule):
    assert schedule.signal.dtype == schedule.sigma.dtype == torch.float64
    assert abar(schedule)[[0, 499, 999]].tolist() == pytest.approx([0.998500, 0.151077, 6.68665e-4], rel=5e-6)
    betas = np.linspace(np.sqrt(0.0015), np.sqrt(0.0155), 1000) ** 2
    np.testing.assert_allclose(abar(schedule).numpy(), np.cumprod(1 - betas), rtol=1e-13)
    np.testing.assert_allclose((schedule.signal**2 + schedule.sigma**2).numpy(), 1, rtol=1e-14)


def test_noising_equals_diffusers(schedule):
    latents, noise, t = random(6, 3, 4, 4), random(6, 3, 4, 4, seed=1), torch.tensor([0, 1, 499, 500, 998, 999])
    oracle = diffusers_scheduler(DDPMScheduler, schedule)
    torch.testing.assert_close(
        schedule.add_noise(latents, noise, t), oracle.add_noise(latents, noise, t), rtol=0, atol=1e-12
    )
    if schedule.config.prediction == "v":
        torch.testing.assert_close(
            schedule.target(latents, noise, t), oracle.get_velocity(latents, noise, t), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("prediction", ALL)
def test_the_target_leads_back_to_latents_and_noise(prediction):
    schedule = Schedule(NoiseConfig(prediction=prediction))
    latents, noise, t = random(1000, 2, 3, 3), random(1000, 2, 3, 3, seed=1), torch.arange(1000)
    noisy, target = schedule.add_noise(latents, noise, t), schedule.target(latents, noise, t)
    # without noise, or without signal, the other cannot be told: image and noise prediction divide by it
    torch.testing.assert_close(schedule.to_latent(target, noisy, t), latents, rtol=0, atol=1e-12)
    torch.testing.assert_close(schedule.to_noise(target, noisy, t), noise, rtol=0, atol=1e-12)


@pytest.mark.parametrize("first", PREDICTIONS)
@pytest.mark.parametrize("second", PREDICTIONS)
def test_a_prediction_means_the_same_whatever_is_predicted(first, second):
    """Any prediction, right or wrong, is turned into another kind and back."""
    one, other = (Schedule(NoiseConfig(prediction=name)) for name in (first, second))
    noisy, prediction, t = random(5, 2, 3, 3), random(5, 2, 3, 3, seed=1), torch.tensor([0, 200, 400, 700, 999])
    latent, noise = one.to_latent(prediction, noisy, t), one.to_noise(prediction, noisy, t)
    torch.testing.assert_close(one.add_noise(latent, noise, t), noisy, rtol=0, atol=1e-12)
    translated = other.target(latent, noise, t)
    torch.testing.assert_close(other.to_latent(translated, noisy, t), latent, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.target(latent, noise, t), prediction, rtol=0, atol=1e-12)


def test_flow_is_the_straight_path_of_diffusers():
    schedule = Schedule(NoiseConfig(prediction="flow"))
    oracle = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    times = torch.tensor([0, 1, 499, 998, 999])
    torch.testing.assert_close(oracle.sigmas.double().flip(0), schedule.sigma, rtol=0, atol=1e-6)  # theirs is float32
    latents, noise = random(5, 2, 3, 3), random(5, 2, 3, 3, seed=1)
    expected = oracle.scale_noise(latents.float(), (times + 1).float(), noise.float())
    torch.testing.assert_close(schedule.add_noise(latents, noise, times).float(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("prediction", ALL)
def test_min_snr_counts_an_error_of_the_latent_alike_whatever_is_predicted(prediction):
    schedule = Schedule(NoiseConfig(prediction=prediction, weighting="min_snr", snr_gamma=5.0))
    t = torch.arange(0, 999, 37)
    latents, wrong, noise = (random(len(t), 1, 2, 2, seed=seed) for seed in range(3))
    noisy = schedule.add_noise(latents, noise, t)
    signal, sigma = (table[t][:, None, None, None] for table in (schedule.signal, schedule.sigma))
    prediction_of_wrong = schedule.target(wrong, (noisy - signal * wrong) / sigma, t)
    error = (prediction_of_wrong - schedule.target(latents, noise, t)).square()
    snr = (signal / sigma) ** 2
    expected = snr.clamp(max=5.0) * (wrong - latents).square()
    torch.testing.assert_close(schedule.loss_weight(t, 2).double() * error, expected, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(schedule.loss_weight(t, 1) ** 2, schedule.loss_weight(t, 2))


@pytest.mark.parametrize(
    ("prediction", "closed_form"),
    [
        ("noise", lambda snr: np.minimum(snr, 5) / snr),
        ("v", lambda snr: np.minimum(snr, 5) / (snr + 1)),
        ("image", lambda snr: np.minimum(snr, 5)),
    ],
)
def test_min_snr_is_the_published_weight(prediction, closed_form):
    """Hang et al. 2023, section 3.4."""
    schedule = Schedule(NoiseConfig(prediction=prediction, weighting="min_snr"))
    snr = (abar(schedule) / (1 - abar(schedule))).numpy()
    np.testing.assert_allclose(schedule.weight.numpy(), closed_form(snr), rtol=1e-12)


def test_without_weighting_every_time_counts_alike(schedule):
    assert (schedule.loss_weight(torch.arange(1000), 2) == 1).all()


@pytest.mark.parametrize(
    ("options", "distribution"),
    [
        ({}, stats.uniform()),
        (
            {"times": "logit_normal", "times_mean": 0.7, "times_std": 1.3},
            # the logit of the part is normal: P(u <= x) = Phi((logit(x) - mean) / std)
            lambda x: stats.norm.cdf((np.log(x) - np.log1p(-x) - 0.7) / 1.3),
        ),
    ],
)
def test_times_have_the_distribution_that_was_asked_for(options, distribution):
    torch.manual_seed(0)
    schedule = Schedule(NoiseConfig(**options))
    times = schedule.draw_times(20_000, torch.device("cpu"))
    assert int(times.min()) >= 0
    assert int(times.max()) <= 999
    spread = (times.numpy() + np.random.default_rng(0).random(20_000)) / 1000  # evenly within its thousandth
    assert stats.kstest(spread, getattr(distribution, "cdf", distribution)).pvalue > 0.01


def test_extreme_times_stay_on_the_schedule():
    times = Schedule(NoiseConfig(times="logit_normal", times_mean=40.0)).draw_times(10, torch.device("cpu"))
    assert (times == 999).all()


def test_float32_latents_stay_float32(schedule):
    latents, t = random(4, 3, 4, 4).float(), torch.tensor([0, 10, 500, 999])
    noisy = schedule.add_noise(latents, -latents, t)
    assert noisy.dtype == torch.float32
    exact = schedule.add_noise(latents.double(), -latents.double(), t)
    torch.testing.assert_close(noisy.double(), exact, rtol=1e-6, atol=1e-6)
