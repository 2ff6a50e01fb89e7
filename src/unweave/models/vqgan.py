"""Training of the VQ first stage: a VQModel with its losses (VQ-GAN, Esser et al. 2021).

    image -> encoder -> latent -> nearest code -> decoder -> picture
    picture, image -> pixel and perceptual distance, and a critic's logits

After training only the VQModel is kept, in a folder that diffusers and `tokenizer.VQ` read.

B batch, C h w latent channels, height, width, K codes, H W image height, width.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unweave.config import VQGANConfig
from unweave.metrics.image_quality import psnr, ssim
from unweave.models.base import Losses, eval_mode
from unweave.models.pixels import normalise, to_uint8
from unweave.models.tokenizer import make_vq
from unweave.nn.critic import PatchCritic, adaptive_weight, frozen, hinge_loss
from unweave.nn.perceptual import Perceptual

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel


class Reconstruction(NamedTuple):
    """Reconstructed images, with their latents, codes and codebook loss."""

    pictures: Tensor
    """(B, 3, H, W), about in [-1, 1]."""
    latents: Tensor
    """(B, C, h, w), before quantisation."""
    codes: Tensor
    """(B h w,) int64: the nearest code of each latent, image by image, row by row."""
    codebook_loss: Tensor
    """The squared distance of latents and codes, as one term that moves the codes and one that moves the latents."""


def reconstruct(vq: "VQModel", images: Tensor) -> Reconstruction:
    """Images (B, 3, H, W) in [-1, 1] through a VQModel, with a straight-through gradient of the quantisation."""
    latents: Tensor = vq.encode(images).latents  # pyright: ignore[reportAttributeAccessIssue]
    quantised, loss, (_, _, codes) = vq.quantize(latents)
    pictures: Tensor = vq.decode(quantised, force_not_quantize=True).sample  # pyright: ignore[reportAttributeAccessIssue]
    return Reconstruction(pictures, latents, codes, loss)


class VQGAN(nn.Module):
    """A VQModel, `vq`, and an optional `critic`, which are trained by one loss.

    One backward pass serves both: the gradient of the adversarial loss passes through the critic but not to its
    weights, and the critic's own loss sees pictures detached from the decoder.
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
        """The loss of a batch (B, 3, H, W) in [-1, 1] at `progress`, 0 to 1, of a run; for training only."""
        # reconstruction and codebook losses
        config = self.config
        if config.revive_after:
            self._revive()
        result = reconstruct(self.vq, images)
        if config.revive_after:
            self._watch(result)
        distance, parts = self.distance(result.pictures, images)
        loss = distance + config.codebook * result.codebook_loss
        parts = {"loss": loss, **parts, "codebook": result.codebook_loss}

        # adversarial loss, and the critic's own
        if self.critic is not None and progress >= config.critic.start:
            adversarial = -frozen(self.critic, result.pictures).mean()
            weight = config.critic.weight * adaptive_weight(distance, adversarial, self.vq.decoder.conv_out.weight)
            critic_loss = hinge_loss(self.critic(images), self.critic(result.pictures.detach()))
            loss = loss + config.critic.factor * (weight * adversarial + critic_loss)
            parts |= {"adversarial": adversarial, "critic_weight": weight, "critic": critic_loss}
        elif self.critic is not None:
            # cheap gradients of 0, because data-parallel training needs one for every weight
            loss = loss + 0 * sum(weight.sum() for weight in self.critic.parameters())
            parts |= dict.fromkeys(("adversarial", "critic_weight", "critic"), torch.zeros_like(loss))
        return Losses(loss, {name: part.detach() for name, part in parts.items()})

    def distance(self, pictures: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Distance of pictures from their images, both (B, 3, H, W) in [-1, 1], and its parts."""
        parts = {"pixel": (pictures - images).abs().mean()}
        total = self.config.pixel * parts["pixel"]
        if self.perceptual is not None:
            parts["perceptual"] = self.perceptual(pictures, images).mean()
            total = total + self.config.perceptual.weight * parts["perceptual"]
        return total, parts

    @torch.no_grad()
    def _revive(self) -> None:
        """Replaces codes that were idle for too long by latents of the last batch.

        Called before the forward pass with buffers, which data-parallel training has just made equal in all processes.
        """
        dead = self.idle >= self.config.revive_after
        self.vq.quantize.embedding.weight[dead] = self.spare[dead]
        self.idle[dead] = 0

    @torch.no_grad()
    def _watch(self, result: Reconstruction) -> None:
        """Counts how long each code was idle, and keeps latents for codes that will be replaced."""
        self.idle += 1
        self.idle[result.codes] = 0
        latents = result.latents.permute(0, 2, 3, 1).flatten(0, 2)  # (B h w, C)
        self.spare.copy_(latents[torch.randint(len(latents), (len(self.spare),), device=latents.device)])

    @torch.no_grad()
    def measure(self, images: np.ndarray, batch_size: int = 64) -> dict[str, float]:
        """Quality of the reconstructions of uint8 images (n, H, W, 3), and use of the codebook.

        `loss` without the critic; mean `psnr` in dB and `ssim` of the pictures; `codes_used`, the number of codes used
        in all images; `perplexity`, e to the entropy of their use, the number of equally used codes of that entropy.
        """
        counts = torch.zeros(self.config.vq.codebook_size, dtype=torch.int64)
        losses, pictures = [], []
        with eval_mode(self):
            for batch in torch.from_numpy(images).split(batch_size):
                inputs = normalise(batch.to(self.vq.device))
                result = reconstruct(self.vq, inputs)
                loss = self.distance(result.pictures, inputs)[0] + self.config.codebook * result.codebook_loss
                losses.append(loss.item() * len(batch) / len(images))
                pictures.append(to_uint8(result.pictures))
                counts += torch.bincount(result.codes.cpu(), minlength=len(counts))
        reconstructed = np.concatenate(pictures)
        shares = counts[counts > 0].double() / counts.sum()
        return {
            "loss": sum(losses),
            "psnr": float(psnr(images, reconstructed).mean()),
            "ssim": float(ssim(images, reconstructed).mean()),
            "codes_used": int((counts > 0).sum()),
            "perplexity": float((-shares * shares.log()).sum().exp()),
        }
