"""The drawn rooms against the published frames, whose factors are recovered by search."""

import pickle
from colorsys import hsv_to_rgb
from pathlib import Path

import numpy as np
import pytest

from unweave.data.sets.rooms import Rooms

FRAMES = Path(__file__).parents[1] / "fixtures" / "shapes3d_frames.npz"
SKY = np.array([153, 226, 249]) / 255
INSIDE = (slice(None), slice(1, 63), slice(1, 63))  # a plot frame tints the outermost pixels of the notebook's images


@pytest.fixture(scope="module")
def rooms():
    return Rooms()


@pytest.fixture(scope="module")
def notebook():
    return np.load(FRAMES, allow_pickle=False)["notebook_images"]


@pytest.fixture(scope="module")
def animation():
    return np.load(FRAMES, allow_pickle=False)["gif_frames"]


@pytest.fixture(scope="module")
def pairs(rooms, notebook, animation):
    """All published frames, their factors (78, 6), and the rooms drawn from these."""
    factors = np.concatenate([[search(rooms, frame) for frame in notebook], animation_order()])
    return np.concatenate([notebook, animation]), factors, rooms.images(rooms.index(factors))


def animation_order():
    """Factors (53, 6) of the animation: the camera turns, shape, scale, then object, wall and floor hue change."""
    turn = [(0, 6, 3, 0, 0, angle) for angle in range(15)]
    shape = [(0, 6, 3, 0, kind, 14) for kind in (1, 2, 3)]
    grow = [(0, 6, 3, scale, 3, 14) for scale in range(1, 8)]
    thing = [(0, 6, hue, 7, 3, 14) for hue in (4, 5, 6, 7, 8, 9, 0, 1, 2)]
    walls = [(0, hue, 2, 7, 3, 14) for hue in (7, 8, 9, 0, 1, 5)]
    mixed = [(hue, 5, 2, 7, 3, 14) for hue in (1, 2, 3)] + [(0, hue, 2, 7, 3, 14) for hue in (2, 3, 4, 5)]
    floor = [(hue, 5, 2, 7, 3, 14) for hue in (4, 5, 6, 7, 8, 9)]
    return np.array(turn + shape + grow + thing + walls + mixed + floor)


def errors(frames, drawn):
    return np.abs(frames[INSIDE].astype(int) - drawn[INSIDE]).mean(axis=(1, 2, 3))


def search(rooms, frame):
    """The factors whose image is nearest: all hues one by one, then all geometries, and again."""
    best = np.array([0, 0, 0, 4, 0, 7])

    def try_all(columns):
        sizes = [rooms.factor_sizes[column] for column in columns]
        candidates = np.repeat(best[None], np.prod(sizes), axis=0)
        candidates[:, columns] = np.indices(sizes).reshape(len(sizes), -1).T
        return candidates[errors(frame[None], rooms.images(rooms.index(candidates))).argmin()]

    for columns in ([0], [1], [2], [3, 4, 5], [0], [1], [2], [3, 4, 5]):
        best = try_all(columns)
    return best


def test_every_published_frame_is_near(pairs):
    frames, _, drawn = pairs
    assert errors(frames, drawn).max() <= 5.5  # a palette of 256 colours alone makes up to 5
    assert errors(frames, drawn).mean() <= 2.8


def test_notebook_images_are_the_same_once_plotted(pairs):
    frames, _, drawn = (part[:25] for part in pairs)
    assert errors(frames, plotted(drawn)).max() <= 1
    assert errors(frames, plotted(drawn)).mean() <= 0.75


def plotted(drawn):
    """The 25 notebook images as their figure shows them: its plot skipped and repeated some rows and columns."""
    upper = [*range(16), 17, 18, 19, 21, 22, 23, 26, 27, 30, 34, 38]  # in the first three lines of the figure
    lower = [*range(15), 16, 17, 18, 20, 21, 22, 24, 25, 28, 29, 32, 36]
    rows, columns = np.tile(np.arange(64), (25, 1)), np.arange(64)
    rows[:15, upper] += 1
    rows[15:, lower] += 1
    columns[[4, 59]] += [1, -1]
    return drawn[np.arange(25)[:, None, None], rows[:, :, None], columns]


def test_search_finds_the_factors_of_the_animation(rooms, animation):
    found = np.array([search(rooms, frame) for frame in animation])
    assert np.array_equal(found, animation_order())


def test_object_masks_agree(pairs):
    scores = []
    for frame, row, drawn in zip(*pairs):
        if row[2] not in row[:2]:  # else the floor or the walls have the object's hue
            real, ours = object_mask(frame, row), object_mask(drawn, row)
            scores.append((real & ours).sum() / (real | ours).sum())
    assert len(scores) > 60
    assert min(scores) >= 0.93
    assert np.mean(scores) >= 0.97


def object_mask(image, row):
    """Pixels (62, 62) whose colour is nearer to a shade of the object's hue than of the floor's, walls' or sky's."""
    hues = [np.array(hsv_to_rgb(hue / 10, 1, 1)) for hue in (row[2], row[0], row[1])]
    pixels = image[1:63, 1:63] / 255
    distances = []
    for colour in (*hues, SKY):
        direction = colour / np.linalg.norm(colour)
        distances.append(np.linalg.norm(pixels - (pixels @ direction)[..., None] * direction, axis=-1))
    return np.argmin(distances, axis=0) == 0


def test_edges_of_the_walls_agree(rooms, pairs):
    frames, factors, drawn = pairs
    for frame, row, ours in zip(frames, factors, np.concatenate([plotted(drawn[:25]), drawn[25:]])):
        columns = columns_without_object(rooms, row)
        top = [edge(image[4:27], SKY * 255, image[26])[columns] for image in (frame, ours)]
        assert np.abs(top[0] - top[1]).mean() <= 0.5
        if row[0] != row[1]:
            foot = [edge(image[32:48], image[32], image[47])[columns] for image in (frame, ours)]
            assert np.abs(foot[0] - foot[1]).mean() <= 0.7


def columns_without_object(rooms, row):
    """Columns (64,), away from the margins, that neither the object nor its surroundings touch."""
    one, other = rooms.images(rooms.index([[*row[:2], hue, *row[3:]] for hue in (0, 5)])).astype(int)
    near = np.convolve((np.abs(one - other) > 3).any(axis=(0, 2)), np.ones(7), "same") > 0
    near[[0, 1, 62, 63]] = True
    return ~near


def edge(rows, above, below):
    """Where each column of `rows` (h, 64, 3) turns from one colour into the other, in pixels."""
    step = above - below.astype(float)
    share = ((rows - below.astype(float)) * step).sum(-1) / np.maximum((step**2).sum(-1), 1)
    return np.clip(share, 0, 1).sum(axis=0)


def test_orientation_is_the_fastest_factor(rooms):
    sizes = (10, 10, 10, 8, 4, 15)
    rows = np.random.default_rng(0).integers(sizes, size=(100, 6))
    assert len(rooms) == 480_000
    assert np.array_equal(rooms.index(rows), rows @ [48_000, 4_800, 480, 60, 15, 1])
    assert np.array_equal(rooms.factors(rooms.index(rows)), rows)


def test_each_hue_colours_its_own_surface(rooms):
    scene = [0, 2, 4, 4, 2, 7]
    for column, (y, x) in enumerate([(60, 2), (25, 2), (45, 32)]):
        changed = [[*scene[:column], hue, *scene[column + 1 :]] for hue in (0, 6)]
        red, blue = rooms.images(rooms.index(changed)).astype(int)
        assert red[y, x, 0] > 150 > 60 > blue[y, x, 0]
        others = [place for k, place in enumerate([(60, 2), (25, 2), (45, 32)]) if k != column]
        assert all(np.array_equal(red[place], blue[place]) for place in others)


def test_half_size_is_the_mean_of_four_pixels(rooms):
    indices = np.random.default_rng(1).integers(480_000, size=40)
    large = rooms.images(indices).reshape(40, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(Rooms(32).images(indices) - large).max() <= 1


def test_a_picture_does_not_depend_on_what_was_drawn_before(rooms):
    indices = np.random.default_rng(2).integers(480_000, size=20)
    together = rooms.images(indices)
    assert np.array_equal(np.concatenate([Rooms().images([index]) for index in indices[::-5]]), together[::-5])


def test_pickle_leaves_the_drawn_scenes_behind(rooms):
    sent = pickle.dumps(rooms)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent).images([123_456]), rooms.images([123_456]))
