"""The pictures of a run: what its units keep of an image, what each does, and where their anchors lie."""

import base64
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from unweave.config import Sampling
from unweave.data import open_dataset
from unweave.data.base import ImageSet
from unweave.errors import require
from unweave.evaluation.encode import data_config
from unweave.explore import (
    anchor_means,
    anchor_members,
    attention,
    exchange_unit,
    reconstruct,
    swap,
    traverse,
    unit_range,
)
from unweave.metrics.information import as_labels, binned, mutual_information
from unweave.metrics.inputs import classes
from unweave.models.base import Codes, UnitModel, find_device
from unweave.models.folder import home, load, read_results
from unweave.record import Display, log
from unweave.report.anchors import (
    GREY,
    AnchoredUnit,
    Colour,
    Colouring,
    Row,
    anchors_figure,
    colour,
    map_figure,
    plane,
)
from unweave.report.figures import attention_grid, image_grid, moving_grid, wrapped

NUM_SAMPLE = 2048
MOST_ANCHORS = 8  # pictures of a unit's anchors
MOST_FACTORS = 7  # panels of a map besides that of the anchors
LETTERS = 11  # of a line at the head of a column
HELD = 0.2  # of a factor's importance: less is no reason to call a unit by it
ENDS = 0.05  # part of the images at either end of a unit's range


class Picture(NamedTuple):
    """A picture in a file, and the words about it."""

    path: Path
    title: str
    caption: str
    """What is seen, and what to look for."""
    alt: str
    """What is seen, for those who do not see it."""


class Sample(NamedTuple):
    """Some images of a data set, as numbers: their codes, and their factors (n, F)."""

    codes: Codes
    factors: np.ndarray


@dataclass(frozen=True)
class Explorer:
    """A model, its data and the way to sample from it."""

    model: UnitModel
    dataset: ImageSet
    labels: list[str]
    sampling: Sampling
    captions: bool = True
    """Whether a picture has its title and caption on it."""

    @classmethod
    def open(cls, run: str, data: str, device: str, sampling: Sampling) -> "Explorer":
        """Opens a run, model folder or bundled model with the data that it was trained on, or that `data` names."""
        model = load(run, find_device(device))
        dataset = open_dataset(data_config(model, data), model.config.image_size, log)
        return cls(model, dataset, unit_labels(model, read_results(home(run), model)), sampling)

    def draw_images(self, num: int, stream: int) -> np.ndarray:
        """Some images of the data set, chosen under the seed."""
        require(num >= 1, f"{num} images: need at least 1")
        rows = np.random.default_rng((self.sampling.seed, stream)).integers(len(self.dataset), size=num)
        return self.dataset.images(rows)

    @cached_property
    def sample(self) -> Sample:
        """Some thousand images, different ones, to say what is usual."""
        num = min(NUM_SAMPLE, len(self.dataset))
        rows = np.sort(np.random.default_rng((self.sampling.seed, 4)).choice(len(self.dataset), num, replace=False))
        return Sample(self.model.encode(self.dataset.images(rows)), self.dataset.factors(rows))

    def reconstructions(self, folder: Path, num: int = 10) -> Picture:
        """Images above what the units keep of them."""
        images = self.draw_images(num, 0)
        drawn = np.stack([images, reconstruct(self.model, images, self.sampling)])
        picture = Picture(
            folder / "reconstructions.png",
            "Reconstructions",
            f"The lower row is drawn from the units of the image above it alone{self._from('the same noise')}. The "
            "units do not hold what differs.",
            f"Two rows of {num}: images of the data, and below each its reconstruction from its units.",
        )
        image_grid(drawn, picture.path, *self._head(picture), rows=("image", "from its units"))
        return picture

    def swaps(self, folder: Path, num: int = 6, inverted: bool = False) -> Picture:
        """Pairs of images, and the first of each with one unit at a time exchanged for the second's."""
        source, target = self.draw_images(num, 1), self.draw_images(num, 2)
        num_units = self.model.num_units
        with Display("swapping", num * (num_units + 2), "images") as display:
            drawn = swap(self.model, source, target, self.sampling, inverted, display.update)
        picture = Picture(
            folder / "swap.png",
            "Swaps",
            "Right of the gap: the source with one unit taken from the target"
            f"{self._from('its own noise' if inverted else 'the same noise')}. A good unit changes one thing.",
            f"A grid of {num} rows: source, target, their reconstructions, and a column for each of {num_units} units.",
        )
        image_grid(
            np.concatenate([source[:, None], target[:, None], drawn], axis=1),
            picture.path,
            *self._head(picture),
            columns=["source", "target", "source from\nits units", "target from\nits units", *self._columns],
            gap_after=4,
        )
        return picture

    def traversals(self, folder: Path, columns: int = 9) -> Picture:
        """One image with each unit moved over the range that it has in the data; beside the sheet, a GIF that moves."""
        require(columns >= 2, f"columns is {columns}: need at least 2")
        image = self.draw_images(1, 3)[0]
        values = unit_range(self.sample.codes.scalars, columns)
        with Display("traversing", values.size, "images") as display:
            drawn = traverse(self.model, image, values, self.sampling, display.update)
        picture = Picture(
            folder / "traversals.png",
            "Traversals",
            "One image, one unit a row moved from its lowest to its highest usual value. A good row changes one thing.",
            f"A grid of {len(drawn)} rows, one for each unit, and {columns} columns, one for each of its values.",
        )
        image_grid(drawn, picture.path, *self._head(picture), rows=self._rows)
        moving_grid(drawn, picture.path.with_suffix(".gif"), self.labels)
        return picture

    def anchors(self, folder: Path) -> Picture:
        """Each unit's scalar over the data with its Gaussians, and one image at each anchor."""
        image, codes = self.draw_images(1, 3), self.sample.codes
        laws = self.model.anchors.on_scalars
        units = []
        for unit, label in enumerate(self._rows):
            means = anchor_means(self.model, unit)
            shown = np.unique(np.linspace(0, len(means) - 1, min(len(means), MOST_ANCHORS)).round().astype(int))
            drawn = exchange_unit(self.model, image, unit, means[shown], self.sampling)[0]
            gaussians = None if laws is None else np.stack([part[unit].cpu().numpy() for part in laws])
            units.append(
                AnchoredUnit(label, codes.scalars[:, unit], codes.anchors[:, unit], gaussians, shown.tolist(), drawn)
            )
        picture = Picture(
            folder / "anchors.png",
            "Anchors",
            f"Left, each unit's scalar over {len(codes.scalars):,} images, in the colours of their anchors, with the "
            f"Gaussians as lines. Right, one image with the unit at each anchor's mean, framed in its colour (at most "
            f"{MOST_ANCHORS}). A good unit has a hump for each value of its factor, and pictures that differ in one "
            "thing.",
            f"A row for each of {len(units)} units: a histogram of its scalar, and a picture for each of its anchors.",
        )
        anchors_figure(units, picture.path, *self._head(picture))
        return picture

    def attention(self, folder: Path, num: int = 4) -> Picture:
        """Images, and the attention maps of each unit while they are drawn."""
        images = self.draw_images(num, 0)
        with Display("watching", num, "images") as display:
            maps = attention(self.model, images, self.sampling, display.update)
        size = self.model.latent_shape[-1]
        picture = Picture(
            folder / "attention.png",
            "Attention",
            f"How much each of {size} x {size} places attends to a unit, averaged over heads, layers and sampling "
            f"steps: clear is 0, the darkest red three times an equal share, 1 / {maps.shape[1]}, or more. A unit that "
            "holds one thing is red where that thing is.",
            f"A grid of {num} rows: an image, and over it in grey a heat map for each of {maps.shape[1]} units.",
        )
        attention_grid(images, maps, picture.path, *self._head(picture), self._columns)
        return picture

    def figure1(self, folder: Path, unit: int, method: Literal["pca", "pacmap"] = "pca", num: int = 8) -> Picture:
        """The tokens of a unit as a map, coloured by anchor and factors, and images drawn with tokens of two groups."""
        self.model.anchors.require_unit(unit)
        codes, factors = self.sample
        points, what = plane(codes.aligned[:, unit], method, self.sampling.seed)
        held = self._factors_held_by(unit)
        colourings = [
            Colouring("anchor", codes.anchors[:, unit], ordered=False),
            *(Colouring(self.dataset.factor_names[column], factors[:, column]) for column in held),
        ]
        images = self.draw_images(num, 5)
        names, tokens, colours = zip(*self._two_groups(unit))
        drawn = exchange_unit(self.model, images, unit, np.stack(tokens), self.sampling)  # (num, 2, H, W, 3)
        rows = [Row(name, drawn[:, place], colours[place]) for place, name in enumerate(names)]
        caption = [
            f"Each point is the token of one of {len(points):,} images, {what}, moved a little at random so that those "
            "below can be seen.",
            "Where a unit holds a factor, the factor's colours are separate; colours of other factors are mixed."
            if held
            else "",
            f"Shown are the {len(held)} factors that it has most information about."
            if len(held) < factors.shape[1]
            else "",
            "Below, images, and the same with one token of the unit for all: the unit holds what is common to a row "
            "and differs between the two.",
        ]
        picture = Picture(
            folder / f"figure1-unit{unit}.png",
            self.labels[unit].replace("_", " ").replace("\n", ": ").capitalize(),
            " ".join(filter(None, caption)),
            f"The tokens of unit {unit} as points in {len(colourings)} panels, coloured by anchor and by factors; "
            f"below, {num} images with two tokens.",
        )
        map_figure(points, colourings, [Row("image", images), *rows], picture.path, *self._head(picture))
        return picture

    def _from(self, noise: str) -> str:
        """What all pictures are drawn from, for captions; nothing for a model that needs no noise."""
        return f", all from {noise}" if np.prod(self.model.latent_shape) else ""

    def _head(self, picture: Picture) -> tuple[str, str]:
        """What is written above a picture."""
        return (picture.title, picture.caption) if self.captions else ("", "")

    def _two_groups(self, unit: int) -> list[tuple[str, np.ndarray, Colour]]:
        """A name, a token and a colour of a unit's two largest anchors; of the ends of its range if it has but one."""
        codes = self.sample.codes
        anchors, sizes = np.unique(codes.anchors[:, unit], return_counts=True)
        if len(anchors) > 1:
            largest = sorted(anchors[np.argsort(-sizes, kind="stable")[:2]].tolist())
            tokens = [anchor_members(codes, unit, anchor, 1, self.sampling.seed)[0] for anchor in largest]
            return [(f"anchor {anchor}", token, colour(anchor)) for anchor, token in zip(largest, tokens)]
        order = codes.scalars[:, unit].argsort()
        low, high = order[int(ENDS * len(order))], order[int((1 - ENDS) * (len(order) - 1))]
        return [("low end", codes.aligned[low, unit], GREY), ("high end", codes.aligned[high, unit], GREY)]

    def _factors_held_by(self, unit: int) -> list[int]:
        """The columns of the factors to show: all, or those that the unit has most information about."""
        codes, factors = self.sample
        if factors.shape[1] <= MOST_FACTORS:
            return list(range(factors.shape[1]))
        labels = as_labels(classes(factors, len(factors))[0])
        information = mutual_information(binned(codes.scalars[:, [unit]].astype(np.float64)), labels)[0]
        return np.argsort(-information, kind="stable")[:MOST_FACTORS].tolist()

    @property
    def _columns(self) -> list[str]:
        """The labels as heads of columns."""
        return [wrapped(label, LETTERS) for label in self.labels]

    @property
    def _rows(self) -> list[str]:
        """The labels as heads of rows."""
        return [wrapped(label.replace("\n", ": "), 2 * LETTERS) for label in self.labels]


def png_address(png: bytes) -> str:
    """A data URI, an address that has the picture in it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def unit_labels(model: UnitModel, results: dict[str, Any] | None) -> list[str]:
    """`unit 3`, and below it the name that it was given, else the factor that it matters most for, where it matters."""
    found = dict.fromkeys(range(model.num_units), "")
    if results is not None:
        for unit, row in enumerate(np.array(results["scores"]["importance"])):
            factor = int(row.argmax())
            found[unit] = results["data"]["factor_names"][factor] if row[factor] >= HELD else ""
    found |= model.unit_names
    return [f"unit {unit}\n{text}".strip() for unit, text in found.items()]
