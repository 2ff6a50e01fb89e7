"""Tokenizers: image <-> latent, frozen while the diffusion model trains (Rombach et al. 2022; Esser et al. 2021).

B batch, H W image height and width, C h w latent channels, height, width. Images are float in [-1, 1]. A tokenizer is
made without state and gets it once, by `fit` or from a checkpoint; all of it is in its `state_dict`.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unweave.config import TokenizerConfig, VQGANConfig
from unweave.errors import UserError, require
from unweave.files import write_atomically, write_text

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel

SMALLEST_PART = 1e-3  # of the largest component's standard deviation: below it whitening amplifies only rounding errors
VQ_WEIGHTS = "diffusion_pytorch_model.safetensors"
ARCHITECTURE = (  # the options of a VQModel on which the shapes of its weights and its output depend
    "in_channels",
    "out_channels",
    "down_block_types",
    "up_block_types",
    "block_out_channels",
    "layers_per_block",
    "act_fn",
    "latent_channels",
    "num_vq_embeddings",
    "norm_num_groups",
    "vq_embed_dim",
    "norm_type",
    "mid_block_add_attention",
)


OPTIONS = {  # the names of some of these on the command line
    "block_out_channels": "vq.channels",
    "layers_per_block": "vq.num-res-blocks",
    "latent_channels": "channels",
    "num_vq_embeddings": "vq.codebook-size",
    "norm_num_groups": "vq.norm-groups",
}


class Pixels(nn.Module):
    """Latents are the images themselves, scaled to unit standard deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.scale: Tensor

    def fit(self, images: Tensor) -> str:
        """Sets the scale from images (n, 3, H, W); returns a line for the log. Raises `UserError` for constant ones."""
        self.scale.fill_(_scale_of(images))
        return f"pixel tokenizer: images scaled by {self.scale.item():.3g}"

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        return images * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        return latents / self.scale


class Patch(nn.Module):
    """Latents are principal components of square patches, scaled so that they have unit variance overall.

    The components are orthonormal. With `whitening` 0 they keep their proportions, and noise in the latents is white
    noise in the subspace of the patches; with 1 each has unit variance, and noise hides all equally; in general a
    component of standard deviation s is divided by s ** whitening. Before `fit` the `scale` (C,) is NaN.
    `variance_kept`, from 0 to 1, is the fraction of the variance of the patches that the components explain.
    """

    def __init__(self, channels: int, patch_size: int, whitening: float) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.whitening = whitening
        self.register_buffer("mean", torch.zeros(3, patch_size, patch_size))
        self.register_buffer("components", torch.zeros(channels, 3, patch_size, patch_size))
        self.register_buffer("scale", torch.full((channels,), math.nan))
        self.register_buffer("variance_kept", torch.zeros(()))
        self.mean: Tensor
        self.components: Tensor
        self.scale: Tensor
        self.variance_kept: Tensor

    def fit(self, images: Tensor) -> str:
        """PCA of all patches of images (n, 3, H, W); returns a line for the log.

        The sign of a component makes its largest entry positive. Raises `UserError` if the patches do not vary.
        """
        # principal components
        mean, covariance = _moments(images, self.patch_size)
        total = covariance.trace().item()
        require(
            total > 1e-14,  # smaller values are rounding errors; false for NaN
            "the images for the patch tokenizer are all one constant patch or not finite: it needs images that vary",
        )
        variances, vectors = torch.linalg.eigh(covariance)  # ascending
        channels = len(self.components)
        components = vectors.T.flip(0)[:channels]  # (C, 3 p p), largest variance first
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        spread = variances.flip(0)[:channels].clamp_min(SMALLEST_PART**2 * variances[-1]).sqrt()
        kept = variances.flip(0)[:channels].sum().item()

        # the state
        self.mean.copy_(mean.reshape(self.mean.shape))
        self.components.copy_((components * largest.sign()).reshape(self.components.shape))
        scale = spread**-self.whitening
        self.scale.copy_(scale / (scale * spread).square().mean().sqrt())
        self.variance_kept.fill_(kept / total)
        return (
            f"patch tokenizer: {channels} of {len(mean)} components keep {100 * kept / total:.1f} % of the variance of "
            f"{self.patch_size} px patches"
        )

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / p, W / p)."""
        offset = (self.components * self.mean).sum((1, 2, 3))  # (C,)
        return self.scale[:, None, None] * F.conv2d(images, self.components, -offset, stride=self.patch_size)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, h p, w p)."""
        h, w = latents.shape[2:]
        patches = F.conv_transpose2d(latents / self.scale[:, None, None], self.components, stride=self.patch_size)
        return patches + self.mean.repeat(1, h, w)


class VQ(nn.Module):
    """Latents are those of a diffusers VQModel before quantisation, scaled to unit standard deviation.

    Decoding quantises first. `fit` reads the weights of the VQModel from `config.folder`; afterwards they are in the
    checkpoints of the model that has the tokenizer. `vq` is the VQModel, `scale` the published `scale_factor`.
    """

    FIT_IMAGES = 512  # as published, the scale is from one batch

    def __init__(self, config: TokenizerConfig, image_size: int) -> None:
        super().__init__()
        self.folder = config.folder
        self.vq = make_vq(config, image_size).requires_grad_(False).eval()
        self.register_buffer("scale", torch.ones(()))
        self.scale: Tensor

    def fit(self, images: Tensor) -> str:
        """Reads the weights and sets the scale from images (n, 3, H, W); returns a line for the log. Raises `UserError`
        if the folder holds no VQModel or one that does not fit the config."""
        require(bool(self.folder), "the vq tokenizer needs a trained VQModel: name its folder, tokenizer.folder")
        read_vq(self.vq, Path(self.folder))
        self.scale.fill_(1)
        stride = -(-len(images) // self.FIT_IMAGES)  # spread over all images, which may be sorted
        chunks = images[::stride].split(64)
        self.scale.fill_(_scale_of(torch.cat([self.encode(chunk.to(self.scale.device)) for chunk in chunks])))
        return f"vq tokenizer from {self.folder}: latents scaled by {self.scale.item():.3g}"

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode in any case, because it is never trained here."""
        del mode
        return super().train(False)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w), not quantised."""
        return self.encode_unscaled(images) * self.scale

    def encode_unscaled(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w), the latents of the VQModel without the scale."""
        # contiguous, because noise is drawn in memory order, which convolutions may change
        return self.vq.encode(images).latents.contiguous()  # pyright: ignore[reportAttributeAccessIssue]

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W)."""
        return self.vq.decode(latents / self.scale).sample  # pyright: ignore[reportAttributeAccessIssue]


Tokenizer = Pixels | Patch | VQ


def make_tokenizer(config: TokenizerConfig, image_size: int) -> Tokenizer:
    """The tokenizer for some options, without its state: `fit` it or load a checkpoint."""
    if config.kind == "pixels":
        return Pixels()
    if config.kind == "patch":
        return Patch(config.channels, config.downsample, config.whitening)
    return VQ(config, image_size)


def make_vq(config: TokenizerConfig | VQGANConfig, image_size: int) -> "VQModel":
    """A diffusers VQModel of the configured sizes with initial weights; by default, the published first stage."""
    from diffusers.models.autoencoders.vq_model import VQModel  # takes seconds to import; only this tokenizer needs it

    levels = len(config.vq.channels)
    return VQModel(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.vq.channels,
        layers_per_block=config.vq.num_res_blocks,
        latent_channels=config.channels,
        sample_size=image_size,
        num_vq_embeddings=config.vq.codebook_size,
        norm_num_groups=math.gcd(config.vq.norm_groups, *config.vq.channels),
        vq_embed_dim=config.channels,
    )


def read_vq(vq: "VQModel", folder: Path) -> None:
    """Loads weights from a diffusers folder (config.json and safetensors) into a VQModel; nothing is downloaded. Raises
    `UserError` if a file is missing or damaged, and with the difference if it has another architecture."""
    try:
        theirs: dict[str, Any] = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / VQ_WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"tokenizer.folder {folder} holds no readable VQModel ({error}): it needs config.json and {VQ_WEIGHTS}"
        ) from None
    require(isinstance(theirs, dict), f"{folder / 'config.json'} should be a JSON object")

    # the architecture must be the configured one
    for name in ARCHITECTURE:
        configured = vq.config[name]
        value = theirs.get(name, configured)
        option = f" (--model.tokenizer.{OPTIONS[name]})" if name in OPTIONS else ""
        require(
            value == (list(configured) if isinstance(configured, tuple) else configured),
            f"the VQModel in {folder} has {name} {value}, the config has {configured}: make them equal{option}",
        )
    try:
        vq.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{folder / VQ_WEIGHTS} does not fit its config.json: {str(error).splitlines()[-1]}") from None


def write_vq(vq: "VQModel", folder: Path) -> None:
    """Writes the folder that `read_vq` and diffusers read, each file atomically. Raises `UserError` if it cannot be
    written."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in vq.state_dict().items()}
    write_atomically(folder / VQ_WEIGHTS, lambda path: save_file(weights, path, metadata={"format": "pt"}))
    write_text(folder / "config.json", vq.to_json_string())


def _scale_of(values: Tensor) -> float:
    """1 / standard deviation over all entries. Raises `UserError` if it is 0 or not finite."""
    std = values.std().item()
    require(
        0 < std < math.inf, f"the images for the tokenizer have standard deviation {std}: it needs several that vary"
    )
    return 1 / std


def _moments(images: Tensor, patch_size: int, chunk: int = 64) -> tuple[Tensor, Tensor]:
    """Mean (P,) and covariance (P, P) over all patches, P = 3 patch_size^2; float64 on the CPU, because not every
    device has it. In chunks, because a process, and the workers forked from it, keep memory that was once used."""
    width = 3 * patch_size**2
    total, product = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
    count = 0
    for part in images.split(chunk):
        patches = F.pixel_unshuffle(part.cpu().double(), patch_size)  # (b, P, h, w)
        patches = patches.permute(0, 2, 3, 1).flatten(0, 2)  # (b h w, P)
        total += patches.sum(0)
        product += patches.T @ patches
        count += len(patches)
    mean = total / count
    return mean, product / count - torch.outer(mean, mean)
