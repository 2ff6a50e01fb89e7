"""Samplers along the probability flow, from noise to latents and back: DDIM (Song et al. 2021), DPM-Solver++ (Lu et al.
2022).

B batch, C H W of the latents. A network's prediction at a time gives a latent and a noise; a step combines them at the
next level, x = signal' latent + sigma' noise. That is DDIM, and on the straight path of `flow` Euler's method.
DPM-Solver++ takes the same step with the latent extrapolated to half the way.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from unweave.errors import require
from unweave.nn.noise import Schedule

Predict = Callable[[Tensor, Tensor], Tensor]
"""A network: noisy latents (B, C, H, W) and times (B,) -> its prediction (B, C, H, W)."""

NUM_PASSES = 5  # per inverted step; each reduces its error by a factor of two to four


class Level(NamedTuple):
    """The coefficients of latent and noise in a noisy latent."""

    signal: float
    sigma: float

    @property
    def log_snr(self) -> float:
        """lambda of Lu et al. 2022; infinite without noise."""
        return math.log(self.signal / self.sigma) if self.sigma else math.inf


class Step(NamedTuple):
    """A step from `level`, at which the network is evaluated with `time`, to `next_level`."""

    time: int
    level: Level
    next_level: Level


@torch.no_grad()
def ddim(
    schedule: Schedule,
    predict: Predict,
    noise: Tensor,
    num_steps: int,
    end: float = 1.0,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """DDIM from `noise` (B, C, H, W) at the largest of `num_steps` times to latents (Song et al. 2021, eq. 12).

    `end` is signal^2 after the last step: 1.0 leaves no noise; abar_0, as in the published sampler, leaves some, which
    the codebook of its decoder absorbs (`flow` always ends at 1). `eta` above 0 adds fresh noise from `generator`.
    Raises `UserError` if `num_steps` does not divide the schedule, and for `eta` with `flow`.
    """
    assert eta == 0 or generator is not None
    require(
        eta == 0 or schedule.config.prediction != "flow",
        "eta adds the noise of a variance-preserving path: use 0 with prediction `flow`",
    )
    x = noise
    for t, level, next_level in _steps(schedule, ddim_times(schedule, num_steps), end):
        latent, direction = _parts(schedule, predict, x, t)
        fresh_scale = eta * _fresh_noise_scale(level, next_level) if eta else 0.0
        x = next_level.signal * latent + max(next_level.sigma**2 - fresh_scale**2, 0.0) ** 0.5 * direction
        if generator is not None and eta > 0:
            fresh = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
            x = x + fresh_scale * fresh.to(x.device)
    return x


@torch.no_grad()
def dpm(schedule: Schedule, predict: Predict, noise: Tensor, num_steps: int, end: float = 1.0) -> Tensor:
    """DPM-Solver++(2M) from `noise` (B, C, H, W) to latents (Lu et al. 2022, algorithm 2), of second order.

    A step uses the latent half a step ahead in lambda = log(signal / sigma), extrapolated from the last two
    predictions. The first step, which has no earlier prediction, and a step that leaves no noise, which is infinitely
    long, are DDIM's. Arguments as for `ddim`. Raises `UserError` if the schedule has fewer steps.
    """
    x, before, length_before = noise, None, math.inf
    for t, level, next_level in _steps(schedule, dpm_times(schedule, num_steps), end):
        latent, _ = _parts(schedule, predict, x, t)
        length = next_level.log_snr - level.log_snr
        ahead = latent
        if before is not None and length < math.inf:
            ahead = latent + length / (2 * length_before) * (latent - before)
        x = next_level.signal * ahead + next_level.sigma / level.sigma * (x - level.signal * ahead)
        before, length_before = latent, length
    return x


def ddim_times(schedule: Schedule, num_steps: int) -> list[int]:
    """The times of `num_steps` steps, ascending and evenly spaced: 1, 11, ..., 991 for 100 steps of 1,000.

    They start at 1, not 0, as in the published sampler. Those of `flow` end at the last time, which is pure noise: 9,
    19, ..., 999. Raises `UserError` as `ddim` does.
    """
    total = schedule.num_steps
    require(
        0 < num_steps < total and total % num_steps == 0,
        f"{num_steps} sampling steps: choose a divisor of the schedule's {total} that is smaller than it",
    )
    stride = total // num_steps
    first = stride - 1 if schedule.config.prediction == "flow" else 1
    return list(range(first, total + 1, stride))[:num_steps]


def dpm_times(schedule: Schedule, num_steps: int) -> list[int]:
    """The times of `num_steps` steps, ascending: the whole times nearest to even steps of lambda = log(signal / sigma).

    From 1, as for DDIM, or 0 for `flow`, to the last time that has any signal. Whole times near the first are far apart
    in lambda, so several of many steps may have the same nearest time; it is taken once. Raises `UserError` as `dpm`.
    """
    total = schedule.num_steps
    require(0 < num_steps < total, f"{num_steps} sampling steps: choose from 1 to {total - 1}")
    first = 0 if schedule.config.prediction == "flow" else 1
    log_snr = (schedule.signal / schedule.sigma).log()[schedule.signal > 0]
    wanted = torch.linspace(log_snr[-1], log_snr[first], num_steps, dtype=log_snr.dtype)
    nearest = (log_snr - wanted.unsqueeze(1)).abs().argmin(1)
    return nearest.unique(sorted=True).tolist()


def _steps(schedule: Schedule, times: list[int], end: float) -> list[Step]:
    """The steps along `times` (ascending), noisiest first; the last leads to signal^2 = `end`."""
    last = Level(1.0, 0.0) if schedule.config.prediction == "flow" else Level(end**0.5, (1 - end) ** 0.5)
    levels = [last, *(Level(schedule.signal[t].item(), schedule.sigma[t].item()) for t in times)]
    return [Step(*step) for step in zip(times, levels[1:], levels[:-1])][::-1]


def _parts(schedule: Schedule, predict: Predict, x: Tensor, time: int) -> tuple[Tensor, Tensor]:
    """The network's latent and noise for x (B, C, H, W)."""
    t = torch.full((len(x),), time, device=x.device)
    prediction = predict(x, t)
    return schedule.to_latent(prediction, x, t), schedule.to_noise(prediction, x, t)


def _fresh_noise_scale(level: Level, next_level: Level) -> float:
    """Standard deviation of the noise that makes the step a DDPM step (Song et al. 2021, eq. 16)."""
    return next_level.sigma / level.sigma * (1 - (level.signal / next_level.signal) ** 2) ** 0.5


class Sampler(NamedTuple):
    """A solver, the times at which it evaluates the network, and its order of convergence."""

    solve: Callable[[Schedule, Predict, Tensor, int, float], Tensor]
    times: Callable[[Schedule, int], list[int]]
    order: int


SAMPLERS = {"ddim": Sampler(ddim, ddim_times, 1), "dpm": Sampler(dpm, dpm_times, 2)}


def find_sampler(solver: str) -> Sampler:
    """A sampler by name. Raises `UserError` for an unknown one."""
    require(solver in SAMPLERS, f"solver is {solver!r}: choose from {', '.join(SAMPLERS)}")
    return SAMPLERS[solver]


@torch.no_grad()
def invert(
    schedule: Schedule,
    predict: Predict,
    latents: Tensor,
    num_steps: int,
    end: float = 1.0,
    solver: str = "ddim",
    num_passes: int = NUM_PASSES,
) -> Tensor:
    """The noise (B, C, H, W) from which a solver's `num_steps` steps lead to `latents`.

    A step back needs the network's prediction at its end, which is not known yet. It is found by fixed-point iteration:
    each of `num_passes` evaluates the network at the result of the pass before, the first at the start of the step. One
    pass of `ddim` is the inversion of Song et al. (2021), many are its exact inverse; that of `dpm` has an error of
    second order. Details that the network never generates, such as film grain, are recovered in part only. Raises
    `UserError` as the solver does.
    """
    sampler, x, before = find_sampler(solver), latents, None
    for t, level, next_level in reversed(_steps(schedule, sampler.times(schedule, num_steps), end)):
        power = level.signal**2 + level.sigma**2
        guess = latent = x
        for _ in range(num_passes):
            latent, _ = _parts(schedule, predict, guess, t)
            # the latent at half the step; for a step to no noise, which is infinitely long, that at its start
            half = latent if before is None else (latent + before) / 2
            noise = (guess - level.signal * half) / level.sigma
            # x from the guess and its velocity: on no path can a coefficient of the guess be 0
            velocity = (level.signal * noise - level.sigma * half) / power
            turned = x + (next_level.signal * level.sigma - next_level.sigma * level.signal) * velocity
            guess = power * turned / (next_level.signal * level.signal + next_level.sigma * level.sigma)
        x = guess
        before = latent if sampler.order == 2 else None
    return x
