"""Reconstructions of a trained first stage, and the command for the second."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from unweave.config import TokenizerConfig, VQConfig, VQGANConfig, VQRunConfig
from unweave.data import open_dataset
from unweave.models.pixels import normalise, to_uint8
from unweave.models.tokenizer import make_vq, read_vq
from unweave.models.vqgan import reconstruct
from unweave.record import log
from unweave.report.figures import image_grid
from unweave.training.batches import split_rows

NUM_IMAGES = 12


def next_command(config: VQGANConfig, folder: Path) -> str:
    """The command that trains the second stage on the first in `folder`, with the sizes that are not the published."""
    published = TokenizerConfig()
    sizes = {
        "channels": (config.channels, published.channels),
        "downsample": (config.vq.downsample, published.downsample),
        **{
            f"vq.{field.name.replace('_', '-')}": (getattr(config.vq, field.name), getattr(published.vq, field.name))
            for field in fields(VQConfig)
        },
    }
    words = ["unweave train dyga-rooms --run runs/second --model.tokenizer.folder", str(folder)]
    for option, (ours, theirs) in sizes.items():
        if ours != theirs:
            words += [f"--model.tokenizer.{option}", *map(str, ours if isinstance(ours, tuple) else [ours])]
    return " ".join(words)


@torch.no_grad()
def draw_reconstructions(config: VQRunConfig, run: Path) -> Path:
    """Draws held-out images, or training images if there are none, above their reconstructions by the trained VQModel.

    Returns the path, RUN/report/reconstructions.png.
    """
    # reconstruct some images
    vq = make_vq(config.model, config.model.image_size).eval()
    read_vq(vq, run / "model")
    dataset = open_dataset(config.data, config.model.image_size, log)
    trained, held_out = split_rows(len(dataset), config.data.held_out, config.train.seed)
    rows = held_out if len(held_out) else trained
    chosen = np.random.default_rng(config.train.seed).choice(rows, min(NUM_IMAGES, len(rows)), replace=False)
    images = dataset.images(np.sort(chosen))
    pictures = to_uint8(reconstruct(vq, normalise(torch.from_numpy(images))).pictures)

    # draw them
    return image_grid(
        np.stack([images, pictures]),
        run / "report" / "reconstructions.png",
        "Reconstructions",
        f"The lower row is decoded from {config.model.vq.codebook_size:,} codes, "
        f"{(config.model.image_size // config.model.vq.downsample) ** 2} of them per image"
        + ("; these images were held out." if len(held_out) else "."),
        rows=("image", "from codes"),
    )
