import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from tests.nn.noise_cases import ALL, PREDICTIONS, abar, diffusers_scheduler, gaussian_optimum, network, random
from unweave.config import NoiseConfig
from unweave.errors import UserError
from unweave.nn.noise import Schedule
from unweave.nn.solver import ddim, ddim_times, dpm, dpm_times, find_sampler, invert


@pytest.fixture(params=PREDICTIONS)
def schedule(request):
    return Schedule(NoiseConfig(prediction=request.param))


@pytest.mark.parametrize("prediction", ALL)
def test_sampling_a_gaussian_follows_its_probability_flow(prediction):
    """The flow keeps the number of standard deviations from the mean (Song et al. 2021b), so its end is known."""
    mean, spread = 1.5, 0.3
    schedule = Schedule(NoiseConfig(prediction=prediction))
    noise = random(4, 2, 3, 3)
    errors = []
    for steps in (50, 100, 200, 500):
        found = ddim(schedule, gaussian_optimum(schedule, mean, spread), noise, steps)
        start = ddim_times(schedule, steps)[-1]
        signal, sigma = schedule.signal[start], schedule.sigma[start]
        expected = mean + spread * (noise - signal * mean) / (signal**2 * spread**2 + sigma**2).sqrt()
        errors.append((found - expected).abs().max().item())
    assert errors[-1] < 0.1 * spread
    assert (np.array(errors[1:]) < 0.7 * np.array(errors[:-1])).all()  # and on to none with more steps


def test_sampling_a_gaussian_is_the_same_whatever_is_predicted():
    noise = random(4, 2, 3, 3)
    schedules = [Schedule(NoiseConfig(prediction=prediction)) for prediction in PREDICTIONS]
    found = [ddim(schedule, gaussian_optimum(schedule, 1.5, 0.3), noise, 20) for schedule in schedules]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-11)


def test_ddim_on_the_straight_path_is_eulers_method():
    schedule = Schedule(NoiseConfig(prediction="flow"))
    x = random(2, 2, 3, 3)
    steps = ddim_times(schedule, 50)
    assert (steps[0], steps[-1], len(steps)) == (19, 999, 50)
    found = ddim(schedule, network, x, 50)
    for step in reversed(steps):  # Euler's method, written out
        x = x - 0.02 * network(x, torch.full((2,), step))
    torch.testing.assert_close(found, x, rtol=0, atol=1e-12)


def test_sampling_times_are_the_published_ones(schedule):
    assert ddim_times(schedule, 100) == list(range(1, 1000, 10))
    assert ddim_times(schedule, 50)[-1] == 981


@pytest.mark.parametrize("end_at_one", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_equals_diffusers(schedule, end_at_one, eta):
    options = {"clip_sample": False, "set_alpha_to_one": end_at_one, "steps_offset": 1}
    oracle = diffusers_scheduler(DDIMScheduler, schedule, **options)
    end = 1.0 if end_at_one else abar(schedule)[0].item()
    oracle.final_alpha_cumprod = torch.tensor(end, dtype=torch.float64)
    oracle.set_timesteps(100)
    expected, generator = random(2, 3, 4, 4), torch.Generator().manual_seed(5)
    for t in oracle.timesteps:
        prediction = network(expected, t.expand(2))
        expected = oracle.step(prediction, t, expected, eta=eta, generator=generator).prev_sample
    found = ddim(schedule, network, random(2, 3, 4, 4), 100, end, eta, torch.Generator().manual_seed(5))
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max().clamp(min=1)


def test_a_perfect_network_samples_its_latent(schedule):
    """With the target as prediction every step stays on the straight line between latent and noise."""
    latents, noise = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)

    def perfect(noisy, t):
        signal, sigma = (table[t][:, None, None, None] for table in (schedule.signal, schedule.sigma))
        return schedule.target(latents, (noisy - signal * latents) / sigma, t)

    torch.testing.assert_close(ddim(schedule, perfect, noise, 50, 1.0), latents, rtol=0, atol=1e-10)
    left = ddim(schedule, perfect, noise, 50, abar(schedule)[0].item()) - schedule.signal[0] * latents
    start = ddim_times(schedule, 50)[-1]
    direction = (noise - schedule.signal[start] * latents) / schedule.sigma[start]
    torch.testing.assert_close(left, schedule.sigma[0] * direction, rtol=0, atol=1e-10)


def test_fresh_noise_follows_its_generator(schedule):
    runs = [
        ddim(schedule, network, random(2, 3, 4, 4), 20, 1.0, 1.0, torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.allclose(runs[0], runs[2])


@pytest.mark.parametrize("steps", [0, -5, 30, 1000, 2000])
def test_steps_that_do_not_divide_the_schedule_are_refused(schedule, steps):
    with pytest.raises(UserError, match=f"{steps} sampling steps"):
        ddim(schedule, network, random(1, 1, 2, 2), steps, 1.0)


@pytest.mark.parametrize("steps", [0, -5, 1000])
def test_dpm_takes_any_number_of_steps_that_the_schedule_has(schedule, steps):
    assert len(dpm_times(schedule, 30)) == 30
    with pytest.raises(UserError, match=f"{steps} sampling steps: choose from 1 to 999"):
        dpm(schedule, network, random(1, 1, 2, 2), steps)


def test_fresh_noise_has_no_place_on_the_straight_path():
    with pytest.raises(UserError, match="eta adds the noise"):
        ddim(
            Schedule(NoiseConfig(prediction="flow")),
            network,
            random(1, 1, 2, 2),
            20,
            eta=1.0,
            generator=torch.Generator(),
        )


@pytest.mark.parametrize("prediction", ALL)
def test_times_of_dpm_are_even_in_the_logarithm_of_the_signal(prediction):
    schedule = Schedule(NoiseConfig(prediction=prediction))
    times = dpm_times(schedule, 20)
    log_snr = (schedule.signal / schedule.sigma).log()
    flow = prediction == "flow"
    assert (times[0], times[-1]) == ((0, 998) if flow else (1, 999))
    log_snr = log_snr.numpy()
    even = np.linspace(log_snr[times[0]], log_snr[times[-1]], 20)
    neighbours = np.abs(np.diff(log_snr[: times[-1] + 1]))[np.maximum(np.array(times) - 1, 0)]
    assert (np.abs(log_snr[times] - even) <= neighbours / 2 + 1e-9).all()  # no time is nearer
    many = dpm_times(schedule, 300)
    assert many == sorted(set(many))
    assert dpm_times(schedule, 1) == times[-1:]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")
@pytest.mark.parametrize("end_at_one", [True, False])
@pytest.mark.parametrize("prediction", ALL)
def test_dpm_equals_diffusers(prediction, end_at_one):
    schedule = Schedule(NoiseConfig(prediction=prediction))
    flow = prediction == "flow"
    if flow:
        if not end_at_one:
            pytest.skip("the straight path always ends without noise")
        oracle = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    else:
        last = "zero" if end_at_one else "sigma_min"
        oracle = diffusers_scheduler(DPMSolverMultistepScheduler, schedule, final_sigmas_type=last)
    times = dpm_times(schedule, 20)[::-1]
    oracle.set_timesteps(20)
    oracle.timesteps = torch.tensor(times)
    over_signal = 1 if flow else schedule.signal[times]  # diffusers' sigma is sigma / signal off the straight path
    end = 0.0 if end_at_one else float(schedule.sigma[0] / schedule.signal[0])
    oracle.sigmas = torch.cat([schedule.sigma[times] / over_signal, torch.tensor([end], dtype=torch.float64)])
    start = random(2, 3, 4, 4)
    expected = start
    for t in oracle.timesteps:
        expected = oracle.step(network(expected, t.expand(2)), t, expected).prev_sample
    found = dpm(schedule, network, start, 20, 1.0 if end_at_one else abar(schedule)[0].item())
    # theirs is float32, which an image prediction's division by sigma magnifies
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max().clamp(min=1)


def fine(prediction):
    """A schedule of 20,000 times, so that whole times are as good as any and the first has almost no noise."""
    return Schedule(NoiseConfig(num_steps=20_000, beta_start=7.5e-5, beta_end=7.75e-4, prediction=prediction))


@pytest.mark.parametrize("prediction", ALL)
def test_dpm_is_of_second_order(prediction):
    """Twice the steps, a quarter of the error; the last step, which is DDIM's, is the same for both and left out."""
    mean, spread = 0.7, 0.8
    schedule = fine(prediction)
    predict, noise = gaussian_optimum(schedule, mean, spread), random(4, 2, 3, 3)
    errors = {}
    for steps in (40, 80, 160):
        times = dpm_times(schedule, steps)
        latest, first = times[-1], times[0]
        away = (noise - schedule.signal[latest] * mean) / deviation(schedule, latest, spread)
        there = schedule.signal[first] * mean + away * deviation(schedule, first, spread)
        clean = schedule.to_latent(predict(there, torch.full((4,), first)), there, torch.full((4,), first))
        errors[steps] = (dpm(schedule, predict, noise, steps) - clean).abs().max().item()
    assert 3.4 < errors[40] / errors[80] < 5
    assert 3.4 < errors[80] / errors[160] < 5


def deviation(schedule, t, spread):
    """Standard deviation of noisy latents at time t, of latents with that spread."""
    return (schedule.signal[t] ** 2 * spread**2 + schedule.sigma[t] ** 2).sqrt()


@pytest.mark.parametrize("prediction", ALL)
@pytest.mark.parametrize("solver", ["ddim", "dpm"])
@pytest.mark.parametrize("end_at_one", [True, False])
def test_inversion_leads_back_to_the_latents(prediction, solver, end_at_one):
    """Exactly for DDIM's own steps; as nearly as the solvers agree for the other's."""
    schedule = Schedule(NoiseConfig(prediction=prediction))
    end = 1.0 if end_at_one else abar(schedule)[0].item()
    predict = gaussian_optimum(schedule, 0.7, 0.5)
    latents = 0.7 + 0.5 * random(4, 2, 3, 3)
    noise = invert(schedule, predict, latents, 50, end, solver, num_passes=40)
    again = find_sampler(solver).solve(schedule, predict, noise, 50, end)
    torch.testing.assert_close(again, latents, rtol=0, atol=1e-9 if solver == "ddim" else 2e-2)


def test_inversion_finds_the_noise_of_the_flow():
    """The Gaussian flow keeps the number of standard deviations from the mean, backwards too."""
    schedule = Schedule(NoiseConfig(prediction="v"))
    latents = 0.7 + 0.5 * random(4, 2, 3, 3)
    found = invert(schedule, gaussian_optimum(schedule, 0.7, 0.5), latents, 500, num_passes=20)
    expected = schedule.signal[-2] * 0.7 + (latents - 0.7) / 0.5 * deviation(schedule, 999, 0.5)
    assert (found - expected).abs().max() < 0.05
    assert (latents - expected).abs().max() > 1


def test_an_unknown_solver_is_refused():
    with pytest.raises(UserError, match="solver is 'euler': choose from ddim, dpm"):
        find_sampler("euler")
