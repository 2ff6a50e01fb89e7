"""Names of tensors in checkpoints of the published code (youngjun-jun/dis-dis, EncDiff's file layout) and in our
modules.

N units. For each of our modules a function here returns its tensors under their published names: a dict from published
name to a view that has the published shape and shares memory with ours. Copying to the views fills the module, although
ours groups the numbers differently (keys and values in one matrix, the units' MLPs in one batch, 1x1 convolutions as
matrices).
"""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from unweave.config import DiffusionConfig
from unweave.errors import require
from unweave.models.tokenizer import VQ, write_vq
from unweave.nn.encoder import FeatureExtractor
from unweave.nn.layers import Attention
from unweave.nn.unet import ResBlock, Stage, Transformer, UNet

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel

State = dict[str, Tensor]

UNET, EMA, ENCODER, FIRST_STAGE = "model.diffusion_model.", "model_ema.", "cond_stage_model.", "first_stage_model."
SCALE = "scale_factor"
IGNORED = (  # the noise schedule, which our config defines, and values for training only
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "lvlb_weights",
    "logvar",
    "model_ema.decay",
    "model_ema.num_updates",
)
IGNORED_PREFIXES = ("first_stage_model.loss.",)  # critic and perceptual network
VQ_NAMES = {  # patterns of diffusers' names, and the names of taming-transformers
    r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)": r"\1.\2.block.\3",
    r"(down|up)_blocks\.(\d+)\.\w+samplers\.0": r"\1.\2.\1sample",
    r"mid_block\.resnets\.(\d+)": r"mid.block_\1",
    r"mid_block\.attentions\.0": "mid.attn_1",
    r"\.to_([qkv])\.": r".\1.",
    r"\.to_out\.0\.": ".proj_out.",
    r"\.group_norm\.": ".norm.",
    r"\.conv_norm_out\.": ".norm_out.",
    r"\.conv_shortcut\.": ".nin_shortcut.",
}


class PublishedParts(NamedTuple):
    """The content of a published checkpoint as state dicts of our modules at the published sizes."""

    unet: State
    """`UNet`."""
    unet_ema: State
    """The moving average of `UNet`; empty if the checkpoint has none."""
    encoder: State
    """`FeatureExtractor`."""
    vq: State
    """The tokenizer `VQ`, its scale included."""
    scale_factor: float
    """1 / standard deviation of the latents of the first stage, the `scale` in `vq`."""


def published_parts(state_dict: State) -> PublishedParts:
    """Splits a published state dict into the parts of the model; every tensor is used. Raises `UserError` with the
    tensor that is missing, has another shape, or is unknown."""
    # modules of the published sizes, first on `meta`, where no initial weights are drawn
    config = DiffusionConfig()
    with torch.device("meta"):
        unet, unet_ema = (
            UNet(config.unet, config.tokenizer.channels, config.latent_size, config.encoder.token_dim) for _ in range(2)
        )
        encoder = FeatureExtractor(config.encoder, config.image_size)
        tokenizer = VQ(config.tokenizer, config.image_size)
    for module in (unet, unet_ema, encoder, tokenizer):
        module.to_empty(device="cpu")

    # fill them through views under published names
    tokenizer.scale.fill_(_scale_factor(state_dict))
    has_ema = any(name.startswith(EMA) and name not in IGNORED for name in state_dict)
    ema_views = {_ema_name(name): view for name, view in unet_views(unet_ema).items()} if has_ema else {}
    views = unet_views(unet) | ema_views | encoder_views(encoder) | vq_views(tokenizer.vq)
    _check(state_dict, views)
    for name, view in views.items():
        view.copy_(state_dict[name])
    return PublishedParts(
        unet.state_dict(),
        unet_ema.state_dict() if has_ema else {},
        encoder.state_dict(),
        tokenizer.state_dict(),
        tokenizer.scale.item(),
    )


def write_first_stage(parts: PublishedParts, folder: Path) -> None:
    """Writes the first stage as a diffusers VQModel folder, for `tokenizer.folder` of a new run. Raises `UserError` if
    the folder cannot be written to."""
    config = DiffusionConfig()
    tokenizer = VQ(config.tokenizer, config.image_size)
    tokenizer.load_state_dict(parts.vq)
    tokenizer.vq.register_to_config(scaling_factor=parts.scale_factor)
    write_vq(tokenizer.vq, folder)


def unet_views(unet: UNet) -> State:
    """The tensors of the U-Net under their published names and in their published shapes."""
    views = _renamed(unet.time_mlp, "time_embed") | _renamed(unet.stem, "input_blocks.0.0")
    for index, stage in enumerate(unet.down, start=1):
        views |= _stage_views(stage, f"input_blocks.{index}")
    views |= _stage_views(unet.middle, "middle_block")
    for index, stage in enumerate(unet.up):
        views |= _stage_views(stage, f"output_blocks.{index}")
    views |= _renamed(unet.head, "out")
    return {UNET + name: view for name, view in views.items()}


def encoder_views(encoder: FeatureExtractor) -> State:
    """The tensors of the feature extractor under their published names and in their published shapes."""
    views: State = {}
    for name, tensor in encoder.convs.state_dict().items():
        block, layer, key = name.split(".")  # theirs is one flat list of convolution, norm, activation, ...
        views[f"image_encoder.encoder.{3 * int(block) + int(layer)}.{key}"] = tensor
    views |= _renamed(encoder.head, "image_encoder.fc")
    for layer, (weight, bias) in enumerate(zip(encoder.units.weights, encoder.units.biases, strict=True)):
        for unit, (unit_weight, unit_bias) in enumerate(zip(weight.detach(), bias.detach(), strict=True)):
            name = f"mlps.{unit}.layers.{2 * layer}"
            views |= {f"{name}.weight": unit_weight.T, f"{name}.bias": unit_bias}
    return {ENCODER + name: view for name, view in views.items()}


def vq_views(vq: "VQModel") -> State:
    """The tensors of the VQModel under their published names (taming-transformers) and in their published shapes."""
    views: State = {}
    for name, tensor in vq.state_dict().items():
        is_matrix = tensor.ndim == 2 and ".attentions." in name  # theirs is a 1x1 convolution
        views[FIRST_STAGE + _vq_name(name, len(vq.decoder.up_blocks))] = _as_conv(tensor) if is_matrix else tensor
    return views


def _vq_name(name: str, num_levels: int) -> str:
    """The published name of a tensor of diffusers' VQModel; it counts the levels of the decoder from the widest."""
    for pattern, replacement in VQ_NAMES.items():
        name = re.sub(pattern, replacement, name)
    name = re.sub(r"mid\.block_(\d+)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
    return re.sub(r"\.up\.(\d+)", lambda match: f".up.{num_levels - 1 - int(match[1])}", name)


def _stage_views(stage: nn.Module, name: str) -> State:
    assert isinstance(stage, Stage)
    views: State = {}
    parts = [part for part in (stage.first, stage.attention, stage.second) if part is not None]
    for index, part in enumerate(parts):
        inner = f"{name}.{index}"
        views |= _transformer_views(part, inner) if isinstance(part, Transformer) else _res_block_views(part, inner)
    return views


def _res_block_views(block: ResBlock, name: str) -> State:
    return {
        **_renamed(block.norm_in, f"{name}.in_layers.0"),
        **_renamed(block.conv_in, f"{name}.in_layers.2"),
        **_renamed(block.film, f"{name}.emb_layers.1"),
        **_renamed(block.norm_out, f"{name}.out_layers.0"),
        **_renamed(block.conv_out, f"{name}.out_layers.3"),
        **_renamed(block.shortcut, f"{name}.skip_connection"),
    }


def _transformer_views(block: Transformer, name: str) -> State:
    inner = f"{name}.transformer_blocks.0"
    views = {
        **_renamed(block.norm, f"{name}.norm"),
        f"{name}.proj_in.weight": _as_conv(block.proj_in.weight.detach()),
        f"{name}.proj_in.bias": block.proj_in.bias.detach(),
        **_attention_views(block.cross_attention, f"{inner}.attn2"),
        **_renamed(block.cross_norm, f"{inner}.norm2"),
        **_renamed(block.feed_norm, f"{inner}.norm3"),
        **_renamed(block.feed_forward.expand, f"{inner}.ff.net.0.proj"),
        **_renamed(block.feed_forward.contract, f"{inner}.ff.net.2"),
        f"{name}.proj_out.weight": _as_conv(block.proj_out.weight.detach()),
        f"{name}.proj_out.bias": block.proj_out.bias.detach(),
    }
    if block.self_attention is not None and block.self_norm is not None:
        views |= _attention_views(block.self_attention, f"{inner}.attn1") | _renamed(block.self_norm, f"{inner}.norm1")
    return views


def _attention_views(attention: Attention, name: str) -> State:
    key, value = attention.key_value.weight.detach().chunk(2)
    return {
        f"{name}.to_q.weight": attention.query.weight.detach(),
        f"{name}.to_k.weight": key,
        f"{name}.to_v.weight": value,
        **_renamed(attention.out, f"{name}.to_out.0"),
    }


def _renamed(module: nn.Module, name: str) -> State:
    return {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}


def _as_conv(matrix: Tensor) -> Tensor:
    return matrix[:, :, None, None]


def _ema_name(name: str) -> str:
    """The name of a U-Net tensor in the published moving average: without dots, relative to its parent module."""
    return EMA + name.removeprefix("model.").replace(".", "")


def _check(state: State, views: State) -> None:
    """Raises `UserError` unless the state has each tensor of the published model in its shape, and no unknown one."""
    for name, view in views.items():
        require(name in state, f"the checkpoint has no {name}: it is not one of the published model at these sizes")
        given, wanted = tuple(state[name].shape), tuple(view.shape)
        require(given == wanted, f"{name} has shape {given} in the checkpoint: the published model has {wanted}")
    known = {*views, *IGNORED, SCALE}
    unknown = sorted(name for name in state if name not in known and not name.startswith(IGNORED_PREFIXES))
    require(
        not unknown,
        f"the checkpoint has {len(unknown)} tensors that the published model lacks, {', '.join(unknown[:3])!r:.200}: "
        "convert reads checkpoints of the published DyGA code only",
    )


def _scale_factor(state: State) -> float:
    """The scale, 1 if the checkpoint has none: the published code saves it only if it was measured."""
    scale = state.get(SCALE, torch.ones(()))
    valid = scale.numel() == 1 and 0 < scale.item() < math.inf
    require(valid, f"{SCALE} in the checkpoint is {scale.flatten()[:3].tolist()}: should be one positive number")
    return scale.item()
