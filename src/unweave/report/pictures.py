"""The pictures of a run: what its units keep of an image, and what each does."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unweave.config import Sampling
from unweave.data import open_dataset
from unweave.data.base import ImageSet
from unweave.errors import require
from unweave.export import data_config
from unweave.models.diffusion import DiffusionModel
from unweave.models.folder import load
from unweave.record import Display, say
from unweave.report.figures import image_grid
from unweave.report.summary import unit_labels
from unweave.runtime import device as device_of
from unweave.sample import reconstruct, swap, traverse, unit_range

NUM_RANGE_IMAGES = 2048


@dataclass(frozen=True)
class Studio:
    """A model, its data and the way to sample from it."""

    model: DiffusionModel
    dataset: ImageSet
    labels: list[str]
    sampling: Sampling

    @classmethod
    def open(cls, run: str, data: str, device: str, sampling: Sampling) -> "Studio":
        """Opens a run, model folder or bundled model with the data that it was trained on."""
        model = load(run, device_of(device))
        dataset = open_dataset(data_config(model, data), model.config.image_size, say)
        labels = unit_labels(read_results(Path(run), model), model.config.encoder.num_units)
        return cls(model, dataset, labels, sampling)

    def draw_images(self, num: int, stream: int) -> np.ndarray:
        """Some images of the data set, chosen under the seed."""
        require(num >= 1, f"{num} images: need at least 1")
        rows = np.random.default_rng((self.sampling.seed, stream)).integers(len(self.dataset), size=num)
        return self.dataset.images(rows)

    def reconstructions(self, folder: Path, num: int = 10) -> Path:
        """Images above what the units keep of them."""
        images = self.draw_images(num, 0)
        pictures = np.stack([images, reconstruct(self.model, images, self.sampling)])
        return image_grid(
            pictures,
            folder / "reconstructions.png",
            "Reconstructions",
            "The lower row is drawn from the units of the image above it alone, all from one noise: "
            "what differs, the units do not hold.",
            rows=("image", "from its units"),
        )

    def swaps(self, folder: Path, num: int = 6, inverted: bool = False) -> Path:
        """Pairs of images, and the first of each with one unit at a time exchanged for the second's."""
        source, target = self.draw_images(num, 1), self.draw_images(num, 2)
        total = num * (self.model.config.encoder.num_units + 2)
        with Display("swapping", total, "images") as display:
            drawn = swap(self.model, source, target, self.sampling, inverted, display.update)
        return image_grid(
            np.concatenate([source[:, None], target[:, None], drawn], axis=1),
            folder / "swap.png",
            "Swaps",
            "Right of the gap: the source with one unit taken from the target, all from "
            f"{'the noise of the source' if inverted else 'one noise'}. A good unit changes one thing.",
            columns=["source", "target", "source\nredrawn", "target\nredrawn", *self.labels],
            gap_after=4,
        )

    def traversals(self, folder: Path, columns: int = 9) -> Path:
        """One image with each unit moved over the range that it has in the data."""
        require(columns >= 2, f"columns is {columns}: need at least 2")
        image = self.draw_images(1, 3)[0]
        num = min(NUM_RANGE_IMAGES, len(self.dataset))
        rows = np.random.default_rng((self.sampling.seed, 4)).choice(len(self.dataset), num, replace=False)
        values = unit_range(self.model.scalars(self.dataset.images(np.sort(rows))), columns)
        with Display("traversing", values.size, "images") as display:
            drawn = traverse(self.model, image, values, self.sampling, progress=display.update)
        return image_grid(
            drawn,
            folder / "traversals.png",
            "Traversals",
            "One image, one unit a row moved from its lowest to its highest usual value. A good row changes one thing.",
            rows=[label.replace("\n", ": ") for label in self.labels],
        )


def read_results(folder: Path, model: DiffusionModel) -> dict[str, Any] | None:
    """The results beside a run, where there are some and they are of this model as it stands."""
    try:
        results = json.loads((folder / "results.json").read_text())
    except (OSError, ValueError):
        return None
    return results if results.get("history") == model.history else None
