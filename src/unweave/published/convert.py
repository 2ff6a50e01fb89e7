"""From a checkpoint of the published code to a model folder: read, take apart, put together, save."""

from pathlib import Path

from unweave.config import DiffusionConfig
from unweave.models.diffusion import DiffusionModel
from unweave.models.folder import save_model
from unweave.published.lightning_file import read_state_dict
from unweave.published.names import published_parts, write_first_stage


def convert(checkpoint: Path, folder: Path) -> None:
    """Writes the model of a published Lightning checkpoint as a model folder; nothing in the checkpoint is executed.

    The U-Net is the moving average where the checkpoint has one, as in the published sampler. No checkpoint holds
    anchors: ours are left without any, so that tokens stay as they are. `first_stage` beside the model is its VQModel
    alone, which `--model.tokenizer.folder` takes for a new run. Raises `UserError` when the file cannot be read
    or is another model's, or when the folder cannot be written.
    """
    parts = published_parts(read_state_dict(checkpoint))
    model = DiffusionModel(DiffusionConfig())
    model.denoiser.load_state_dict(parts.unet_ema or parts.unet)
    model.encoder.load_state_dict(parts.encoder)
    model.tokenizer.load_state_dict(parts.vq)
    save_model(model, folder)
    write_first_stage(parts, folder / "first_stage")
