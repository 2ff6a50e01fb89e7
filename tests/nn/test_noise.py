import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from scipy import stats

from unweave.config import NoiseConfig
from unweave.errors import UserError
from unweave.nn.noise import Schedule

PREDICTIONS = {"noise": "epsilon", "v": "v_prediction", "image": "sample"}  # on the variance-preserving path
ALL = [*PREDICTIONS, "flow"]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(x, t):
    """Stands for a U-Net: some smooth function of the noisy latents and the time."""
    return torch.sin(x * (1 + t[:, None, None, None] / 1000)) + 0.1 * x


def abar(schedule):
    return schedule.signal**2


@pytest.fixture(params=PREDICTIONS)
def schedule(request):
    return Schedule(NoiseConfig(prediction=request.param))


def diffusers_scheduler(kind, schedule, **options):
    """diffusers' scheduler with our float64 alphas written over its float32 ones."""
    scheduler = kind(
        beta_start=0.0015,
        beta_end=0.0155,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type=PREDICTIONS[schedule.config.prediction],
        **options,
    )
    assert torch.allclose(scheduler.alphas_cumprod.double(), abar(schedule), atol=1e-4)
    scheduler.alphas_cumprod = abar(schedule)
    return scheduler


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


def gaussian_optimum(schedule, mean, spread):
    """The best prediction for latents that are N(mean, spread^2) in every entry, in closed form."""

    def predict(noisy, t):
        signal, sigma = (table[t][:, None, None, None] for table in (schedule.signal, schedule.sigma))
        gain = signal * spread**2 / (signal**2 * spread**2 + sigma**2)
        latent = mean + gain * (noisy - signal * mean)
        return schedule.target(latent, (noisy - signal * latent) / sigma, t)

    return predict


@pytest.mark.parametrize("prediction", ALL)
def test_sampling_a_gaussian_follows_its_probability_flow(prediction):
    """The flow keeps the number of standard deviations from the mean (Song et al. 2021b), so its end is known."""
    mean, spread = 1.5, 0.3
    schedule = Schedule(NoiseConfig(prediction=prediction))
    noise = random(4, 2, 3, 3)
    errors = []
    for steps in (50, 100, 200, 500):
        found = schedule.ddim(gaussian_optimum(schedule, mean, spread), noise, steps)
        start = schedule.sampling_times(steps)[-1]
        signal, sigma = schedule.signal[start], schedule.sigma[start]
        expected = mean + spread * (noise - signal * mean) / (signal**2 * spread**2 + sigma**2).sqrt()
        errors.append((found - expected).abs().max().item())
    assert errors[-1] < 0.1 * spread
    assert (np.array(errors[1:]) < 0.7 * np.array(errors[:-1])).all()  # and on to none with more steps


def test_sampling_a_gaussian_is_the_same_whatever_is_predicted():
    noise = random(4, 2, 3, 3)
    schedules = [Schedule(NoiseConfig(prediction=prediction)) for prediction in PREDICTIONS]
    found = [schedule.ddim(gaussian_optimum(schedule, 1.5, 0.3), noise, 20) for schedule in schedules]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-11)


def test_flow_is_the_straight_path_of_diffusers():
    schedule = Schedule(NoiseConfig(prediction="flow"))
    oracle = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    times = torch.tensor([0, 1, 499, 998, 999])
    torch.testing.assert_close(oracle.sigmas.double().flip(0), schedule.sigma, rtol=0, atol=1e-6)  # theirs is float32
    latents, noise = random(5, 2, 3, 3), random(5, 2, 3, 3, seed=1)
    expected = oracle.scale_noise(latents.float(), (times + 1).float(), noise.float())
    torch.testing.assert_close(schedule.add_noise(latents, noise, times).float(), expected, rtol=0, atol=1e-6)

    x = random(2, 2, 3, 3)
    steps = schedule.sampling_times(50)
    assert (steps[0], steps[-1], len(steps)) == (19, 999, 50)
    found = schedule.ddim(network, x, 50)
    for step in reversed(steps):  # Euler's method, written out
        x = x - 0.02 * network(x, torch.full((2,), step))
    torch.testing.assert_close(found, x, rtol=0, atol=1e-12)


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


def test_sampling_times_are_the_published_ones(schedule):
    assert schedule.sampling_times(100) == list(range(1, 1000, 10))
    assert schedule.sampling_times(50)[-1] == 981


@pytest.mark.parametrize("end_at_one", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_equals_diffusers(schedule, end_at_one, eta):
    oracle = diffusers_scheduler(DDIMScheduler, schedule, set_alpha_to_one=end_at_one, steps_offset=1)
    end = 1.0 if end_at_one else abar(schedule)[0].item()
    oracle.final_alpha_cumprod = torch.tensor(end, dtype=torch.float64)
    oracle.set_timesteps(100)
    expected, generator = random(2, 3, 4, 4), torch.Generator().manual_seed(5)
    for t in oracle.timesteps:
        prediction = network(expected, t.expand(2))
        expected = oracle.step(prediction, t, expected, eta=eta, generator=generator).prev_sample
    found = schedule.ddim(network, random(2, 3, 4, 4), 100, end, eta, torch.Generator().manual_seed(5))
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max().clamp(min=1)


def test_a_perfect_network_samples_its_latent(schedule):
    """With the target as prediction every step stays on the straight line between latent and noise."""
    latents, noise = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)

    def perfect(noisy, t):
        signal, sigma = (table[t][:, None, None, None] for table in (schedule.signal, schedule.sigma))
        return schedule.target(latents, (noisy - signal * latents) / sigma, t)

    torch.testing.assert_close(schedule.ddim(perfect, noise, 50, 1.0), latents, rtol=0, atol=1e-10)
    left = schedule.ddim(perfect, noise, 50, abar(schedule)[0].item()) - schedule.signal[0] * latents
    start = schedule.sampling_times(50)[-1]
    direction = (noise - schedule.signal[start] * latents) / schedule.sigma[start]
    torch.testing.assert_close(left, schedule.sigma[0] * direction, rtol=0, atol=1e-10)


def test_fresh_noise_follows_its_generator(schedule):
    runs = [
        schedule.ddim(network, random(2, 3, 4, 4), 20, 1.0, 1.0, torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.allclose(runs[0], runs[2])


@pytest.mark.parametrize("steps", [0, -5, 30, 1000, 2000])
def test_steps_that_do_not_divide_the_schedule_are_refused(schedule, steps):
    with pytest.raises(UserError, match=f"{steps} sampling steps"):
        schedule.ddim(network, random(1, 1, 2, 2), steps, 1.0)


def test_fresh_noise_has_no_place_on_the_straight_path():
    with pytest.raises(UserError, match="eta adds the noise"):
        Schedule(NoiseConfig(prediction="flow")).ddim(
            network, random(1, 1, 2, 2), 20, eta=1.0, generator=torch.Generator()
        )
