"""The computations of the viewer, without the web: an open run, and functions of the pictures that a visitor chose.

A `Session` is shared by all visitors; the pictures of a visitor are passed in and out as `Seen`.
n images, N units, D token width, H W height and width of an image.
"""

import threading
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from unweave.config import Sampling
from unweave.data.pictures import MOST_PIXELS, read_picture
from unweave.errors import UserError, require
from unweave.explore import anchor_draws, anchor_means, anchor_members, exchange_unit, unit_range
from unweave.models.base import Codes
from unweave.models.folder import find, home, name_unit, read_results
from unweave.report.anchor_figures import DotMap, dot_map, plane
from unweave.report.pictures import Explorer, unit_labels

NUM_EXAMPLES = 12
MOST_BYTES = 10 * 2**20  # of an upload
MOST_SHOWN = 2  # anchors of a unit, nearest first
NEIGHBOUR = 10  # isolation of a value is its distance to the tenth nearest image
ODD = 0.05  # significance level, over all units, for a warning about unusual values
COLUMNS = 5  # pictures generated with an anchor


class Seen(NamedTuple):
    """A picture, and its codes."""

    image: np.ndarray
    """(H, W, 3)."""
    codes: Codes
    """Of this one image."""


class Reading(NamedTuple):
    """A unit of a picture."""

    label: str
    value: float
    place: float
    """Position of the value in the unit's usual range, 0 to 1."""
    anchors: list[tuple[int, float]]
    """The nearest anchors, each with its probability, 0 to 1."""
    typical: float
    """The fraction of images of the data whose value is at least as unusual."""
    odd: bool
    """Whether that is significantly low, with Bonferroni's correction for the number of units."""


class Drawn(NamedTuple):
    """Pictures (m, H, W, 3) in a row, with a common title."""

    title: str
    pictures: np.ndarray


class Typical:
    """The distribution of known scalars (m, N) of N units."""

    def __init__(self, known: np.ndarray) -> None:
        self._known = np.sort(known, axis=0)
        self._isolation = np.sort(_kth_distance(self._known, self._known, NEIGHBOUR + 1), axis=0)  # itself is nearest

    def shares(self, scalars: np.ndarray) -> np.ndarray:
        """Scalars (n, N) -> the fraction of known ones that are at least as isolated, (n, N) in (0, 1].

        Isolation is the distance to the tenth nearest. For a new value from the same distribution the fraction is
        uniform: it is the p-value of a conformal anomaly detector (Laxhammar and Falkman 2010).
        """
        isolation = _kth_distance(scalars, self._known, NEIGHBOUR)
        more = [len(known) - np.searchsorted(known, values) for known, values in zip(self._isolation.T, isolation.T)]
        return (np.stack(more, axis=1) + 1) / (len(self._isolation) + 1)


class Session:
    """An open run: the model, images of its data, and values computed once for all visitors."""

    def __init__(self, run: str, explorer: Explorer) -> None:
        self.run, self.explorer, self.model = run, explorer, explorer.model
        self.results = read_results(home(run), self.model)
        self.examples = explorer.draw_images(NUM_EXAMPLES, 6)
        scalars = explorer.sample.codes.scalars
        self.low, self.high = unit_range(scalars, 2).T  # (N,) each
        self.typical = Typical(scalars)
        self._naming = threading.Lock()

    @classmethod
    def open(cls, run: str, data: str, device: str, sampling: Sampling) -> "Session":
        """Opens a run, model folder or bundled model, and computes its maps in advance."""
        session = cls(run, Explorer.open(run, data, device, sampling))
        session.maps  # noqa: B018
        return session

    @property
    def num_units(self) -> int:
        return self.model.num_units

    @property
    def labels(self) -> list[str]:
        """`unit 3: wall hue` for each unit, with its present name."""
        return [label.replace("\n", ": ").replace("_", " ") for label in unit_labels(self.model, self.results)]

    @cached_property
    def maps(self) -> list[DotMap]:
        """A map of the tokens of each unit."""
        codes, seed = self.explorer.sample.codes, self.explorer.sampling.seed
        return [
            dot_map(plane(codes.aligned[:, unit], "pca", seed)[0], codes.anchors[:, unit])
            for unit in range(self.num_units)
        ]

    def anchors_of(self, unit: int) -> list[int]:
        """The anchors of a unit; empty for a model without anchors."""
        return list(range(int(self.model.anchors.num_alive[unit])))

    def read(self, path: str | Path) -> np.ndarray:
        """The middle square of an uploaded file as an image of the model's size (H, W, 3). Raises `UserError` for a
        file that is too large or no picture."""
        size = Path(path).stat().st_size
        require(
            size <= MOST_BYTES,
            f"the file has {size / 2**20:.1f} MB: the limit is {MOST_BYTES // 2**20} MB; make it smaller",
        )
        try:
            return read_picture(Path(path), self.model.config.image_size, "center")
        except ValueError as error:
            raise UserError(
                f"this cannot be used: {error}. Send a PNG, JPEG or WebP of at most {MOST_PIXELS // 10**6} megapixels"
            ) from None

    def see(self, image: np.ndarray) -> Seen:
        """Encodes an image (H, W, 3)."""
        return Seen(image, self.model.encode(image[None]))

    def readings(self, seen: Seen) -> list[Reading]:
        """The units of a picture, compared with those of the data."""
        # values, and how typical they are
        scalars = seen.codes.scalars
        places = ((scalars[0] - self.low) / np.maximum(self.high - self.low, 1e-12)).clip(0, 1)
        typical = self.typical.shares(scalars)[0]

        # probabilities of the anchors, (N, K)
        device = self.model.device
        probable = self.model.anchors.responsibilities(
            torch.from_numpy(scalars).to(device), torch.from_numpy(seen.codes.tokens).to(device)
        )[0].cpu()

        # a reading per unit
        readings = []
        for unit, label in enumerate(self.labels):
            order = probable[unit].argsort(descending=True, stable=True)[: min(MOST_SHOWN, len(self.anchors_of(unit)))]
            nearest = [(int(anchor), float(probable[unit, anchor])) for anchor in order]
            odd = bool(typical[unit] < ODD / self.num_units)
            readings.append(
                Reading(label, float(scalars[0, unit]), float(places[unit]), nearest, float(typical[unit]), odd)
            )
        return readings

    def mix(self, source: Seen, target: Seen, units: Collection[int]) -> np.ndarray:
        """The source with some units taken from the target, (H, W, 3); with none, its reconstruction."""
        tokens = source.codes.aligned.copy()
        for unit in units:
            self.model.anchors.require_unit(unit)
            tokens[:, unit] = target.codes.aligned[:, unit]
        return self._draw(tokens)

    def move(self, scalars: Sequence[float]) -> np.ndarray:
        """The picture (H, W, 3) of scalars (N,)."""
        return self._draw(self.model.align(np.array(scalars, np.float32)[None]))

    def drawn_from(self, seen: Seen, unit: int, anchor: int) -> list[Drawn]:
        """A picture and others of the data, and the same with a unit's token from one of its anchors. Raises
        `UserError` for an unknown anchor."""
        sampling = self.explorer.sampling
        images = np.concatenate([seen.image[None], self.examples[1 - COLUMNS :]])
        mean = anchor_means(self.model, unit)
        require(0 <= anchor < len(mean), f"unit {unit} has no anchor {anchor}: choose from 0 to {len(mean) - 1}")
        tokens = {
            "the anchor's mean": mean[[anchor]],
            "an image's token there": anchor_members(self.explorer.sample.codes, unit, anchor, 1, sampling.seed),
            "sampled from the Gaussian": anchor_draws(self.model, unit, anchor, 1, seed=sampling.seed),
        }
        exchanged = np.concatenate(list(tokens.values()))
        drawn = exchange_unit(self.model, images, unit, exchanged, sampling)  # (n, 3, H, W, 3)
        rows = [Drawn(title, drawn[:, row]) for row, title in enumerate(tokens)]
        return [Drawn("unchanged", images), *rows]

    def card(self) -> str:
        """The model's card without its metadata header; empty if it has none."""
        path = find(self.run) / "README.md"
        if not path.is_file():
            return ""
        text = path.read_text(encoding="utf-8")
        return text.split("\n---\n", 1)[-1].strip() if text.startswith("---\n") else text

    def name(self, unit: int, text: str) -> None:
        """Names a unit, and saves the name with the model. Raises `UserError` as `folder.name_unit` does."""
        with self._naming:
            self.model.unit_names = name_unit(self.run, unit, text)

    def _draw(self, tokens: np.ndarray) -> np.ndarray:
        """A picture of tokens (1, N, D), always from the same noise, so that pictures differ by their tokens only."""
        sampling = self.explorer.sampling
        return self.model.decode(tokens, sampling.steps, sampling.seed, solver=sampling.solver)[0]


def _kth_distance(values: np.ndarray, known: np.ndarray, k: int) -> np.ndarray:
    """Distance (n, N) of values (n, N) to the k-th nearest of sorted known values (m, N) of the same unit."""
    k = min(k, len(known))
    distances = np.empty(values.shape)
    for unit, (ours, theirs) in enumerate(zip(values.T.astype(np.float64), known.T.astype(np.float64))):
        starts = np.searchsorted(theirs, ours)[:, None] + np.arange(-k, 1)  # windows of k that may be the nearest
        starts = starts.clip(0, len(theirs) - k)
        widest = np.maximum(ours[:, None] - theirs[starts], theirs[starts + k - 1] - ours[:, None])
        distances[:, unit] = widest.min(axis=1)
    return distances
