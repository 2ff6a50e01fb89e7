"""Anchors align each unit to the Gaussian that it belongs to (Jun et al. 2025). A class and a table row per kind."""

from unweave.config import AnchorConfig
from unweave.nn.anchors.base import Aligned, Anchors
from unweave.nn.anchors.published import PublishedAnchors
from unweave.nn.anchors.scalar import ScalarAnchors
from unweave.nn.anchors.token import TokenAnchors

__all__ = ["ANCHORS", "Aligned", "Anchors", "make_anchors"]

ANCHORS: dict[str, type[Anchors]] = {
    "off": Anchors,
    "published": PublishedAnchors,
    "scalar": ScalarAnchors,
    "token": TokenAnchors,
}
"""By `anchors.mode`; for `corrected`, by `anchors.space`."""


def make_anchors(config: AnchorConfig, num_units: int, token_dim: int) -> Anchors:
    """The anchors for some options, not fitted yet."""
    return ANCHORS[config.space if config.mode == "corrected" else config.mode](config, num_units, token_dim)
