"""What can be trained: the first stage, images to latents, and the second, latents from units; each as the loop of
`train` sees it."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from unweave.config import LoopConfig, RunConfig, VQRunConfig
from unweave.models.base import evaluating
from unweave.models.diffusion import DiffusionModel
from unweave.models.folder import save_model
from unweave.models.images import normalise
from unweave.models.tokenizer import write_vq
from unweave.models.vqgan import VQGAN
from unweave.nn.perceptual import Perceptual
from unweave.run import Run
from unweave.runtime import mix_seed, sum_over_processes

M = TypeVar("M", bound=nn.Module)

NUM_TOKENIZER_IMAGES = 4096
NUM_HELD_OUT_IMAGES = 512
NUM_REDRAWN_IMAGES = 1000


def crosses(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return before // every != after // every


def learning_rate(options: LoopConfig, images: int) -> float:
    """That of the step that follows `images` images: it rises to `lr`, stays, and falls to 0 at the end."""
    warm = (images + options.batch_size) / max(options.warmup_images, 1)
    left = (options.images - images) / max(options.cooldown * options.images, 1)
    return options.lr * min(1.0, warm, left)


class Stage(ABC, Generic[M]):
    """A model with all that its training needs beside the loop.

    `model(images)`, images (B, 3, H, W) in [-1, 1], gives `Losses`; its state is what a checkpoint holds. `averaged`
    are the parts that have a moving average, under the names that they have in checkpoints.
    """

    model: M
    averaged: dict[str, nn.Module]

    @abstractmethod
    def start(self) -> str:
        """What a fresh run does once, before the first step; returns a line about it."""

    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """A fresh optimiser of all that is learned."""

    @abstractmethod
    def schedule(self, optimizer: torch.optim.Optimizer, images: int) -> None:
        """Sets what depends on the images seen, before the step that follows them."""

    def fits(self, before: int, after: int) -> bool:
        """Whether `fit` is due once the images seen have grown from `before` to `after`; it always is at the end."""
        del before, after
        return False

    def fit(self, images: int) -> None:
        """Sets, from the training images, what is not learned by gradients; in every process."""
        del images

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """What a line of the record says beside the losses of its steps; in the first process only."""

    @abstractmethod
    def note(self, line: dict[str, Any]) -> str:
        """A line of the record in a few words."""

    @abstractmethod
    def save(self, folder: Path, history: dict[str, Any]) -> None:
        """Writes the model as it is used after training."""


def make_stage(run: Run) -> Stage[Any]:
    """The stage that the options of a run describe, with fresh weights."""
    return FirstStage(run, run.config) if isinstance(run.config, VQRunConfig) else SecondStage(run, run.config)


class SecondStage(Stage[DiffusionModel]):
    """Units and denoiser, on the latents of a frozen tokenizer (method section 1.2)."""

    def __init__(self, run: Run, config: RunConfig):
        self.run, self.config = run, config
        self.model = DiffusionModel(config.model)
        self.model.trained_on = run.trained_on
        self.averaged = {"denoiser": self.model.denoiser}
        if config.train.ema_encoder:
            self.averaged["encoder"] = self.model.encoder
        if config.train.compile:
            self.model.encoder.compile()
            self.model.denoiser.compile()

    def start(self) -> str:
        """Fits the tokenizer."""
        rows = np.random.default_rng((self.config.train.seed, 3)).permutation(self.run.rows)[:NUM_TOKENIZER_IMAGES]
        return self.model.tokenizer.fit(normalise(torch.from_numpy(self.run.dataset.images(np.sort(rows)))))

    def optimizer(self) -> torch.optim.Optimizer:
        options = self.config.train
        learned = [*self.model.encoder.parameters(), *self.model.denoiser.parameters()]
        return torch.optim.AdamW(learned, lr=options.lr, weight_decay=options.weight_decay, fused=True)

    def schedule(self, optimizer: torch.optim.Optimizer, images: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.config.train, images)

    def fits(self, before: int, after: int) -> bool:
        return crosses(before, after, self.config.model.anchors.fit_every_images)

    @torch.no_grad()
    def fit(self, images: int) -> None:
        """Fits the anchors to the units of (a seeded subset of) the training images, the same in every process."""
        config, fabric = self.config.model.anchors, self.run.fabric
        if config.mode == "off":
            return
        seed = mix_seed(self.config.train.seed, images)
        rows = self.run.rows
        if len(rows) > config.max_points:
            rows = np.sort(np.random.default_rng(seed).choice(rows, config.max_points, replace=False))
        mine = rows[fabric.global_rank :: fabric.world_size]
        encoder = self.model.encoder
        with evaluating(self.model):
            parts = [
                encoder.scalars(normalise(torch.from_numpy(self.run.dataset.images(chunk)).to(fabric.device)))
                for chunk in np.array_split(mine, max(1, len(mine) // 512))
            ]
            self.model.anchors.fit(torch.cat(parts), encoder.tokens, seed=seed, reduce=sum_over_processes(fabric))

    def measure(self) -> dict[str, Any]:
        return {"held_out_loss": self.held_out_loss(), "anchors_alive": self.model.anchors.num_alive.tolist()}

    @torch.no_grad()
    def held_out_loss(self) -> float | None:
        """The loss on images that are never trained on, always the same ones with the same noise; None without any."""
        rows = self.run.held_out[:NUM_HELD_OUT_IMAGES]
        if len(rows) == 0:
            return None
        with evaluating(self.model), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.train.seed)
            images = torch.from_numpy(self.run.dataset.images(rows)).to(self.run.fabric.device)
            with self.run.fabric.autocast():
                return float(self.model(normalise(images)).total)

    def note(self, line: dict[str, Any]) -> str:
        return f"loss {line['loss']:.4f}  lambda {line['lambda']:.4f}"

    def save(self, folder: Path, history: dict[str, Any]) -> None:
        """Writes the model folder, see `models.folder`."""
        self.model.history = history
        save_model(self.model, folder)


class FirstStage(Stage[VQGAN]):
    """A VQModel and its critic (method section 1.1)."""

    def __init__(self, run: Run, config: VQRunConfig):
        self.run, self.config = run, config
        files = config.model.perceptual
        perceptual = None
        if files.weight and files.backbone:
            perceptual = Perceptual.read(Path(files.backbone), Path(files.heads), run.fabric.device)
        self.model = VQGAN(config.model, perceptual)
        self.averaged = {"vq": self.model.vq}

    def start(self) -> str:
        """Nothing is fitted: says what judges the pictures."""
        config = self.config.model
        judges = ["pixels"] if config.pixel else []
        judges += ["VGG16's features"] if self.model.perceptual else []
        judges += ["a critic"] if self.model.critic else []
        missing = config.perceptual.weight and not self.model.perceptual
        without = "; without a perceptual distance, as --model.perceptual.backbone names no file" if missing else ""
        return f"training a VQModel by {', '.join(judges)}{without}"

    def optimizer(self) -> torch.optim.Optimizer:
        """The published two, Adam(0.5, 0.9) of VQModel and critic, as one with two groups."""
        groups = [{"params": [*self.model.vq.parameters()], "ratio": 1.0}]
        if self.model.critic:
            groups.append({"params": [*self.model.critic.parameters()], "ratio": self.config.model.critic.lr_ratio})
        return torch.optim.Adam(groups, lr=self.config.train.lr, betas=(0.5, 0.9), fused=True)

    def schedule(self, optimizer: torch.optim.Optimizer, images: int) -> None:
        """Sets the learning rates, and whether the critic counts yet."""
        for group in optimizer.param_groups:
            group["lr"] = group["ratio"] * learning_rate(self.config.train, images)
        critic = self.config.model.critic
        self.model.critic_factor = critic.factor if images >= critic.start_images else 0.0

    def measure(self) -> dict[str, Any]:
        """How well images that are never trained on come back, and by how many codes: see `VQGAN.measure`."""
        without = {} if self.model.perceptual else {"perceptual": None}
        rows = self.run.held_out
        if len(rows) == 0:
            return without
        chosen = np.linspace(0, len(rows) - 1, min(NUM_REDRAWN_IMAGES, len(rows))).astype(np.int64)
        found = self.model.measure(self.run.dataset.images(rows[chosen]))
        return {**without, "held_out_loss": found.pop("loss"), **found}

    def note(self, line: dict[str, Any]) -> str:
        redrawn = f"  PSNR {line['psnr']:.1f} dB  {line['codes_used']} codes" if "psnr" in line else ""
        return f"loss {line['loss']:.4f}{redrawn}"

    def save(self, folder: Path, history: dict[str, Any]) -> None:
        """Writes the VQModel's folder, as diffusers and the vq tokenizer read it; its history is the run's record."""
        del history
        write_vq(self.model.vq, folder)
