"""One table of presets: a row is a whole run, every value of it visible. The command line overrides a row."""

from typing import NamedTuple

from unweave.config import (
    AnchorConfig,
    DataConfig,
    EncoderConfig,
    ModelConfig,
    NoiseConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
    UNetConfig,
)


class Preset(NamedTuple):
    """A run and what it is for."""

    about: str
    config: RunConfig


def _cpu(num_units: int, width: int, skip_dropout: float, anchors: AnchorConfig) -> ModelConfig:
    """A model of 32 px images whose step takes tens of milliseconds on two cores.

    Latents are 4 x 4, where most of a step would be the overhead of small operators, so it has two levels and
    cross-attention only. It predicts v, since noise prediction starves the units of gradient at this scale; and the
    squared loss and tokens without a final ReLU bring the units apart in a fraction of the steps.
    """
    return ModelConfig(
        image_size=32,
        loss="l2",
        tokenizer=TokenizerConfig(kind="patch", channels=20, downsample=8),
        encoder=EncoderConfig(
            num_units=num_units,
            token_dim=width,
            channels=(width, 2 * width, 2 * width),
            stem_kernel=4,
            stem_stride=2,
            hidden=(128,),
            unit_hidden=(64,),
            token_activation="none",
        ),
        unet=UNetConfig(
            channels=width,
            multipliers=(1, 2),
            num_res_blocks=1,
            attention_widths=(4, 2),
            num_heads=4,
            self_attention=False,
            dropout=0.0,
            skip_dropout=skip_dropout,
            skip_dropout_widths=(4,),
        ),
        noise=NoiseConfig(prediction="v"),
        anchors=anchors,
    )


CPU_ANCHORS = AnchorConfig(fit_every_images=48_000, max_points=20_000)

CPU_TRAIN = TrainConfig(
    images=192_000,
    batch_size=64,
    lr=2e-3,
    warmup_images=6_400,
    clip=1.0,
    ema_decay=0.999,
    ema_encoder=True,
    log_every_images=6_400,
    save_every_images=64_000,
    accelerator="cpu",
)

PUBLISHED = ModelConfig()

PRESETS: dict[str, Preset] = {
    "rooms-cpu": Preset(
        "rooms with four free factors (wall hue, object hue, scale, shape) at 32 px; minutes on two cores",
        RunConfig(
            data=DataConfig("rooms", frozen=("floor_hue=0", "orientation=7"), held_out=0.1),
            model=_cpu(num_units=10, width=32, skip_dropout=0.0, anchors=CPU_ANCHORS),
            train=CPU_TRAIN,
        ),
    ),
    "tiny": Preset(
        "rooms with two free factors and a very small model: seconds, for a first look and for tests",
        RunConfig(
            data=DataConfig("rooms", frozen=("floor_hue=0", "wall_hue=5", "scale=4", "orientation=7"), held_out=0.1),
            model=_cpu(
                num_units=3,
                width=8,
                skip_dropout=0.2,
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
    "dyga-rooms": Preset(
        "the published networks on rooms at 64 px, principled anchors; needs --model.tokenizer.folder and a GPU",
        RunConfig(data=DataConfig("rooms"), model=PUBLISHED, train=TrainConfig()),
    ),
    "encdiff-rooms": Preset(
        "as dyga-rooms without anchors, skip dropout and U-Net dropout: EncDiff as Jun et al. set it beside theirs",
        RunConfig(
            data=DataConfig("rooms"),
            model=ModelConfig(unet=UNetConfig(dropout=0.0, skip_dropout=0.0), anchors=AnchorConfig(mode="off")),
            train=TrainConfig(),
        ),
    ),
}
