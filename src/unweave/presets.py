"""One table of presets: a row is a whole run, every value of it visible. The command line overrides a row."""

import math
from dataclasses import fields, replace
from typing import Generic, Literal, NamedTuple, TypeVar

from unweave.config import (
    AnchorConfig,
    CriticConfig,
    DataConfig,
    DiffusionConfig,
    EncoderConfig,
    ExtractorConfig,
    NoiseConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
    TransformerConfig,
    UNetConfig,
    VAEConfig,
    VQConfig,
    VQGANConfig,
    VQRunConfig,
    VQTrainConfig,
)

C = TypeVar("C", RunConfig, VQRunConfig)


class Preset(NamedTuple, Generic[C]):
    """A run and what it is for."""

    about: str
    config: C


CPU_ANCHORS = AnchorConfig(fit_every_images=96_000, max_points=20_000)


def _cpu(num_units: int, channels: int, beta: float = 0.0) -> DiffusionConfig:
    """A model whose step takes some tens of milliseconds on one core. docs/minutes.md measures each choice.

    Each 8 px patch is a position of the latent. The denoiser sees a position and the units, no other position, and
    predicts v: noise prediction starves the units of gradient at this scale. Whitening lets small things count. `beta`
    is for data whose factors the units would otherwise share out among themselves, as the two of a position.
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


ROOMS = DataConfig("rooms", fixed=("floor_hue=0", "orientation=7"), held_out=0.1)

Penalty = Literal["beta_vae", "beta_tcvae", "factor_vae", "dip_vae"]

RIVALS: tuple[tuple[str, str, Penalty, float], ...] = (
    ("beta-vae", "beta-VAE (Higgins et al. 2017), beta 4", "beta_vae", 4.0),
    ("beta-tcvae", "beta-TCVAE (Chen et al. 2018), beta 6", "beta_tcvae", 6.0),
    ("factor-vae", "FactorVAE (Kim and Mnih 2018), gamma 10", "factor_vae", 10.0),
)


def _vae(penalty: Penalty, weight: float) -> VAEConfig:
    """A VAE with the extractor of `rooms-cpu`."""
    units = _cpu(num_units=10, channels=20).encoder
    shared = {field.name: getattr(units, field.name) for field in fields(ExtractorConfig)}
    return VAEConfig(
        image_size=32,
        penalty=penalty,
        weight=weight,
        encoder=ExtractorConfig(**shared),
        decoder_channels=(64, 64, 32),
        discriminator_widths=(256,) * 4,
        discriminator_lr_ratio=0.1,
    )


PUBLISHED = DiffusionConfig()

ENCDIFF = DiffusionConfig(
    encoder=EncoderConfig(
        token_dim=16,
        channels=(128, 128, 128, 128),
        stem_kernel=4,
        stem_stride=2,
        trunk="residual",
        hidden=(),
        unit_hidden=(64, 128),
        unit_activation="elu",
        token_activation="none",
    ),
    unet=UNetConfig(dropout=0.0, skip_dropout=0.0),
    anchors=AnchorConfig(mode="off"),
)


class Schedule(NamedTuple):
    """How long the published runs trained on a set, and how often and on how many images they fitted anchors."""

    place: str
    """Where `unweave data get` puts the set."""
    images: int
    """In the set: all are trained on."""
    epochs: int
    epochs_per_fit: int
    fit_points: int
    """All images of a set up to 100,000, a tenth of a larger one."""
    batch_size: int = 512
    crop: Literal["center", "celeba_128"] = "center"

    @property
    def data(self) -> DataConfig:
        most_gb = math.ceil(self.images * 64 * 64 * 3 / 1e8) / 10
        return DataConfig(folder=f"data/{self.place}", crop=self.crop, held_out=0.0, cache_gb=max(2.0, most_gb))


SCHEDULES = {
    "shapes3d": Schedule("shapes3d/3dshapes.h5", 480_000, 100, 1, 48_000),
    "mpi3d": Schedule("mpi3d_toy/mpi3d_toy.npz", 1_036_800, 50, 1, 103_680),
    "cars3d": Schedule("cars3d/nips2015-analogy-data.tar.gz", 17_568, 3_000, 5, 17_568),
    "celeba": Schedule("celeba/img_align_celeba.zip", 202_599, 300, 5, 20_259, 64, "celeba_128"),
}


def _published(row: Schedule, model: DiffusionConfig, anchors: AnchorConfig, train: TrainConfig) -> RunConfig:
    """A run on a published set for as many images as DyGA's."""
    anchors = replace(anchors, fit_every_images=row.epochs_per_fit * row.images)
    return RunConfig(row.data, replace(model, anchors=anchors), replace(train, images=row.epochs * row.images))


def _dyga(row: Schedule, anchors: AnchorConfig) -> RunConfig:
    return _published(row, PUBLISHED, anchors, TrainConfig(batch_size=row.batch_size))


def _encdiff(row: Schedule) -> RunConfig:
    """The learning rate is its base of 2e-6 times the batch, reached in 10,000 steps."""
    return _published(row, ENCDIFF, ENCDIFF.anchors, TrainConfig(batch_size=128, lr=2.56e-4, warmup_images=1_280_000))


def _on_published_sets() -> dict[str, Preset[RunConfig]]:
    rows: dict[str, Preset[RunConfig]] = {}
    for name, row in SCHEDULES.items():
        needs = f"needs a GPU, {row.data.folder} and a run of vq-{name}: --model.tokenizer.folder RUN/model"
        published = AnchorConfig(mode="published", max_points=row.fit_points)
        rows |= {
            f"dyga-{name}": Preset(
                f"DyGA's networks as its code has them, the schedule of its first commit, as its configs leave theirs "
                f"out, corrected anchors; {needs}",
                _dyga(row, AnchorConfig()),
            ),
            f"dyga-{name}-published": Preset(f"as dyga-{name}, with the anchors as published", _dyga(row, published)),
            f"encdiff-{name}": Preset(
                f"EncDiff's own encoder and optimiser; as many images as dyga-{name}, as none are published",
                _encdiff(row),
            ),
        }
    return rows


PRESETS: dict[str, Preset[RunConfig]] = {
    "rooms-cpu": Preset(
        "rooms with four free factors (wall hue, object hue, scale, shape) at 32 px; minutes on two cores",
        RunConfig(
            data=ROOMS,
            model=_cpu(num_units=10, channels=20),
            train=CPU_TRAIN,
        ),
    ),
    **{
        f"{name}-rooms-cpu": Preset(
            f"{title} on the images of rooms-cpu, with its extractor and its number of images",
            RunConfig(data=ROOMS, model=_vae(penalty, weight), train=replace(CPU_TRAIN, weight_decay=0.0)),
        )
        for name, title, penalty, weight in RIVALS
    },
    "rooms-cpu-long": Preset(
        "rooms with all six factors at 32 px; a longer sitting on two cores",
        RunConfig(
            data=DataConfig("rooms"),
            model=_cpu(num_units=30, channels=20),
            train=replace(CPU_TRAIN, images=800_000),
        ),
    ),
    "sprites-cpu": Preset(
        "dsprites with all five factors at 32 px; a longer sitting on two cores",
        RunConfig(
            data=DataConfig("dsprites", cache_gb=2.5),
            model=_cpu(num_units=10, channels=40, beta=2.0),
            train=replace(CPU_TRAIN, images=1_000_000, restarts=3, restart_images=240_000),
        ),
    ),
    "tiny": Preset(
        "rooms with two free factors and a very small model: seconds, for a first look and for tests",
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
    "dyga-rooms": Preset(
        "the published networks on rooms at 64 px, corrected anchors; needs a GPU and a run of vq-rooms: "
        "--model.tokenizer.folder RUN/model",
        RunConfig(data=DataConfig("rooms"), model=PUBLISHED, train=TrainConfig()),
    ),
    "encdiff-rooms": Preset(
        "as dyga-rooms without anchors, skip dropout and U-Net dropout: EncDiff as Jun et al. set it beside theirs",
        RunConfig(
            data=DataConfig("rooms"),
            model=DiffusionConfig(unet=UNetConfig(dropout=0.0, skip_dropout=0.0), anchors=AnchorConfig(mode="off")),
            train=TrainConfig(),
        ),
    ),
    **_on_published_sets(),
}

VQ_EPOCHS = 101
PUBLISHED_VQ = VQGANConfig(beta_on="codes")

FIRST_STAGES: dict[str, Preset[VQRunConfig]] = {
    "vq-rooms-cpu": Preset(
        "a small VQ first stage for rooms at 64 px, 512 codes; half an hour on two cores",
        VQRunConfig(
            data=DataConfig("rooms"),
            model=VQGANConfig(
                vq=VQConfig(channels=(8, 16, 32), num_res_blocks=1, codebook_size=512, norm_groups=4),
                revive_after=30,
                critic=CriticConfig(weight=0.1, channels=16, start=0.5),
            ),
            train=VQTrainConfig(
                images=120_000,
                batch_size=16,
                accumulate=1,
                lr=4e-4,
                cooldown=1.0,
                log_every_images=8_000,
                save_every_images=16_000,
                accelerator="cpu",
            ),
        ),
    ),
    "vq-rooms": Preset(
        "the published VQ first stage on rooms at 64 px, 2,048 codes; needs a GPU, and VGG16's weights as files",
        VQRunConfig(data=DataConfig("rooms"), model=PUBLISHED_VQ, train=VQTrainConfig()),
    ),
    **{
        f"vq-{name}": Preset(
            f"as vq-rooms, on {row.data.folder}",
            VQRunConfig(row.data, PUBLISHED_VQ, VQTrainConfig(images=VQ_EPOCHS * row.images)),
        )
        for name, row in SCHEDULES.items()
    },
}
