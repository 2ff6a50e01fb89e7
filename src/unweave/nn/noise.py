"""Noise schedule, prediction targets and loss weights of the diffusion model.

B batch, C H W of the latents. noisy = signal_t latent + sigma_t noise, with t counted from 0. On the
variance-preserving path signal^2 = abar_t, the product of 1 - beta_s over s <= t (Ho et al. 2020), and sigma^2 =
1 - abar_t; on the straight path of `flow` signal = 1 - sigma. Everything about the schedule is float64.
"""

import torch
from torch import Tensor

from unweave.config import NoiseConfig


class Schedule:
    """Noise levels and prediction targets. Has no weights and no device.

    `signal`, `sigma` (num_steps,) float64. Times t are integer tensors (B,) from 0 to num_steps - 1. Every target is a
    mixture a noise + b latent, `a`, `b` (num_steps,) float64.
    """

    def __init__(self, config: NoiseConfig) -> None:
        self.config = config
        self.num_steps = config.num_steps
        if config.prediction == "flow":
            self.sigma = torch.arange(1, config.num_steps + 1, dtype=torch.float64) / config.num_steps
            self.signal = 1 - self.sigma
        else:
            ends = config.beta_start**0.5, config.beta_end**0.5
            betas = torch.linspace(*ends, config.num_steps, dtype=torch.float64) ** 2
            abar = torch.cumprod(1 - betas, dim=0)
            self.signal, self.sigma = abar.sqrt(), (1 - abar).sqrt()
        one, zero = torch.ones_like(self.sigma), torch.zeros_like(self.sigma)
        self.a, self.b = {
            "noise": (one, zero),
            "v": (self.signal, -self.sigma),  # Salimans and Ho 2022
            "image": (zero, one),
            "flow": (one, -one),  # the velocity of the straight path (Liu et al. 2023)
        }[config.prediction]
        self.weight = self._weights()

    def draw_times(self, num: int, device: torch.device) -> Tensor:
        """Random training times (num,), from torch's global generator of that device.

        `uniform`; or `logit_normal` (Esser et al. 2024): t = floor(T sigmoid(n)), n normal with mean `times_mean` and
        standard deviation `times_std`.
        """
        if self.config.times == "uniform":
            return torch.randint(0, self.num_steps, (num,), device=device)
        normal = torch.randn(num, device=device) * self.config.times_std + self.config.times_mean
        return (normal.sigmoid() * self.num_steps).long().clamp(max=self.num_steps - 1)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Latents and noise (B, C, H, W) -> noisy latents at time t."""
        signal, sigma = self._at(t, latents, self.signal, self.sigma)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The prediction target (B, C, H, W): a noise + b latent."""
        a, b = self._at(t, latents, self.a, self.b)
        return a * noise + b * latents

    def to_latent(self, prediction: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The clean latents (B, C, H, W) that a prediction implies: two equations, two unknowns."""
        a, sigma, det = self._at(t, noisy, self.a, self.sigma, self._det)
        return (a * noisy - sigma * prediction) / det

    def to_noise(self, prediction: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The noise (B, C, H, W) that a prediction implies."""
        b, signal, det = self._at(t, noisy, self.b, self.signal, self._det)
        return (signal * prediction - b * noisy) / det

    @property
    def _det(self) -> Tensor:
        return self.signal * self.a - self.sigma * self.b

    def _weights(self) -> Tensor:
        """(num_steps,): weight of the squared error of the prediction at each time.

        `min_snr` (Hang et al. 2023) gives the squared error of the latent the weight min(SNR, gamma), for every target.
        An error of the latent is det / sigma times as large in the prediction.
        """
        if self.config.weighting == "none":
            return torch.ones_like(self.sigma)
        snr = (self.signal / self.sigma) ** 2
        return snr.clamp(max=self.config.snr_gamma) * (self.sigma / self._det) ** 2

    def loss_weight(self, t: Tensor, power: float) -> Tensor:
        """(B, 1, 1, 1) float32: the weight at each time of an error to the `power` 1 or 2."""
        return (self.weight ** (power / 2)).float().to(t.device)[t, None, None, None]

    def _at(self, t: Tensor, like: Tensor, *tables: Tensor) -> Tensor:
        """The values of the tables at times t, (tables, B, 1, 1, 1), on the device and in the dtype of `like`.

        They are rounded before they move, because not every device has float64.
        """
        return torch.stack(tables).to(like.dtype).to(like.device)[:, t, None, None, None]
