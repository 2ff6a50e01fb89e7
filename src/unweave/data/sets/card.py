"""What is known of a data set: its card."""

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
    """Its addresses: the first that answers is taken. More than one only with a digest, or parts of two files could be
    joined; empty where the file has to be downloaded by hand."""
    size: int | None = None
    """Bytes; None where nobody published it."""
    digest: str = ""
    """`sha256:...` or `md5:...` in hexadecimal; empty where nobody published one."""

    @property
    def expected(self) -> str:
        """Size and hash, in words."""
        size = f"{self.size:,} bytes" if self.size else "a size that nobody published"
        return f"{size}, {self.digest or 'no published hash'}"


@dataclass(frozen=True, kw_only=True)
class Card:
    """A data set: what people should know of it, and how it is drawn or read.

    Sizes and hashes of files are those that others published of the files they checked, named beside each; where nobody
    published one there is none.
    """

    name: str
    title: str
    about: str
    factors: Mapping[str, int]
    """Names and numbers of values, the last fastest where the images are a grid of them; empty: see `labels`."""
    pixels: str
    licence: str
    source: str
    citation: str
    use: str
    """A command that trains on it."""
    files: tuple[Remote, ...] = ()
    layout: str = ""
    """What is in the files, and what is made of it."""
    labels: str = ""
    by_hand: str = ""
    """How to download the files that have no `urls`."""
    images: int = 0
    """How many there are, where they are no grid of the factors."""
    picture: str = ""
    """What docs/images/NAME.png shows; empty where there is no such picture."""
    draw: Callable[[int], FactorDataset] | None = None
    """Draws the set at 32 or 64 px; None where it cannot be drawn."""
    opens: Callable[[Path], bool] | None = None
    """Whether a path, a folder or a file, holds the published set; None where no format is its own."""
    read: Callable[[Path, int], PublishedImages] | None = None
    """The images of a path that `opens`, at a size in pixels. Raises `UserError` for a damaged file."""

    @property
    def num_images(self) -> int:
        return self.images or int(np.prod(list(self.factors.values())))
