"""What the viewer does, without the web: a run opened for looking, and functions of the pictures that someone chose.

What is in a `Session` is the same for all visitors; a visitor's own pictures are passed in and out as `Seen`.
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
from unweave.report.anchors import DotMap, dot_map, plane
from unweave.report.pictures import Explorer, unit_labels

NUM_EXAMPLES = 12
MOST_BYTES = 10 * 2**20  # of an upload
MOST_SHOWN = 2  # anchors of a unit, nearest first
NEIGHBOUR = 10  # the distance to the tenth nearest image says how lonely a value is
ODD = 0.05  # of all images: a picture with a value that fewer share is pointed out
COLUMNS = 5  # pictures redrawn with an anchor


class Seen(NamedTuple):
    """A picture, and what the model makes of it."""

    image: np.ndarray
    """(H, W, 3)."""
    codes: Codes
    """Of this one image."""


class Reading(NamedTuple):
    """What a unit says of a picture."""

    label: str
    value: float
    place: float
    """Where the value lies in the unit's usual range, 0 to 1."""
    anchors: list[tuple[int, float]]
    """The nearest anchors, each with its probability, 0 to 1."""
    typical: float
    """The part of the data's images whose value is at least as unusual."""
    odd: bool
    """Whether this is less than chance would make it among so many units."""


class Drawn(NamedTuple):
    """Pictures (m, H, W, 3) in a row, and what they have in common."""

    title: str
    pictures: np.ndarray


class Typical:
    """What is usual among known scalars (m, N) of N units."""

    def __init__(self, known: np.ndarray) -> None:
        self._known = np.sort(known, axis=0)
        self._lonely = np.sort(_kth_distance(self._known, self._known, NEIGHBOUR + 1), axis=0)  # itself is the nearest

    def shares(self, scalars: np.ndarray) -> np.ndarray:
        """Scalars (n, N) -> the part of the known ones that are at least as lonely, (n, N) in (0, 1].

        Lonely is far from the tenth nearest. For a new one drawn as the known ones were, this is uniform, whatever the
        distribution: it is the p-value of a conformal anomaly detector (Laxhammar and Falkman 2010).
        """
        lonely = _kth_distance(scalars, self._known, NEIGHBOUR)
        more = [len(known) - np.searchsorted(known, values) for known, values in zip(self._lonely.T, lonely.T)]
        return (np.stack(more, axis=1) + 1) / (len(self._lonely) + 1)


class Session:
    """A run, opened for looking: the model, images of its data, and what is computed once for all visitors."""

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
        """Opens a run, model folder or bundled model, and computes what visitors would have to wait for."""
        session = cls(run, Explorer.open(run, data, device, sampling))
        session.maps  # noqa: B018
        return session

    @property
    def num_units(self) -> int:
        return self.model.num_units

    @property
    def labels(self) -> list[str]:
        """`unit 3: wall hue` for each unit, as it is called now."""
        return [label.replace("\n", ": ").replace("_", " ") for label in unit_labels(self.model, self.results)]

    @cached_property
    def maps(self) -> list[DotMap]:
        """The tokens of each unit as a map."""
        codes, seed = self.explorer.sample.codes, self.explorer.sampling.seed
        return [
            dot_map(plane(codes.aligned[:, unit], "pca", seed)[0], codes.anchors[:, unit])
            for unit in range(self.num_units)
        ]

    def anchors_of(self, unit: int) -> list[int]:
        """The anchors that a unit has; none for a model without."""
        return list(range(int(self.model.anchors.num_alive[unit])))

    def read(self, path: str | Path) -> np.ndarray:
        """An uploaded file as an image of the model's size (H, W, 3), its middle square.

        Raises `UserError` for one that is too large or no picture.
        """
        size = Path(path).stat().st_size
        require(
            size <= MOST_BYTES,
            f"the file has {size / 2**20:.1f} MB: at most {MOST_BYTES // 2**20} are taken; make it smaller",
        )
        try:
            return read_picture(Path(path), self.model.config.image_size, "center")
        except ValueError as error:
            raise UserError(
                f"this cannot be used: {error}. Take a PNG, JPEG or WebP of at most {MOST_PIXELS // 10**6} megapixels"
            ) from None

    def see(self, image: np.ndarray) -> Seen:
        """Takes an image (H, W, 3) apart."""
        return Seen(image, self.model.encode(image[None]))

    def readings(self, seen: Seen) -> list[Reading]:
        """What each unit says of a picture."""
        scalars = seen.codes.scalars
        places = ((scalars[0] - self.low) / np.maximum(self.high - self.low, 1e-12)).clip(0, 1)
        typical = self.typical.shares(scalars)[0]
        device = self.model.device
        probable = self.model.anchors.responsibilities(
            torch.from_numpy(scalars).to(device), torch.from_numpy(seen.codes.tokens).to(device)
        )[0].cpu()  # (N, K)
        found = []
        for unit, label in enumerate(self.labels):
            order = probable[unit].argsort(descending=True, stable=True)[: min(MOST_SHOWN, len(self.anchors_of(unit)))]
            nearest = [(int(anchor), float(probable[unit, anchor])) for anchor in order]
            odd = bool(typical[unit] < ODD / self.num_units)
            found.append(
                Reading(label, float(scalars[0, unit]), float(places[unit]), nearest, float(typical[unit]), odd)
            )
        return found

    def mix(self, source: Seen, target: Seen, units: Collection[int]) -> np.ndarray:
        """The source with some of its units taken from the target, (H, W, 3); with none, what its units keep of it."""
        tokens = source.codes.aligned.copy()
        for unit in units:
            self.model.anchors.require_unit(unit)
            tokens[:, unit] = target.codes.aligned[:, unit]
        return self._draw(tokens)

    def move(self, scalars: Sequence[float]) -> np.ndarray:
        """The picture that scalars (N,) of all units say, (H, W, 3)."""
        return self._draw(self.model.align(np.array(scalars, np.float32)[None]))

    def drawn_from(self, seen: Seen, unit: int, anchor: int) -> list[Drawn]:
        """A picture and others of the data, and the same with a unit's token from one of its anchors."""
        sampling = self.explorer.sampling
        images = np.concatenate([seen.image[None], self.examples[1 - COLUMNS :]])
        mean = anchor_means(self.model, unit)
        require(0 <= anchor < len(mean), f"unit {unit} has no anchor {anchor}: choose from 0 to {len(mean) - 1}")
        tokens = {
            "the anchor's mean": mean[[anchor]],
            "of an image there": anchor_members(self.explorer.sample.codes, unit, anchor, 1, sampling.seed),
            "from the Gaussian": anchor_draws(self.model, unit, anchor, 1, seed=sampling.seed),
        }
        exchanged = np.concatenate(list(tokens.values()))
        drawn = exchange_unit(self.model, images, unit, exchanged, sampling)  # (n, 3, H, W, 3)
        rows = [Drawn(title, drawn[:, row]) for row, title in enumerate(tokens)]
        return [Drawn("as they are", images), *rows]

    def card(self) -> str:
        """The model's card, without its header for machines; empty where it has none."""
        path = find(self.run) / "README.md"
        if not path.is_file():
            return ""
        text = path.read_text(encoding="utf-8")
        return text.split("\n---\n", 1)[-1].strip() if text.startswith("---\n") else text

    def name(self, unit: int, text: str) -> None:
        """Calls a unit by a name, and keeps that with the model. Raises `UserError` as `folder.name_unit` does."""
        with self._naming:
            self.model.unit_names = name_unit(self.run, unit, text)

    def _draw(self, tokens: np.ndarray) -> np.ndarray:
        """Draws tokens (1, N, D), always from the same noise, so that pictures differ by their tokens alone."""
        sampling = self.explorer.sampling
        return self.model.decode(tokens, sampling.steps, sampling.seed, solver=sampling.solver)[0]


def _kth_distance(values: np.ndarray, known: np.ndarray, k: int) -> np.ndarray:
    """From values (n, N) the distance to the k-th nearest of sorted known ones (m, N) of the same unit: (n, N)."""
    k = min(k, len(known))
    found = np.empty(values.shape)
    for unit, (ours, theirs) in enumerate(zip(values.T.astype(np.float64), known.T.astype(np.float64))):
        starts = np.searchsorted(theirs, ours)[:, None] + np.arange(-k, 1)  # windows of k that may be the nearest
        starts = starts.clip(0, len(theirs) - k)
        widest = np.maximum(ours[:, None] - theirs[starts], theirs[starts + k - 1] - ours[:, None])
        found[:, unit] = widest.min(axis=1)
    return found
