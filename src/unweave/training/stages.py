"""The two stages of training, as the training loop sees them: the first stage (images to latents), and models with
units, among them the second stage (latents from units)."""

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
from unweave.models.pixels import normalise
from unweave.models.tokenizer import VQ, write_vq
from unweave.models.vqgan import VQGAN
from unweave.nn.perceptual import Perceptual
from unweave.training.latents import Latents, cached_latents
from unweave.training.run import Run
from unweave.training.runtime import mix_seed, sum_over_processes

M = TypeVar("M", bound=nn.Module)

NUM_TOKENIZER_IMAGES = 4096
NUM_HELD_OUT_IMAGES = 2048
NUM_RECONSTRUCTED_IMAGES = 1000
NUM_AT_ONCE = 512


@dataclass(frozen=True)
class Reader:
    """Reads the inputs of a step, under the names of the arguments of the model's `forward`."""

    dataset: ImageSet
    latents: Latents | None = None

    def __call__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """(b,) -> images uint8 (b, H, W, 3) and, if they are cached, their latents float16 (b, C, h, w)."""
        encoded = {"encoded": self.latents.rows(rows)} if self.latents else {}
        return {"images": self.dataset.images(rows), **encoded}


class Stage(ABC, Generic[M]):
    """A model with all that its training needs beside the loop.

    `model(images, progress)` returns `Losses` for images (B, 3, H, W) in [-1, 1] at `progress`, 0 to 1, of the run;
    checkpoints have its state. `averaged` are the parts with a moving average, under their names in checkpoints.
    """

    run: Run
    model: M
    averaged: dict[str, nn.Module]
    fit_every_images: int = 0
    """`fit` is called every time this many images have been trained on, and at the end; 0: at the end only."""

    @abstractmethod
    def start(self) -> str:
        """Called once in a new run, before the first step; returns a line for the log."""

    def reader(self) -> Reader:
        """Reads the images of a step."""
        return Reader(self.run.dataset)

    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """A new optimiser of all trained weights; each of its groups has an `lr_ratio`, in units of `train.lr`."""

    def fit(self, images: int) -> None:
        """Fits, to the training images, what is not learned by gradients; called in every process."""
        del images

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """Further values of a line of the record, beside the losses of its steps; in the first process only."""

    @abstractmethod
    def note(self, line: dict[str, Any]) -> str:
        """The main values of a line of the record, for the progress bar."""

    @abstractmethod
    def save(self, folder: Path, history: dict[str, Any]) -> None:
        """Writes the model for use after training."""


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of some sorted rows, evenly spaced, because neighbours in a grid of factors are similar."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)]


def make_stage(run: Run) -> Stage[Any]:
    """The stage for the options of a run, with initial weights."""
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
        """With `train.cache_latents` reads latents too. They are encoded here, when the tokenizer has its weights.
        Raises `UserError` for images in memory."""
        if not self.config.train.cache_latents:
            return super().reader()
        require(
            self.run.trained_on is not None,
            "train.cache_latents needs images of a data set: these are in memory and have no name",
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
        """Fits the anchors to the units of (a random subset of) the training images, the same in every process."""
        # this process's share of the images
        anchors, fabric = self.model.anchors, self.run.fabric
        if not anchors.max_points:
            return
        seed = mix_seed(self.config.train.seed, images)
        rows = self.run.rows
        if len(rows) > anchors.max_points:
            rows = np.sort(np.random.default_rng(seed).choice(rows, anchors.max_points, replace=False))
        share = rows[fabric.global_rank :: fabric.world_size]

        # encode them and fit
        with eval_mode(self.model):
            parts = [
                self.model.units_of(normalise(torch.from_numpy(self.run.dataset.images(chunk)).to(fabric.device)))
                for chunk in np.array_split(share, max(1, len(share) // 512))
            ]
            anchors.fit(torch.cat(parts), self.model.tokens_of, seed=seed, reduce=sum_over_processes(fabric))

    def measure(self) -> dict[str, Any]:
        return {"held_out_loss": self.held_out_loss(), "anchors_alive": self.model.anchors.num_alive.tolist()}

    @torch.no_grad()
    def held_out_loss(self) -> float | None:
        """The loss on held-out images, always the same ones with the same noise; None without any."""
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
        weight = f"  lambda {line['lambda']:.4f}" if "lambda" in line else ""
        return f"loss {line['loss']:.4f}{weight}"

    def save(self, folder: Path, history: dict[str, Any]) -> None:
        """Writes the model folder, see `models.folder`."""
        self.model.history = history
        save_model(self.model, folder)


class FirstStage(Stage[VQGAN]):
    """A VQModel and its critic (VQ-GAN, Esser et al. 2021)."""

    def __init__(self, run: Run, config: VQRunConfig):
        self.run, self.config = run, config
        files = config.model.perceptual
        perceptual = None
        if files.weight and files.backbone:
            perceptual = Perceptual.read(Path(files.backbone), Path(files.heads), run.fabric.device)
        self.model = VQGAN(config.model, perceptual)
        self.averaged = {"vq": self.model.vq}

    def start(self) -> str:
        """Fits nothing; the line has the losses."""
        config = self.config.model
        losses = ["pixels"] if config.pixel else []
        losses += ["VGG16's features"] if self.model.perceptual else []
        losses += ["a critic"] if self.model.critic else []
        missing = config.perceptual.weight and not self.model.perceptual
        without = "; without a perceptual loss, because --model.perceptual.backbone names no file" if missing else ""
        return f"training a VQModel with the losses of {', '.join(losses)}{without}"

    def optimizer(self) -> torch.optim.Optimizer:
        """The two published optimisers, Adam(0.5, 0.9) of VQModel and critic, as one with two groups."""
        groups = [{"params": [*self.model.vq.parameters()], "lr_ratio": 1.0}]
        if self.model.critic:
            groups.append({"params": [*self.model.critic.parameters()], "lr_ratio": self.config.model.critic.lr_ratio})
        return torch.optim.Adam(groups, lr=self.config.train.lr, betas=(0.5, 0.9), fused=True)

    def measure(self) -> dict[str, Any]:
        """Quality of the reconstructions of held-out images, and use of the codebook, see `VQGAN.measure`."""
        without = {} if self.model.perceptual else {"perceptual": None}
        rows = self.run.held_out
        if len(rows) == 0:
            return without
        values = self.model.measure(self.run.dataset.images(spread(rows, NUM_RECONSTRUCTED_IMAGES)))
        return {**without, "held_out_loss": values.pop("loss"), **values}

    def note(self, line: dict[str, Any]) -> str:
        quality = f"  PSNR {line['psnr']:.1f} dB  {line['codes_used']} codes" if "psnr" in line else ""
        return f"loss {line['loss']:.4f}{quality}"

    def save(self, folder: Path, history: dict[str, Any]) -> None:
        """Writes a folder that diffusers and the vq tokenizer read; it has no history beside the run's record."""
        del history
        write_vq(self.model.vq, folder)
