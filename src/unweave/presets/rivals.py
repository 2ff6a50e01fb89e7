"""Presets of other methods, with the images, the extractor and the training of the CPU preset they compare with."""

from dataclasses import fields, replace
from typing import Literal

from unweave.config import ExtractorConfig, RunConfig, VAEConfig
from unweave.presets.base import Preset
from unweave.presets.cpu import CPU_TRAIN, ROOMS, cpu_model

Penalty = Literal["beta_vae", "beta_tcvae", "factor_vae", "dip_vae"]


def rooms_extractor() -> ExtractorConfig:
    """The extractor of `rooms-cpu`."""
    units = cpu_model(num_units=10, channels=20).encoder
    return ExtractorConfig(**{field.name: getattr(units, field.name) for field in fields(ExtractorConfig)})


def _vae(title: str, penalty: Penalty, weight: float) -> Preset[RunConfig]:
    """A VAE without weight decay, as published."""
    model = VAEConfig(
        image_size=32,
        penalty=penalty,
        weight=weight,
        encoder=rooms_extractor(),
        decoder_channels=(64, 64, 32),
        discriminator_widths=(256,) * 4,
        discriminator_lr_ratio=0.1,
    )
    about = f"{title} on the data of rooms-cpu, with its extractor and as many images"
    return Preset(about, RunConfig(ROOMS, model, replace(CPU_TRAIN, weight_decay=0.0)))


RIVALS: dict[str, Preset[RunConfig]] = {
    "beta-vae-rooms-cpu": _vae("beta-VAE (Higgins et al. 2017), beta 4,", "beta_vae", 4.0),
    "beta-tcvae-rooms-cpu": _vae("beta-TCVAE (Chen et al. 2018), beta 6,", "beta_tcvae", 6.0),
    "factor-vae-rooms-cpu": _vae("FactorVAE (Kim and Mnih 2018), gamma 10,", "factor_vae", 10.0),
}
