"""Presets of the VQ first stage."""

from unweave.config import (
    CriticConfig,
    DataConfig,
    VQConfig,
    VQGANConfig,
    VQRunConfig,
    VQTrainConfig,
)
from unweave.presets.base import Preset
from unweave.presets.published import SCHEDULES

VQ_EPOCHS = 101
PUBLISHED_VQ = VQGANConfig(beta_on="codes")

FIRST_STAGES: dict[str, Preset[VQRunConfig]] = {
    "vq-rooms-cpu": Preset(
        "a small VQ first stage for rooms at 64 px, 512 codes; takes half an hour on two cores",
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
        "the published VQ first stage on rooms at 64 px, 2,048 codes; needs a GPU, and files of VGG16's weights",
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
