"""What is trained for each table: the published sets and schedules, or small models on generated images.

`full` are rows of the preset table. `small` does the same in minutes on two cores: images of 32 px, a small VQ first
stage, and the transformer of `rooms-cpu` in place of the U-Net, except in the ablation of Skip Dropout. `tiny` is for
tests and leaves the published anchors out.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from unweave.config import (
    AnchorConfig,
    CriticConfig,
    DataConfig,
    DiffusionConfig,
    EncoderConfig,
    RunConfig,
    Sampling,
    TokenizerConfig,
    TransformerConfig,
    UNetConfig,
    VQConfig,
    VQGANConfig,
    VQRunConfig,
    VQTrainConfig,
)
from unweave.presets import FIRST_STAGES, PRESETS
from unweave.presets.cpu import CPU_TRAIN
from unweave.reproduce.printed import ENCDIFF, OURS

Table = Literal["table1", "table2", "ablation", "downstream"]
ScaleName = Literal["full", "small", "tiny"]
Kind = Literal["components", "scalars"]
"""One number per unit: the first principal component of its token, or its scalar."""

ATTRIBUTES = "list_attr_celeba.txt"
FACES = "img_align_celeba.zip"


class Method(NamedTuple):
    """A row of a table."""

    title: str
    config: RunConfig
    """Without its seed and the folder of its first stage."""
    printed: str = ""
    """The paper's row to compare with."""
    official: Kind = "components"
    """The codes that the published code scores."""


@dataclass(frozen=True)
class Size:
    """The size of a reproduction: its data sets, and how often and on how many images models are scored."""

    name: ScaleName
    sets: dict[Table, tuple[str, ...]]
    """Data sets of each table."""
    defaults: dict[Table, int]
    """How many of those, from the first, are used by default."""
    snapshots: int
    """How often a model is scored in training, its end included."""
    saves_per_snapshot: int
    evaluation_seeds: int
    drawn: int
    """Number of images to generate for the distance to the data."""
    sampling: Sampling


GRIDS = "shapes3d", "cars3d", "mpi3d"
FULL = Size(
    "full",
    {"table1": GRIDS, "table2": ("celeba",), "ablation": ("mpi3d", "cars3d", "shapes3d"), "downstream": GRIDS},
    {"table1": 3, "table2": 1, "ablation": 1, "downstream": 1},
    snapshots=5,
    saves_per_snapshot=10,
    evaluation_seeds=3,
    drawn=50_000,
    sampling=Sampling(steps=100, solver="ddim"),
)
SMALL = Size(
    "small",
    {"table1": ("rooms",), "table2": ("faces",), "ablation": ("rooms",), "downstream": ("rooms",)},
    {"table1": 1, "table2": 1, "ablation": 1, "downstream": 1},
    snapshots=2,
    saves_per_snapshot=1,
    evaluation_seeds=2,
    drawn=256,
    sampling=Sampling(steps=10),
)
TINY = replace(SMALL, name="tiny", evaluation_seeds=1, drawn=16, sampling=Sampling(steps=2))
SIZES: dict[ScaleName, Size] = {"full": FULL, "small": SMALL, "tiny": TINY}


def first_stage(size: Size, name: str, out: Path, perceptual: tuple[str, str]) -> VQRunConfig:
    """The first stage of a set; `perceptual` are the paths of VGG16's and LPIPS's weights, or empty."""
    if size.name == "full":
        config = FIRST_STAGES[f"vq-{name}"].config
    else:
        config = _small_first_stage(size.name, _small_data(size.name, name, out))
    files = replace(config.model.perceptual, backbone=perceptual[0], heads=perceptual[1])
    return replace(config, model=replace(config.model, perceptual=files))


def methods(size: Size, table: Table, name: str, out: Path) -> dict[str, Method]:
    """The rows of a table on a set, by the names of their folders. A row that two tables share has one name."""
    full = size.name == "full"
    rows = _published(name) if full else _small(size.name, table, _small_data(size.name, name, out))
    if table != "ablation":
        kept = ("dyga", "encdiff") if size.name == "tiny" else ("dyga", "dyga-published", "encdiff")
        return {row: rows[row] for row in kept}
    return _ablation(rows, "" if full else "unet-", ("dyga", "dyga-published") if full else ("dyga",))


def _published(name: str) -> dict[str, Method]:
    rows = {
        "dyga": Method("DyGA and Skip Dropout, corrected anchors", PRESETS[f"dyga-{name}"].config, OURS),
        "dyga-published": Method("as published, anchors too", PRESETS[f"dyga-{name}-published"].config, OURS),
        "encdiff": Method("EncDiff", PRESETS[f"encdiff-{name}"].config, ENCDIFF, "scalars"),
    }
    if name != "celeba":
        return rows
    return {row: method._replace(config=_labelled(method.config)) for row, method in rows.items()}


def _labelled(config: RunConfig) -> RunConfig:
    labels = str(Path(config.data.folder).with_name(ATTRIBUTES))
    return replace(config, data=replace(config.data, labels=labels))


def _diffusion(config: RunConfig) -> DiffusionConfig:
    """The options of the model: all rows of the paper's tables are diffusion models."""
    assert isinstance(config.model, DiffusionConfig)
    return config.model


def _ablation(rows: dict[str, Method], prefix: str, anchored: tuple[str, ...]) -> dict[str, Method]:
    """Skip Dropout on and off, with anchors on and off; all else is the same."""

    def without(config: RunConfig, anchors: bool, skip_dropout: bool) -> RunConfig:
        model = _diffusion(config)
        if anchors:
            model = replace(model, anchors=replace(model.anchors, mode="off"))
        if skip_dropout:
            model = replace(model, unet=replace(model.unet, skip_dropout=0.0))
        return replace(config, model=model)

    base = rows["dyga"].config
    ablation = {
        f"{prefix}neither": Method("neither", without(base, True, True)),
        f"{prefix}skip-dropout": Method("Skip Dropout alone", without(base, True, False)),
    }
    for row in anchored:
        kind = "published anchors" if row == "dyga-published" else "corrected anchors"
        ablation[f"{prefix}{row}-alone"] = Method(f"{kind} alone", without(rows[row].config, False, True))
        ablation[f"{prefix}{row}"] = rows[row]._replace(title=f"{kind} and Skip Dropout", printed="")
    return ablation


def _small_data(scale: ScaleName, name: str, out: Path) -> DataConfig:
    cache = str((out / "cache").absolute())
    if name == "faces":
        folder = out / "faces"
        return DataConfig(
            folder=str(folder / FACES), labels=str(folder / ATTRIBUTES), crop="celeba_128", held_out=0.1, cache=cache
        )
    held = ("floor_hue=0", "object_hue=2", "orientation=7", *(("wall_hue=5",) if scale == "tiny" else ()))
    return DataConfig("rooms", fixed=held, held_out=0.1, cache=cache)


SMALL_VQ = VQConfig(channels=(8, 16, 16, 32), num_res_blocks=1, codebook_size=128, norm_groups=4)
TINY_VQ = VQConfig(channels=(4, 4, 8, 8), num_res_blocks=1, codebook_size=32, norm_groups=4)
SMALL_CHANNELS = 6
SMALL_IMAGES = 16_000
"""Number of training images of a small second stage."""
SMALL_UNET_IMAGES = 10_000
SMALL_VQ_IMAGES = 9_600


def _small_first_stage(scale: ScaleName, data: DataConfig) -> VQRunConfig:
    images = SMALL_VQ_IMAGES if scale == "small" else 320
    return VQRunConfig(
        data,
        VQGANConfig(
            image_size=32,
            channels=SMALL_CHANNELS,
            vq=SMALL_VQ if scale == "small" else TINY_VQ,
            revive_after=30,
            critic=CriticConfig(channels=8 if scale == "small" else 4, layers=2, start=0.5),
        ),
        VQTrainConfig(
            images=images,
            batch_size=32 if scale == "small" else 16,
            accumulate=1,
            lr=2e-3,
            cooldown=0.5,
            log_every_images=images // 4,
            save_every_images=images // 4,
            accelerator="cpu",
            threads=1,
        ),
    )


def _small(scale: ScaleName, table: Table, data: DataConfig) -> dict[str, Method]:
    images = {"small": SMALL_UNET_IMAGES if table == "ablation" else SMALL_IMAGES}.get(scale, 640)
    # more steps for the same images: a U-Net learns little in few steps, and the set with attributes has few images
    more_steps = scale == "tiny" or table in ("table2", "ablation")
    base = RunConfig(
        data,
        _small_model(scale, table, images),
        replace(
            CPU_TRAIN,
            images=images,
            batch_size=16 if more_steps else 64,
            warmup_images=images // 10,
            ema_decay=0.99,
            log_every_images=images // 4,
            save_every_images=images // 2,
            cache_latents=True,
        ),
    )
    model = _diffusion(base)
    published = replace(model, anchors=replace(model.anchors, mode="published", max_points=300))
    encoder = replace(model.encoder, trunk="residual", unit_activation="elu", hidden=())
    plain = replace(model, encoder=encoder, anchors=replace(model.anchors, mode="off", max_points=300))
    return {
        "dyga": Method("DyGA, corrected anchors", base),
        "dyga-published": Method("DyGA, published anchors", replace(base, model=published)),
        "encdiff": Method("EncDiff", replace(base, model=plain), "", "scalars"),
    }


def _small_model(scale: ScaleName, table: Table, images: int) -> DiffusionConfig:
    small = scale == "small"
    return replace(
        _diffusion(PRESETS["rooms-cpu"].config),
        denoiser="unet" if table == "ablation" else "transformer",
        tokenizer=TokenizerConfig(kind="vq", channels=SMALL_CHANNELS, downsample=8, vq=SMALL_VQ if small else TINY_VQ),
        encoder=EncoderConfig(
            num_units=3 if not small else 4 if table == "table2" else 8,
            token_dim=16 if small else 8,
            channels=(32, 64, 64) if small else (8, 16, 16),
            stem_kernel=4,
            stem_stride=2,
            hidden=(128,),
            unit_hidden=(64,) if small else (16,),
            token_activation="none",
        ),
        transformer=TransformerConfig() if small else TransformerConfig(width=16, depth=1, num_heads=2),
        unet=UNetConfig(
            channels=16 if small else 8,
            multipliers=(1, 2),
            num_res_blocks=1,
            attention_widths=(4, 2),
            num_heads=4,
            self_attention=False,
            skip_dropout_widths=(4,),
        ),
        anchors=AnchorConfig(fit_every_images=images // 2, max_points=1_000),
    )
