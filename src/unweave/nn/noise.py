"""Noise schedule, what the network predicts, and DDIM (method sections 1.2 and 7).

B batch, C H W of the latents. noisy = sqrt(abar_t) latent + sqrt(1 - abar_t) noise, with abar_t the product of
1 - beta_s over s <= t (Ho et al. 2020) and t counted from 0. Everything about the schedule is float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unweave.config import NoiseConfig, require


class Schedule:
    """A variance-preserving schedule whose sqrt(beta) is linear in t. Holds no weights and lives on no device.

    `abar` (num_steps,) float64. Times t are integer tensors (B,) from 0 to num_steps - 1.
    """

    def __init__(self, config: NoiseConfig) -> None:
        self.prediction = config.prediction
        ends = config.beta_start**0.5, config.beta_end**0.5
        betas = torch.linspace(*ends, config.num_steps, dtype=torch.float64) ** 2
        self.abar = torch.cumprod(1 - betas, dim=0)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Latents and noise (B, C, H, W) -> noisy latents at time t."""
        signal, sigma = self._scales(t, latents)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should predict: the noise, or v = sqrt(abar) noise - sqrt(1 - abar) latent
        (Salimans and Ho 2022)."""
        if self.prediction == "noise":
            return noise
        signal, sigma = self._scales(t, latents)
        return signal * noise - sigma * latents

    def to_latent(self, prediction: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The clean latents (B, C, H, W) that a prediction amounts to."""
        signal, sigma = self._scales(t, noisy)
        if self.prediction == "noise":
            return (noisy - sigma * prediction) / signal
        return signal * noisy - sigma * prediction

    def to_noise(self, prediction: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The noise (B, C, H, W) that a prediction amounts to."""
        if self.prediction == "noise":
            return prediction
        signal, sigma = self._scales(t, noisy)
        return sigma * noisy + signal * prediction

    @torch.no_grad()
    def ddim(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        num_steps: int,
        end: float,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """DDIM from `noise` (B, C, H, W) at the largest of `num_steps` times to latents (Song et al. 2021, eq. 12).

        `predict(noisy, t)` is the network. `end` is abar after the last step: 1.0 leaves no noise; abar_0, as the
        published sampler has it, leaves some, which its decoder's codebook absorbs. `eta` above 0 adds fresh noise,
        drawn from `generator`. Raises `UserError` when `num_steps` does not divide the schedule.
        """
        assert eta == 0 or generator is not None
        times = self.ddim_times(num_steps)
        levels = [end, *self.abar[times[:-1]].tolist()]
        x = noise
        for t, abar_next in zip(reversed(times), reversed(levels), strict=True):
            batch_t = torch.full((len(x),), t, device=x.device)
            prediction = predict(x, batch_t)
            latent, direction = self.to_latent(prediction, x, batch_t), self.to_noise(prediction, x, batch_t)
            sigma = eta * self._fresh_noise_scale(t, abar_next)
            x = abar_next**0.5 * latent + max(1 - abar_next - sigma**2, 0.0) ** 0.5 * direction
            if generator is not None and eta > 0:
                fresh = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
                x = x + sigma * fresh.to(x.device)
        return x

    def ddim_times(self, num_steps: int) -> list[int]:
        """The times of a `num_steps` DDIM, ascending: 1, 11, ..., 991 for 100 steps of 1,000.

        They start at 1, not 0: the numbering of the published sampler.
        """
        total = len(self.abar)
        require(
            0 < num_steps < total and total % num_steps == 0,
            f"{num_steps} sampling steps: choose a divisor of the schedule's {total} that is smaller than it",
        )
        return list(range(1, total + 1, total // num_steps))

    def _fresh_noise_scale(self, t: int, abar_next: float) -> float:
        """Standard deviation of the noise that makes the step a DDPM step (Song et al. 2021, eq. 16)."""
        abar = self.abar[t].item()
        return ((1 - abar_next) / (1 - abar) * (1 - abar / abar_next)) ** 0.5

    def _scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar_t) and sqrt(1 - abar_t), (B, 1, 1, 1) each, rounded once to the dtype of `like`.

        Rounded before they move, because not every device has float64.
        """
        tables = torch.stack([self.abar.sqrt(), (1 - self.abar).sqrt()]).to(like.dtype).to(like.device)
        signal, sigma = tables[:, t, None, None, None]
        return signal, sigma
