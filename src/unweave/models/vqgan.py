"""Training the VQ first stage: a VQModel with what losses its pictures (VQ-GAN, Esser et al. 2021).

    image -> encoder -> latent -> nearest code -> decoder -> picture
    picture, image -> pixel and perceptual distance, and a critic's logits

What is kept afterwards is the VQModel alone, in a folder that diffusers and `tokenizer.VQ` read.

B batch, C h w latent channels, height, width, K codes, H W image height, width.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unweave.config import VQGANConfig
from unweave.metrics.image_quality import psnr, ssim
from unweave.models.base import Losses, eval_mode
from unweave.models.images import normalise, to_uint8
from unweave.models.tokenizer import make_vq
from unweave.nn.critic import PatchCritic, adaptive_weight, frozen, hinge_loss
from unweave.nn.perceptual import Perceptual

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel


class Reconstruction(NamedTuple):
    """Images after the way through the codebook."""

    pictures: Tensor
    """(B, 3, H, W), about [-1, 1]."""
    latents: Tensor
    """(B, C, h, w), before they became codes."""
    codes: Tensor
    """(B h w,) int64: the nearest code of each latent, image by image, row by row."""
    codebook_loss: Tensor
    """The squared distance of latents and codes, as a pull on each."""


def reconstruct(vq: "VQModel", images: Tensor) -> Reconstruction:
    """Images (B, 3, H, W) in [-1, 1] through a VQModel; the gradient passes the codes as if they were the latents."""
    latents: Tensor = vq.encode(images).latents  # pyright: ignore[reportAttributeAccessIssue]
    quantised, loss, (_, _, codes) = vq.quantize(latents)
    pictures: Tensor = vq.decode(quantised, force_not_quantize=True).sample  # pyright: ignore[reportAttributeAccessIssue]
    return Reconstruction(pictures, latents, codes, loss)


class VQGAN(nn.Module):
    """A VQModel, `vq`, and a `critic` where there is one, which learn from one loss.

    One backward pass serves both: the gradient of the adversarial loss passes through the critic without touching it,
    and the critic's own loss sees pictures that are cut off from the decoder.
    """

    def __init__(self, config: VQGANConfig, perceptual: Perceptual | None = None) -> None:
        super().__init__()
        self.config = config
        self.vq = make_vq(config, config.image_size)
        self.vq.quantize.beta, self.vq.quantize.legacy = config.beta, config.beta_on == "codes"
        self.perceptual = perceptual
        self.critic = PatchCritic(config.critic) if config.critic.weight else None
        if config.revive_after:
            size, channels = config.vq.codebook_size, config.channels
            self.register_buffer("idle", torch.zeros(size, dtype=torch.int64))  # batches since a code was last nearest
            self.register_buffer("spare", torch.zeros(size, channels))  # some latents of the last batch
        self.idle: Tensor
        self.spare: Tensor

    def forward(self, images: Tensor, progress: float = 1.0) -> Losses:
        """The loss of a batch (B, 3, H, W) in [-1, 1] when `progress`, 0 to 1, of a run is done; for training only."""
        config = self.config
        if config.revive_after:
            self._revive()
        seen = reconstruct(self.vq, images)
        if config.revive_after:
            self._watch(seen)
        distance, parts = self.distance(seen.pictures, images)
        loss = distance + config.codebook * seen.codebook_loss
        parts = {"loss": loss, **parts, "codebook": seen.codebook_loss}
        if self.critic is not None and progress >= config.critic.start:
            adversarial = -frozen(self.critic, seen.pictures).mean()
            weight = config.critic.weight * adaptive_weight(distance, adversarial, self.vq.decoder.conv_out.weight)
            critic_loss = hinge_loss(self.critic(images), self.critic(seen.pictures.detach()))
            loss = loss + config.critic.factor * (weight * adversarial + critic_loss)
            parts |= {"adversarial": adversarial, "critic_weight": weight, "critic": critic_loss}
        elif self.critic is not None:
            # gradients of 0, as data-parallel training needs one for every weight
            loss = loss + 0 * sum(weight.sum() for weight in self.critic.parameters())
            parts |= dict.fromkeys(("adversarial", "critic_weight", "critic"), torch.zeros_like(loss))
        return Losses(loss, {name: part.detach() for name, part in parts.items()})

    def distance(self, pictures: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """How far pictures are from their images, and the parts of it."""
        parts = {"pixel": (pictures - images).abs().mean()}
        total = self.config.pixel * parts["pixel"]
        if self.perceptual is not None:
            parts["perceptual"] = self.perceptual(pictures, images).mean()
            total = total + self.config.perceptual.weight * parts["perceptual"]
        return total, parts

    @torch.no_grad()
    def _revive(self) -> None:
        """Codes that were idle for too long become latents of the last batch.

        Before the forward pass, from buffers: data-parallel training has just made them the same in every process.
        """
        dead = self.idle >= self.config.revive_after
        self.vq.quantize.embedding.weight[dead] = self.spare[dead]
        self.idle[dead] = 0

    @torch.no_grad()
    def _watch(self, seen: Reconstruction) -> None:
        """Counts how long each code was idle, and sets latents aside for those that will be revived."""
        self.idle += 1
        self.idle[seen.codes] = 0
        latents = seen.latents.permute(0, 2, 3, 1).flatten(0, 2)  # (B h w, C)
        self.spare.copy_(latents[torch.randint(len(latents), (len(self.spare),), device=latents.device)])

    @torch.no_grad()
    def measure(self, images: np.ndarray, batch_size: int = 64) -> dict[str, float]:
        """How well uint8 images (n, H, W, 3) come back, and by how many codes.

        `loss` without the critic; the pictures' mean `psnr` in dB and `ssim`; `codes_used`, how many codes there are in
        all images; `perplexity`, e to the entropy of their use: as many codes used alike would have the same.
        """
        counts = torch.zeros(self.config.vq.codebook_size, dtype=torch.int64)
        losses, pictures = [], []
        with eval_mode(self):
            for batch in torch.from_numpy(images).split(batch_size):
                inputs = normalise(batch.to(self.vq.device))
                seen = reconstruct(self.vq, inputs)
                loss = self.distance(seen.pictures, inputs)[0] + self.config.codebook * seen.codebook_loss
                losses.append(loss.item() * len(batch) / len(images))
                pictures.append(to_uint8(seen.pictures))
                counts += torch.bincount(seen.codes.cpu(), minlength=len(counts))
        redrawn = np.concatenate(pictures)
        shares = counts[counts > 0].double() / counts.sum()
        return {
            "loss": sum(losses),
            "psnr": float(psnr(images, redrawn).mean()),
            "ssim": float(ssim(images, redrawn).mean()),
            "codes_used": int((counts > 0).sum()),
            "perplexity": float((-shares * shares.log()).sum().exp()),
        }
