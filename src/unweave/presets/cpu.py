"""Presets for a CPU, on generated images: training takes minutes. docs/minutes.md measures each choice."""

from dataclasses import replace

from unweave.config import (
    AnchorConfig,
    DataConfig,
    DiffusionConfig,
    EncoderConfig,
    NoiseConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
    TransformerConfig,
    UNetConfig,
)
from unweave.presets.base import Preset

CPU_ANCHORS = AnchorConfig(fit_every_images=96_000, max_points=20_000)
ROOMS = DataConfig("rooms", fixed=("floor_hue=0", "orientation=7"), held_out=0.1)


def cpu_model(num_units: int, channels: int, beta: float = 0.0) -> DiffusionConfig:
    """A model whose step takes some tens of milliseconds on one core. docs/minutes.md measures each choice.

    Each 8 px patch is a position of the latent. At each position the denoiser sees that position and the units, no
    other position. It predicts v, because noise prediction gives the units too little gradient at this scale. Whitening
    raises the weight of small details. `beta` helps where units would otherwise mix factors, such as the two
    coordinates of a position.
    """
    return DiffusionConfig(
        image_size=32,
        loss="l2",
        denoiser="transformer",
        tokenizer=TokenizerConfig(kind="patch", channels=channels, downsample=8, whitening=0.5),
        encoder=EncoderConfig(
            num_units=num_units,
            token_dim=32,
            channels=(32, 64, 64),
            stem_kernel=4,
            stem_stride=2,
            hidden=(128,),
            unit_hidden=(64,),
            token_activation="none",
            beta=beta,
        ),
        transformer=TransformerConfig(width=64, depth=3, num_heads=4),
        noise=NoiseConfig(prediction="v"),
        anchors=CPU_ANCHORS,
    )


CPU_TRAIN = TrainConfig(
    images=700_000,
    batch_size=64,
    lr=2e-3,
    warmup_images=6_400,
    cooldown=1.0,
    clip=1.0,
    ema_decay=0.999,
    ema_encoder=True,
    log_every_images=8_000,
    save_every_images=100_000,
    threads=1,
    accelerator="cpu",
)

CPU: dict[str, Preset[RunConfig]] = {
    "rooms-cpu": Preset(
        "rooms with four free factors (wall hue, object hue, scale, shape) at 32 px; takes minutes on two cores",
        RunConfig(
            data=ROOMS,
            model=cpu_model(num_units=10, channels=20),
            train=CPU_TRAIN,
        ),
    ),
    "rooms-cpu-long": Preset(
        "rooms with all six factors at 32 px; takes longer, on two cores",
        RunConfig(
            data=DataConfig("rooms"),
            model=cpu_model(num_units=30, channels=20),
            train=replace(CPU_TRAIN, images=800_000),
        ),
    ),
    "sprites-cpu": Preset(
        "dsprites with all five factors at 32 px; takes longer, on two cores",
        RunConfig(
            data=DataConfig("dsprites", cache_gb=2.5),
            model=cpu_model(num_units=10, channels=40, beta=2.0),
            train=replace(CPU_TRAIN, images=1_000_000, restarts=3, restart_images=240_000),
        ),
    ),
    "tiny": Preset(
        "rooms with two free factors and a very small model; takes seconds, for a first try and for tests",
        RunConfig(
            data=DataConfig("rooms", fixed=("floor_hue=0", "wall_hue=5", "scale=4", "orientation=7"), held_out=0.1),
            model=DiffusionConfig(
                image_size=32,
                loss="l2",
                tokenizer=TokenizerConfig(kind="patch", channels=20, downsample=8),
                encoder=EncoderConfig(
                    num_units=3,
                    token_dim=8,
                    channels=(8, 16, 16),
                    stem_kernel=4,
                    stem_stride=2,
                    hidden=(128,),
                    unit_hidden=(64,),
                ),
                unet=UNetConfig(
                    channels=8,
                    multipliers=(1, 2),
                    num_res_blocks=1,
                    attention_widths=(4, 2),
                    num_heads=4,
                    self_attention=False,
                    dropout=0.0,
                    skip_dropout=0.2,
                    skip_dropout_widths=(4,),
                ),
                noise=NoiseConfig(prediction="v"),
                anchors=AnchorConfig(fit_every_images=640, max_points=1_000),
            ),
            train=TrainConfig(
                images=6_400,
                batch_size=16,
                lr=2e-3,
                ema_decay=0.99,
                ema_encoder=True,
                log_every_images=640,
                save_every_images=1_600,
                accelerator="cpu",
            ),
        ),
    ),
}
