"""The pictures of a run: reconstructions, swaps, traversals, anchors, attention maps, and the paper's figure 1."""

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
from unweave.metrics.information import binned, mutual_information
from unweave.metrics.inputs import as_labels, classes
from unweave.models.base import Codes, UnitModel, find_device
from unweave.models.folder import home, load, read_results
from unweave.record import Display, log
from unweave.report.anchor_figures import (
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
MOST_FACTORS = 7  # panels of a map beside that of the anchors
LETTERS = 11  # in a line of a column's title
HELD = 0.2  # least importance of a factor for a unit that is labelled with it
ENDS = 0.05  # fraction of the images at either end of a unit's range


class Picture(NamedTuple):
    """A picture in a file, with its texts."""

    path: Path
    title: str
    caption: str
    """What the picture shows, and what to look for."""
    alt: str
    """A description for readers who cannot see the picture."""


class Sample(NamedTuple):
    """The codes and factors (n, F) of some images of a data set."""

    codes: Codes
    factors: np.ndarray


@dataclass(frozen=True)
class Explorer:
    """A model, its data and the sampling options; draws their pictures."""

    model: UnitModel
    dataset: ImageSet
    labels: list[str]
    sampling: Sampling
    captions: bool = True
    """Whether a picture includes its title and caption."""

    @classmethod
    def open(cls, run: str, data: str, device: str, sampling: Sampling) -> "Explorer":
        """Opens a run, model folder or bundled model with its training data, or with the set or path `data`."""
        model = load(run, find_device(device))
        dataset = open_dataset(data_config(model, data), model.config.image_size, log)
        return cls(model, dataset, unit_labels(model, read_results(home(run), model)), sampling)

    def draw_images(self, num: int, stream: int) -> np.ndarray:
        """Random images (num, H, W, 3) of the data set; different streams draw independently from one seed."""
        require(num >= 1, f"{num} images: need at least 1")
        rows = np.random.default_rng((self.sampling.seed, stream)).integers(len(self.dataset), size=num)
        return self.dataset.images(rows)

    @cached_property
    def sample(self) -> Sample:
        """Some thousand different images, for the distributions of the units."""
        num = min(NUM_SAMPLE, len(self.dataset))
        rows = np.sort(np.random.default_rng((self.sampling.seed, 4)).choice(len(self.dataset), num, replace=False))
        return Sample(self.model.encode(self.dataset.images(rows)), self.dataset.factors(rows))

    def reconstructions(self, folder: Path, num: int = 10) -> Picture:
        """Images, and below each its reconstruction from its units."""
        images = self.draw_images(num, 0)
        drawn = np.stack([images, reconstruct(self.model, images, self.sampling)])
        picture = Picture(
            folder / "reconstructions.png",
            "Reconstructions",
            f"The lower row is generated from the units of the images above{self._from('the same noise')}. The units "
            "do not hold what differs.",
            f"Two rows of {num}: images of the data, and below each its reconstruction from its units.",
        )
        image_grid(drawn, picture.path, *self._head(picture), rows=("image", "from its units"))
        return picture

    def swaps(self, folder: Path, num: int = 6, inverted: bool = False) -> Picture:
        """Pairs of images, and the first of each with each unit in turn exchanged for the second's."""
        source, target = self.draw_images(num, 1), self.draw_images(num, 2)
        num_units = self.model.num_units
        with Display("swapping", num * (num_units + 2), "images") as display:
            drawn = swap(self.model, source, target, self.sampling, inverted, display.update)
        picture = Picture(
            folder / "swap.png",
            "Swaps",
            "Right of the gap: the source with one unit taken from the target"
            f"{self._from('its own noise' if inverted else 'the same noise')}. A disentangled unit changes one factor.",
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
        """One image with each unit moved over its range in the data, as a sheet and an animated GIF beside it."""
        require(columns >= 2, f"columns is {columns}: need at least 2")
        image = self.draw_images(1, 3)[0]
        values = unit_range(self.sample.codes.scalars, columns)
        with Display("traversing", values.size, "images") as display:
            drawn = traverse(self.model, image, values, self.sampling, display.update)
        picture = Picture(
            folder / "traversals.png",
            "Traversals",
            "One image; each row moves one unit from the 1 % to the 99 % quantile of its values in the data. A "
            "disentangled unit changes one factor.",
            f"A grid of {len(drawn)} rows, one for each unit, and {columns} columns, one for each of its values.",
        )
        image_grid(drawn, picture.path, *self._head(picture), rows=self._rows)
        moving_grid(drawn, picture.path.with_suffix(".gif"), self.labels)
        return picture

    def anchors(self, folder: Path) -> Picture:
        """The histogram of each unit's scalar over the data with its Gaussians, and one image at each anchor."""
        image, codes = self.draw_images(1, 3), self.sample.codes
        on_scalars = self.model.anchors.on_scalars
        units = []
        for unit, label in enumerate(self._rows):
            means = anchor_means(self.model, unit)
            shown = np.unique(np.linspace(0, len(means) - 1, min(len(means), MOST_ANCHORS)).round().astype(int))
            drawn = exchange_unit(self.model, image, unit, means[shown], self.sampling)[0]
            gaussians = None if on_scalars is None else np.stack([part[unit].cpu().numpy() for part in on_scalars])
            units.append(
                AnchoredUnit(label, codes.scalars[:, unit], codes.anchors[:, unit], gaussians, shown.tolist(), drawn)
            )
        picture = Picture(
            folder / "anchors.png",
            "Anchors",
            f"Left: histogram of each unit's scalar over {len(codes.scalars):,} images, coloured by anchor, with the "
            f"Gaussians as lines. Right: one image with the unit at each anchor's mean, framed in its colour (at most "
            f"{MOST_ANCHORS}). A disentangled unit has a mode for each value of its factor, and its pictures differ in "
            "that factor only.",
            f"A row for each of {len(units)} units: a histogram of its scalar, and a picture for each of its anchors.",
        )
        anchors_figure(units, picture.path, *self._head(picture))
        return picture

    def attention(self, folder: Path, num: int = 4) -> Picture:
        """Images, and the attention maps of each unit while they are reconstructed."""
        images = self.draw_images(num, 0)
        with Display("attention maps", num, "images") as display:
            maps = attention(self.model, images, self.sampling, display.update)
        size = self.model.latent_shape[-1]
        picture = Picture(
            folder / "attention.png",
            "Attention",
            f"Attention of each of {size} x {size} positions to a unit, averaged over heads, layers and sampling "
            f"steps: clear is 0, the darkest red is three times an equal share, 1 / {maps.shape[1]}, or more. A unit "
            "that holds one object is red where the object is.",
            f"A grid of {num} rows: an image, and over it in grey a heat map for each of {maps.shape[1]} units.",
        )
        attention_grid(images, maps, picture.path, *self._head(picture), self._columns)
        return picture

    def figure1(self, folder: Path, unit: int, method: Literal["pca", "pacmap"] = "pca", num: int = 8) -> Picture:
        """The tokens of a unit as a map, coloured by anchor and factors, and images drawn with tokens of two groups.

        See figure 1 of Jun et al. 2025. Raises `UserError` for an unknown unit, and without PaCMAP for `pacmap`.
        """
        # the map
        self.model.anchors.require_unit(unit)
        codes, factors = self.sample
        points, what = plane(codes.aligned[:, unit], method, self.sampling.seed)
        held = self._factors_held_by(unit)
        colourings = [
            Colouring("anchor", codes.anchors[:, unit], ordered=False),
            *(Colouring(self.dataset.factor_names[column], factors[:, column]) for column in held),
        ]

        # the images below it
        images = self.draw_images(num, 5)
        names, tokens, colours = zip(*self._two_groups(unit))
        drawn = exchange_unit(self.model, images, unit, np.stack(tokens), self.sampling)  # (num, 2, H, W, 3)
        rows = [Row(name, drawn[:, place], colours[place]) for place, name in enumerate(names)]

        # the text
        caption = [
            f"Each point is the token of one of {len(points):,} images, {what}, with a little random jitter so that "
            "points do not hide each other.",
            "If the unit holds a factor, the colours of that factor are separate; those of other factors are mixed."
            if held
            else "",
            f"Shown are the {len(held)} factors with the most mutual information with the unit."
            if len(held) < factors.shape[1]
            else "",
            "Below: images, and two rows in which all have the same token of the unit. The unit holds what a row has "
            "in common and what differs between the two rows.",
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
        """The noise of all pictures, for captions; empty for a model without noise."""
        return f", all from {noise}" if np.prod(self.model.latent_shape) else ""

    def _head(self, picture: Picture) -> tuple[str, str]:
        """The title and caption in a picture."""
        return (picture.title, picture.caption) if self.captions else ("", "")

    def _two_groups(self, unit: int) -> list[tuple[str, np.ndarray, Colour]]:
        """Name, token and colour of a unit's two largest anchors, or of the ends of its range if it has only one."""
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
        """The columns of the factors to show: all, or those with the most mutual information with the unit."""
        codes, factors = self.sample
        if factors.shape[1] <= MOST_FACTORS:
            return list(range(factors.shape[1]))
        labels = as_labels(classes(factors, len(factors))[0])
        information = mutual_information(binned(codes.scalars[:, [unit]].astype(np.float64)), labels)[0]
        return np.argsort(-information, kind="stable")[:MOST_FACTORS].tolist()

    @property
    def _columns(self) -> list[str]:
        """The labels as titles of columns."""
        return [wrapped(label, LETTERS) for label in self.labels]

    @property
    def _rows(self) -> list[str]:
        """The labels as titles of rows."""
        return [wrapped(label.replace("\n", ": "), 2 * LETTERS) for label in self.labels]


def png_address(png: bytes) -> str:
    """A data URI with a picture."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def unit_labels(model: UnitModel, results: dict[str, Any] | None) -> list[str]:
    """`unit 3`, and below it its name, or else the factor that it is most important for, if it is important at all."""
    names = dict.fromkeys(range(model.num_units), "")
    if results is not None:
        for unit, row in enumerate(np.array(results["scores"]["importance"])):
            factor = int(row.argmax())
            names[unit] = results["data"]["factor_names"][factor] if row[factor] >= HELD else ""
    names |= model.unit_names
    return [f"unit {unit}\n{text}".strip() for unit, text in names.items()]
