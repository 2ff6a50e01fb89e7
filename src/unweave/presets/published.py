"""Presets of the published networks and schedules, for a GPU."""

import math
from dataclasses import replace
from typing import Literal, NamedTuple

from unweave.config import (
    AnchorConfig,
    DataConfig,
    DiffusionConfig,
    EncoderConfig,
    RunConfig,
    TrainConfig,
    UNetConfig,
)
from unweave.presets.base import Preset

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


class PublishedRun(NamedTuple):
    """The published schedule for a data set: how long to train, how often and on how many images to fit anchors."""

    place: str
    """Where `unweave data get` puts the set."""
    images: int
    """Number of images in the set, all of them trained on."""
    epochs: int
    epochs_per_fit: int
    fit_points: int
    """All images of a set of up to 100,000, a tenth of a larger one."""
    batch_size: int = 512
    crop: Literal["center", "celeba_128"] = "center"

    @property
    def data(self) -> DataConfig:
        most_gb = math.ceil(self.images * 64 * 64 * 3 / 1e8) / 10
        return DataConfig(folder=f"data/{self.place}", crop=self.crop, held_out=0.0, cache_gb=max(2.0, most_gb))


SCHEDULES = {
    "shapes3d": PublishedRun("shapes3d/3dshapes.h5", 480_000, 100, 1, 48_000),
    "mpi3d": PublishedRun("mpi3d_toy/mpi3d_toy.npz", 1_036_800, 50, 1, 103_680),
    "cars3d": PublishedRun("cars3d/nips2015-analogy-data.tar.gz", 17_568, 3_000, 5, 17_568),
    "celeba": PublishedRun("celeba/img_align_celeba.zip", 202_599, 300, 5, 20_259, 64, "celeba_128"),
}


def _published(row: PublishedRun, model: DiffusionConfig, anchors: AnchorConfig, train: TrainConfig) -> RunConfig:
    """A run on a published set for the number of images of DyGA's schedule."""
    anchors = replace(anchors, fit_every_images=row.epochs_per_fit * row.images)
    return RunConfig(row.data, replace(model, anchors=anchors), replace(train, images=row.epochs * row.images))


def _dyga(row: PublishedRun, anchors: AnchorConfig) -> RunConfig:
    return _published(row, PUBLISHED, anchors, TrainConfig(batch_size=row.batch_size))


def _encdiff(row: PublishedRun) -> RunConfig:
    """The learning rate is the published base of 2e-6 times the batch size, with a warm-up of 10,000 steps."""
    return _published(row, ENCDIFF, ENCDIFF.anchors, TrainConfig(batch_size=128, lr=2.56e-4, warmup_images=1_280_000))


def _on_published_sets() -> dict[str, Preset[RunConfig]]:
    rows: dict[str, Preset[RunConfig]] = {}
    for name, row in SCHEDULES.items():
        needs = f"needs a GPU, {row.data.folder} and a run of vq-{name}: --model.tokenizer.folder RUN/model"
        published = AnchorConfig(mode="published", max_points=row.fit_points)
        rows |= {
            f"dyga-{name}": Preset(
                f"DyGA with the networks of its published code, the schedule of that code's first commit (its configs "
                f"have none) and corrected anchors; {needs}",
                _dyga(row, AnchorConfig()),
            ),
            f"dyga-{name}-published": Preset(f"as dyga-{name}, with the anchors as published", _dyga(row, published)),
            f"encdiff-{name}": Preset(
                f"EncDiff with its own encoder and optimiser, for as many images as dyga-{name}: its schedule is not "
                "published",
                _encdiff(row),
            ),
        }
    return rows


GPU: dict[str, Preset[RunConfig]] = {
    "dyga-rooms": Preset(
        "the published networks on rooms at 64 px, corrected anchors; needs a GPU and a run of vq-rooms: "
        "--model.tokenizer.folder RUN/model",
        RunConfig(data=DataConfig("rooms"), model=PUBLISHED, train=TrainConfig()),
    ),
    "encdiff-rooms": Preset(
        "as dyga-rooms without anchors, Skip Dropout and U-Net dropout: EncDiff as Jun et al. compare with it",
        RunConfig(
            data=DataConfig("rooms"),
            model=DiffusionConfig(unet=UNetConfig(dropout=0.0, skip_dropout=0.0), anchors=AnchorConfig(mode="off")),
            train=TrainConfig(),
        ),
    ),
    **_on_published_sets(),
}
