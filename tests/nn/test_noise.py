import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from unweave.config import NoiseConfig, UserError
from unweave.nn.noise import Schedule

PREDICTIONS = {"noise": "epsilon", "v": "v_prediction"}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(x, t):
    """Stands for a U-Net: some smooth function of the noisy latents and the time."""
    return torch.sin(x * (1 + t[:, None, None, None] / 1000)) + 0.1 * x


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
        prediction_type=PREDICTIONS[schedule.prediction],
        **options,
    )
    assert torch.allclose(scheduler.alphas_cumprod.double(), schedule.abar, atol=1e-4)
    scheduler.alphas_cumprod = schedule.abar.clone()
    return scheduler


def test_abar_is_the_published_one(schedule):
    assert schedule.abar.dtype == torch.float64
    assert schedule.abar[[0, 499, 999]].tolist() == pytest.approx([0.998500, 0.151077, 6.68665e-4], rel=5e-6)
    betas = np.linspace(np.sqrt(0.0015), np.sqrt(0.0155), 1000) ** 2
    np.testing.assert_allclose(schedule.abar.numpy(), np.cumprod(1 - betas), rtol=1e-13)


def test_noising_equals_diffusers(schedule):
    latents, noise, t = random(6, 3, 4, 4), random(6, 3, 4, 4, seed=1), torch.tensor([0, 1, 499, 500, 998, 999])
    oracle = diffusers_scheduler(DDPMScheduler, schedule)
    torch.testing.assert_close(
        schedule.add_noise(latents, noise, t), oracle.add_noise(latents, noise, t), rtol=0, atol=1e-12
    )
    if schedule.prediction == "v":
        torch.testing.assert_close(
            schedule.target(latents, noise, t), oracle.get_velocity(latents, noise, t), rtol=0, atol=1e-12
        )


def test_the_target_leads_back_to_latents_and_noise(schedule):
    latents, noise, t = random(1000, 2, 3, 3), random(1000, 2, 3, 3, seed=1), torch.arange(1000)
    noisy, target = schedule.add_noise(latents, noise, t), schedule.target(latents, noise, t)
    torch.testing.assert_close(schedule.to_latent(target, noisy, t), latents, rtol=0, atol=1e-12)
    torch.testing.assert_close(schedule.to_noise(target, noisy, t), noise, rtol=0, atol=1e-12)


def test_noise_and_v_agree_on_what_a_prediction_means():
    by_noise, by_v = (Schedule(NoiseConfig(prediction=name)) for name in ("noise", "v"))
    noisy, v, t = random(5, 2, 3, 3), random(5, 2, 3, 3, seed=1), torch.tensor([0, 200, 400, 700, 999])
    noise = by_v.to_noise(v, noisy, t)
    torch.testing.assert_close(by_noise.to_latent(noise, noisy, t), by_v.to_latent(v, noisy, t), rtol=0, atol=1e-12)


def test_float32_latents_stay_float32(schedule):
    latents, t = random(4, 3, 4, 4).float(), torch.tensor([0, 10, 500, 999])
    noisy = schedule.add_noise(latents, -latents, t)
    assert noisy.dtype == torch.float32
    exact = schedule.add_noise(latents.double(), -latents.double(), t)
    torch.testing.assert_close(noisy.double(), exact, rtol=1e-6, atol=1e-6)


def test_ddim_times_are_the_published_ones(schedule):
    assert schedule.ddim_times(100) == list(range(1, 1000, 10))
    assert schedule.ddim_times(50)[-1] == 981


@pytest.mark.parametrize("end_at_one", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_equals_diffusers(schedule, end_at_one, eta):
    oracle = diffusers_scheduler(DDIMScheduler, schedule, set_alpha_to_one=end_at_one, steps_offset=1)
    end = 1.0 if end_at_one else schedule.abar[0].item()
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
        signal = schedule.abar[t].sqrt()[:, None, None, None]
        sigma = (1 - schedule.abar[t]).sqrt()[:, None, None, None]
        return schedule.target(latents, (noisy - signal * latents) / sigma, t)

    torch.testing.assert_close(schedule.ddim(perfect, noise, 50, 1.0), latents, rtol=0, atol=1e-10)
    left = schedule.ddim(perfect, noise, 50, schedule.abar[0].item()) - schedule.abar[0].sqrt() * latents
    level = schedule.abar[schedule.ddim_times(50)[-1]]
    direction = (noise - level.sqrt() * latents) / (1 - level).sqrt()
    torch.testing.assert_close(left, (1 - schedule.abar[0]).sqrt() * direction, rtol=0, atol=1e-10)


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
