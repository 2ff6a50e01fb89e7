"""Conversion of a checkpoint of the published code to a model folder."""

from pathlib import Path

from unweave.config import DiffusionConfig
from unweave.models.diffusion import DiffusionModel
from unweave.models.folder import save_model
from unweave.published.lightning_file import read_state_dict
from unweave.published.names import published_parts, write_first_stage


def convert(checkpoint: Path, folder: Path) -> None:
    """Writes the model of a published Lightning checkpoint as a model folder; nothing in the checkpoint is executed.

    The U-Net is the moving average if the checkpoint has one, as in the published sampler. Published checkpoints have
    no anchors, so the model has none and tokens are not moved. The folder `first_stage` beside the model has its
    VQModel only, for `--model.tokenizer.folder` of a new run. Raises `UserError` if the file cannot be read or is of
    another model, or if the folder cannot be written to.
    """
    parts = published_parts(read_state_dict(checkpoint))
    model = DiffusionModel(DiffusionConfig())
    model.denoiser.load_state_dict(parts.unet_ema or parts.unet)
    model.encoder.load_state_dict(parts.encoder)
    model.tokenizer.load_state_dict(parts.vq)
    save_model(model, folder)
    write_first_stage(parts, folder / "first_stage")
