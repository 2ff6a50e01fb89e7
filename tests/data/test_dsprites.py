"""The drawn dSprites against the published frames, in their published order."""

from pathlib import Path

import numpy as np
import pytest

from unweave.data.sets.dsprites import DSprites

FRAMES = Path(__file__).parents[1] / "fixtures" / "dsprites_frames.npz"


@pytest.fixture(scope="module")
def frames():
    return np.load(FRAMES, allow_pickle=False)["frames"].astype(bool)


def published_order():
    """Factors (320, 5) of the published frames: heart, ellipse, square; each grows and shrinks, grows, turns, moves."""
    rows = []
    for shape in (2, 1, 0):
        grow = [(shape, scale, 0, 0, 0) for scale in range(6)]
        turn = [(shape, 5, angle, 0, 0) for angle in range(40)]
        rows += [*grow, *grow[::-1], *grow, *turn]
        if shape == 2:
            down = [(2, 5, 39, 0, y) for y in range(32)]
            right = [(2, 5, 39, x, 31) for x in range(32)]
            up = [(2, 5, 39, 31, y) for y in range(31, -1, -1)]
            left = [(2, 5, 39, x, 0) for x in range(31, -1, -1)]
            rows += [*down, *right, *up, *left]
        rows += [(shape, scale, 39, 0, 0) for scale in range(5, -1, -1)]
    return np.array(rows)


def test_published_frames(frames):
    sprites = DSprites()
    order = published_order()
    assert len(order) == len(frames)
    drawn = sprites.images(sprites.index(order))[..., 0] > 0
    assert (drawn != frames).sum(axis=(1, 2)).mean() <= 2.5


def test_first_and_last_orientation_are_the_same_image():
    sprites = DSprites()
    first, last = sprites.index([[s, 3, o, 9, 20] for s in range(3) for o in (0, 39)]).reshape(3, 2).T
    assert np.array_equal(sprites.images(first), sprites.images(last))


def test_moving_by_whole_pixels_moves_the_picture():
    sprites = DSprites()  # 31 positions apart is 32 pixels
    left, right = sprites.images(sprites.index([[2, 2, 11, 0, 5], [2, 2, 11, 31, 5]]))
    assert np.array_equal(np.roll(left, 32, axis=1), right)


def test_half_size_is_the_mean_of_four_pixels():
    rows = np.random.default_rng(0).integers(737_280, size=50)
    large = DSprites(64).images(rows).reshape(50, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(DSprites(32).images(rows) - large).max() <= 1
