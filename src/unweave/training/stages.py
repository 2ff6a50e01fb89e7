"""What can be trained: the first stage, images to latents, and the second, latents from units; each as the loop of
`train` sees it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from unweave.config import RunConfig, VQRunConfig
from unweave.data.base import ImageSet
from unweave.errors import require
from unweave.models.base import UnitModel, eval_mode, make_model
from unweave.models.folder import save_model
from unweave.models.images import normalise
from unweave.models.tokenizer import VQ, write_vq
from unweave.models.vqgan import VQGAN
from unweave.nn.perceptual import Perceptual
from unweave.training.latents import Latents, cached_latents
from unweave.training.run import Run
from unweave.training.runtime import mix_seed, sum_over_processes

M = TypeVar("M", bound=nn.Module)

NUM_TOKENIZER_IMAGES = 4096
NUM_HELD_OUT_IMAGES = 2048
NUM_REDRAWN_IMAGES = 1000
NUM_AT_ONCE = 512


@dataclass(frozen=True)
class Reader:
    """What a step is given of some rows, by the names that the model's `forward` has for it."""

    dataset: ImageSet
    latents: Latents | None = None

    def __call__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """(b,) -> images uint8 (b, H, W, 3) and, where they are known, their latents float16 (b, C, h, w)."""
        known = {"encoded": self.latents.rows(rows)} if self.latents else {}
        return {"images": self.dataset.images(rows), **known}


class Stage(ABC, Generic[M]):
    """A model with all that its training needs beside the loop.

    `model(images, progress)`, images (B, 3, H, W) in [-1, 1], `progress` the part of the run that is done, gives
    `Losses`; its state is what a checkpoint holds. `averaged` are the parts that have a moving average, under the names
    that they have in checkpoints.
    """

    run: Run
    model: M
    averaged: dict[str, nn.Module]
    fit_every_images: int = 0
    """`fit` is due each time this many images were trained on, and at the end; 0: only then."""

    @abstractmethod
    def start(self) -> str:
        """What a fresh run does once, before the first step; returns a line about it."""

    def reader(self) -> Reader:
        """What reads the images of a step."""
        return Reader(self.run.dataset)

    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """A fresh optimiser of all that is learned; each of its groups has an `lr_ratio`, in units of `train.lr`."""

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


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of some sorted rows, evenly: neighbours in a grid of factors are alike."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)]


def make_stage(run: Run) -> Stage[Any]:
    """The stage that the options of a run describe, with fresh weights."""
    return FirstStage(run, run.config) if isinstance(run.config, VQRunConfig) else UnitStage(run, run.config)


class UnitStage(Stage[UnitModel]):
    """A model with units; a diffusion model is the second stage, on the latents of a frozen tokenizer."""

    def __init__(self, run: Run, config: RunConfig):
        self.run, self.config = run, config
        self.model = make_model(config.model)
        self.model.trained_on = run.trained_on
        self.fit_every_images = self.model.fit_every_images
        networks = self.model.networks()
        self.averaged = {
            name: network for name, network in networks.items() if name != "encoder" or config.train.ema_encoder
        }
        if config.train.compile:
            for network in networks.values():
                network.compile()

    def start(self) -> str:
        """Prepares the model on some of the training images."""
        rows = np.random.default_rng((self.config.train.seed, 3)).permutation(self.run.rows)[:NUM_TOKENIZER_IMAGES]
        return self.model.prepare(normalise(torch.from_numpy(self.run.dataset.images(np.sort(rows)))))

    def reader(self) -> Reader:
        """With the latents, where they are to be encoded only once; that happens here, after the tokenizer has its
        weights."""
        if not self.config.train.cache_latents:
            return super().reader()
        require(
            self.run.trained_on is not None,
            "train.cache_latents is for images of a data set: these were handed over, and nothing names them",
        )
        tokenizer = self.model.tokenizer
        assert isinstance(tokenizer, VQ)  # by RunConfig
        return Reader(self.run.dataset, cached_latents(tokenizer, self.run.dataset, self.config.data, self.run.log))

    def optimizer(self) -> torch.optim.Optimizer:
        options = self.config.train
        groups = self.model.parameter_groups()
        return torch.optim.AdamW(groups, lr=options.lr, weight_decay=options.weight_decay, fused=True)

    @torch.no_grad()
    def fit(self, images: int) -> None:
        """Fits the anchors to the units of (a seeded subset of) the training images, the same in every process."""
        anchors, fabric = self.model.anchors, self.run.fabric
        if not anchors.max_points:
            return
        seed = mix_seed(self.config.train.seed, images)
        rows = self.run.rows
        if len(rows) > anchors.max_points:
            rows = np.sort(np.random.default_rng(seed).choice(rows, anchors.max_points, replace=False))
        mine = rows[fabric.global_rank :: fabric.world_size]
        with eval_mode(self.model):
            parts = [
                self.model.units_of(normalise(torch.from_numpy(self.run.dataset.images(chunk)).to(fabric.device)))
                for chunk in np.array_split(mine, max(1, len(mine) // 512))
            ]
            anchors.fit(torch.cat(parts), self.model.tokens_of, seed=seed, reduce=sum_over_processes(fabric))

    def measure(self) -> dict[str, Any]:
        return {"held_out_loss": self.held_out_loss(), "anchors_alive": self.model.anchors.num_alive.tolist()}

    @torch.no_grad()
    def held_out_loss(self) -> float | None:
        """The loss on images that are never trained on, always the same ones with the same noise; None without any."""
        rows = spread(self.run.held_out, NUM_HELD_OUT_IMAGES)
        if len(rows) == 0:
            return None
        total = 0.0
        with eval_mode(self.model), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.train.seed)
            for chunk in np.array_split(rows, -(-len(rows) // NUM_AT_ONCE)):
                images = torch.from_numpy(self.run.dataset.images(chunk)).to(self.run.fabric.device)
                with self.run.fabric.autocast():
                    total += float(self.model(normalise(images)).total) * len(chunk)
        return total / len(rows)

    def note(self, line: dict[str, Any]) -> str:
        pull = f"  lambda {line['lambda']:.4f}" if "lambda" in line else ""
        return f"loss {line['loss']:.4f}{pull}"

    def save(self, folder: Path, history: dict[str, Any]) -> None:
        """Writes the model folder, see `models.folder`."""
        self.model.history = history
        save_model(self.model, folder)


class FirstStage(Stage[VQGAN]):
    """A VQModel and its critic."""

    def __init__(self, run: Run, config: VQRunConfig):
        self.run, self.config = run, config
        files = config.model.perceptual
        perceptual = None
        if files.weight and files.backbone:
            perceptual = Perceptual.read(Path(files.backbone), Path(files.heads), run.fabric.device)
        self.model = VQGAN(config.model, perceptual)
        self.averaged = {"vq": self.model.vq}

    def start(self) -> str:
        """Nothing is fitted: says what losses the pictures."""
        config = self.config.model
        losses = ["pixels"] if config.pixel else []
        losses += ["VGG16's features"] if self.model.perceptual else []
        losses += ["a critic"] if self.model.critic else []
        missing = config.perceptual.weight and not self.model.perceptual
        without = "; without a perceptual distance, as --model.perceptual.backbone names no file" if missing else ""
        return f"training a VQModel by {', '.join(losses)}{without}"

    def optimizer(self) -> torch.optim.Optimizer:
        """The published two, Adam(0.5, 0.9) of VQModel and critic, as one with two groups."""
        groups = [{"params": [*self.model.vq.parameters()], "lr_ratio": 1.0}]
        if self.model.critic:
            groups.append({"params": [*self.model.critic.parameters()], "lr_ratio": self.config.model.critic.lr_ratio})
        return torch.optim.Adam(groups, lr=self.config.train.lr, betas=(0.5, 0.9), fused=True)

    def measure(self) -> dict[str, Any]:
        """How well images that are never trained on come back, and by how many codes: see `VQGAN.measure`."""
        without = {} if self.model.perceptual else {"perceptual": None}
        rows = self.run.held_out
        if len(rows) == 0:
            return without
        found = self.model.measure(self.run.dataset.images(spread(rows, NUM_REDRAWN_IMAGES)))
        return {**without, "held_out_loss": found.pop("loss"), **found}

    def note(self, line: dict[str, Any]) -> str:
        redrawn = f"  PSNR {line['psnr']:.1f} dB  {line['codes_used']} codes" if "psnr" in line else ""
        return f"loss {line['loss']:.4f}{redrawn}"

    def save(self, folder: Path, history: dict[str, Any]) -> None:
        """Writes the VQModel's folder, as diffusers and the vq tokenizer read it; its history is the run's record."""
        del history
        write_vq(self.model.vq, folder)
