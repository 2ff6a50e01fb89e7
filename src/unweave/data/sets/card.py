"""The card of a data set: facts about it, and how to generate or read it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unweave.data.base import FactorDataset
from unweave.data.sets.reading import PublishedImages


class Remote(NamedTuple):
    """A published file."""

    name: str
    urls: tuple[str, ...]
    """Its addresses, of which the first that works is used. Several need a digest, because parts of two files could be
    joined; none if the file needs a manual download."""
    size: int | None = None
    """Bytes; None if not published."""
    digest: str = ""
    """`sha256:...` or `md5:...` in hexadecimal; empty if not published."""

    @property
    def expected(self) -> str:
        """Size and hash, in words."""
        size = f"{self.size:,} bytes" if self.size else "no published size"
        return f"{size}, {self.digest or 'no published hash'}"


@dataclass(frozen=True, kw_only=True)
class Card:
    """Facts about a data set, and how to generate or read it.

    Sizes and hashes of files are those that others published for the files they checked; their source is named beside
    each. Without a published one there is none.
    """

    name: str
    title: str
    about: str
    factors: Mapping[str, int]
    """Names and numbers of values; in a grid the last varies fastest. Empty: see `labels`."""
    pixels: str
    licence: str
    source: str
    citation: str
    use: str
    """A command that trains on it."""
    files: tuple[Remote, ...] = ()
    layout: str = ""
    """The content of the files, and how it is used."""
    labels: str = ""
    by_hand: str = ""
    """How to download the files that have no `urls`."""
    images: int = 0
    """The number of images, if they are no grid of the factors."""
    picture: str = ""
    """Caption of docs/images/NAME.png; empty if there is no such picture."""
    draw: Callable[[int], FactorDataset] | None = None
    """Generates the set at 32 or 64 px; None if it cannot be generated."""
    opens: Callable[[Path], bool] | None = None
    """Whether a folder or file has the published set; None if the set has no format of its own."""
    read: Callable[[Path, int], PublishedImages] | None = None
    """The images of a path that `opens`, at a size in pixels. Raises `UserError` for a damaged file."""

    @property
    def num_images(self) -> int:
        return self.images or int(np.prod(list(self.factors.values())))
