"""Pictures show the images of the model's data, and what it draws; every label is whole."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm
from sklearn.decomposition import PCA

import unweave
from unweave.cli import main
from unweave.commands.evaluate import show
from unweave.config import Sampling
from unweave.data import open_dataset
from unweave.explore import attention, traverse, unit_range
from unweave.metrics.suite import PUBLISHED
from unweave.record import console
from unweave.report import anchor_figures, figures, pictures
from unweave.report.anchor_figures import AnchoredUnit, Colouring, Row, anchors_figure, dispersion, map_figure, plane
from unweave.report.figures import attention_grid, image_grid, matrix_figure, moving_grid
from unweave.report.pictures import Explorer

FIVE = Sampling(steps=5)


@pytest.fixture(scope="module")
def model(tiny_run):
    return unweave.load(tiny_run)


@pytest.fixture(scope="module")
def dataset(tiny):
    return open_dataset(tiny.data, 32, [].append)


@pytest.fixture
def explorer(tiny_run):
    return Explorer.open(str(tiny_run), "", "cpu", FIVE)


def colourful(path):
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return min(pixels.shape[:2]) > 100 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_commands_draw(tiny_run, tmp_path):
    words = ["--out", str(tmp_path), "--steps", "3", "--device", "cpu"]
    assert main(["swap", str(tiny_run), *words, "--pairs", "2", "--inverted"]) == 0
    assert main(["traverse", str(tiny_run), *words, "--columns", "3"]) == 0
    assert main(["anchors", str(tiny_run), *words]) == 0
    assert main(["attention", str(tiny_run), *words, "--images", "2"]) == 0
    assert main(["figure1", str(tiny_run), *words, "--unit", "2"]) == 0
    names = ("swap.png", "traversals.png", "traversals.gif", "anchors.png", "attention.png", "figure1-unit2.png")
    assert all(colourful(tmp_path / name) for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_what_the_pictures_show(explorer, dataset, monkeypatch, tmp_path):
    drawn = {}
    monkeypatch.setattr(pictures, "image_grid", lambda images, path, *_, **__: drawn.update({path.stem: images}))
    monkeypatch.setattr(pictures, "moving_grid", lambda images, path, _: drawn.update({path.name: images}))
    monkeypatch.setattr(pictures, "attention_grid", lambda *given: drawn.update(attention=given))
    explorer.swaps(tmp_path, 2)
    explorer.traversals(tmp_path, 4)
    explorer.reconstructions(tmp_path, 3)
    explorer.attention(tmp_path, 2)
    everything = dataset.images(np.arange(len(dataset))).reshape(len(dataset), -1)

    def known(images):
        return all((everything == image.reshape(-1)).all(1).any() for image in images)

    assert drawn["swap"].shape == (2, 2 + 2 + 3, 32, 32, 3)  # source, target, both redrawn, three units
    assert known(drawn["swap"][:, 0])
    assert known(drawn["swap"][:, 1])
    assert not np.array_equal(drawn["swap"][:, 2], drawn["swap"][:, 3])
    assert drawn["traversals"].shape == (3, 4, 32, 32, 3)
    assert np.array_equal(drawn["traversals.gif"], drawn["traversals"])
    assert drawn["reconstructions"].shape == (2, 3, 32, 32, 3)
    assert known(drawn["reconstructions"][0])
    images, maps = drawn["attention"][:2]
    assert known(images)
    np.testing.assert_allclose(maps, attention(explorer.model, images, FIVE))


def test_a_map_shows_the_tokens_their_anchors_and_factors(explorer, dataset, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(pictures, "map_figure", lambda *values: given.extend(values))
    explorer.figure1(tmp_path, 1, num=3)
    points, colourings, rows = given[:3]
    codes = explorer.model.encode(dataset.images(np.arange(len(dataset))))  # all of them are fewer than a sample
    assert [colouring.name for colouring in colourings] == ["anchor", *dataset.factor_names]
    assert np.array_equal(colourings[0].values, codes.anchors[:, 1])
    assert np.array_equal(colourings[2].values, dataset.factors(np.arange(len(dataset)))[:, 1])
    expected = PCA(2).fit_transform(codes.aligned[:, 1].astype(float))
    signs = np.sign((points * expected).sum(0))
    assert np.abs(points * signs - expected).max() < 0.1 * np.ptp(expected[:, 0])
    assert [len(row.pictures) for row in rows] == [3, 3, 3]


def test_few_factors_are_shown_of_many_those_that_the_unit_tells(explorer, monkeypatch):
    codes = explorer.sample.codes
    rng = np.random.default_rng(0)
    factors = rng.integers(3, size=(len(codes.scalars), 40)).astype(float)
    factors[:, 31] = codes.scalars[:, 2] + 0.01 * rng.standard_normal(len(factors))  # a continuous one
    factors[:, 7] = codes.scalars[:, 2] > np.median(codes.scalars[:, 2])
    explorer.__dict__["sample"] = explorer.sample._replace(factors=factors)
    told = explorer._factors_held_by(2)
    assert len(told) == pictures.MOST_FACTORS
    assert told[:2] == [31, 7]


@pytest.fixture
def curve(monkeypatch):
    """Places on a curve, and tokens (300, 3) there; the map scatters none."""
    monkeypatch.setattr(anchor_figures, "SCATTER", 0)
    line = np.random.default_rng(0).random(300)
    return line, np.stack([np.cos(2 * line), np.sin(2 * line), 0.2 * line], axis=1).astype(np.float32)


def test_principal_directions_are_scikit_learns(curve):
    _, tokens = curve
    points, words = plane(tokens, "pca", 0)
    oracle = PCA(2).fit(tokens.astype(float))
    assert np.allclose(np.abs(points), np.abs(oracle.transform(tokens)), atol=1e-5)
    assert f"{oracle.explained_variance_ratio_.sum():.0%}" in words


@pytest.mark.slow  # numba compiles PaCMAP first
def test_pacmap_keeps_neighbours(curve):
    line, tokens = curve
    points, _ = plane(tokens, "pacmap", 0)
    order = line.argsort()
    steps = np.linalg.norm(np.diff(points[order], axis=0), axis=1)
    assert np.median(steps) < 0.1 * np.ptp(points, axis=0).max()
    assert np.array_equal(plane(tokens, "pacmap", 0)[0], points)


def test_width_one_has_a_plane_too():
    points, words = plane(np.arange(5.0)[:, None], "pca", 0)
    assert points.shape == (5, 2)
    assert "100%" in words
    assert np.isfinite(plane(np.ones((4, 3)), "pca", 0)[0]).all()


def test_dispersion_is_the_part_of_the_spread_that_anchors_leave():
    rng = np.random.default_rng(0)
    anchor = rng.integers(2, size=20_000)
    scalars = 4.0 * anchor + 0.5 * rng.standard_normal(20_000)
    assert dispersion(scalars, anchor) == pytest.approx(0.5 / np.sqrt(0.25 + 4), rel=0.02)
    assert dispersion(scalars, np.zeros(20_000, int)) == pytest.approx(1)
    assert dispersion(np.full(5, 3.0), np.zeros(5, int)) == 0


def test_the_moving_picture_goes_there_and_back(model, dataset, tmp_path):
    values = unit_range(model.scalars(dataset.images(np.arange(40))), 3)
    drawn = traverse(model, dataset.images([5])[0], values, FIVE)
    path = moving_grid(drawn, tmp_path / "moving.gif", ["unit 0", "unit 1\nobject_hue", "unit 2"])
    film = Image.open(path)
    assert film.n_frames == 4
    assert film.info["loop"] == 0
    for frame, column in enumerate((0, 1, 2, 1)):
        film.seek(frame)
        pixels = np.asarray(film.convert("RGB")).astype(int)
        top = pixels.shape[0] - figures.MARGIN - 96
        for row in range(3):
            left = figures.MARGIN + row * (96 + figures.MARGIN)
            tile = pixels[top : top + 96, left : left + 96].reshape(32, 3, 32, 3, 3)[:, 1, :, 1]
            assert np.abs(tile - drawn[row, column]).mean() < 12  # a GIF has 256 colours


def cut_texts(figure):
    """Words that reach over the edge of a figure."""
    figure.draw_without_rendering()
    page = figure.bbox
    texts = [text for text in figure.findobj(figures.plt.Text) if text.get_text() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [
        words
        for words, box in boxes
        if box.x0 < page.x0 - 1 or box.y0 < page.y0 - 1 or box.x1 > page.x1 + 1 or box.y1 > page.y1 + 1
    ]


LONG = "floor colour of everything that is blue"


@pytest.mark.parametrize("num_units", [1, 20])
def test_no_label_is_cut(num_units, monkeypatch, tmp_path):
    """Of one unit and of twenty, with the longest names, of factors with many values and of one anchor or thirty."""
    kept = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: kept.append((path.name, figure)))
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(num_units, 3, 8, 8, 3), dtype=np.uint8)
    labels = [f"unit {unit}\n{LONG}" for unit in range(num_units)]
    columns = [figures.wrapped(label, pictures.LETTERS) for label in labels]
    rows = [figures.wrapped(label.replace("\n", ": "), 2 * pictures.LETTERS) for label in labels]
    caption = " ".join(["What to look for in this picture."] * 6)
    image_grid(images, tmp_path / "rows", "Title", caption, rows=rows)
    image_grid(images.swapaxes(0, 1), tmp_path / "columns", "Title", caption, columns=columns)
    maps = rng.dirichlet(np.ones(num_units), (2, 4, 4)).transpose(0, 3, 1, 2)
    attention_grid(images[0, :2], maps, tmp_path / "attention", "Title", caption, columns)
    scalars, anchor = rng.standard_normal(200), rng.integers(30, size=200)
    gaussians = np.array([[1.0], [0.0], [1.0]])
    units = [AnchoredUnit(label, scalars, anchor, gaussians, [0], images[0, :1]) for label in columns]
    anchors_figure(units, tmp_path / "anchors", "Title", caption)
    ways = [Colouring("anchor", anchor, ordered=False), *(Colouring("a_long_name", anchor % n) for n in (1, 12, 53))]
    below = [Row("image", images[0]), Row("anchor 31", images[0])]
    map_figure(rng.random((200, 2)), ways[: num_units + 1], below, tmp_path / "map", "Title", caption)
    matrix_figure(rng.random((num_units, 5)), ["a_factor"] * 5, "Title", tmp_path / "matrix", rows=labels)
    assert len(kept) == 6
    assert {name: words for name, figure in kept if (words := cut_texts(figure))} == {}
    for _, figure in kept:
        figures.plt.close(figure)


def test_gaussians_are_drawn_as_the_counts_of_a_bin(monkeypatch, tmp_path):
    kept = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: kept.append(figure))
    scalars = 2 + 0.5 * np.random.default_rng(0).standard_normal(50_000)
    gaussians = np.array([[1.0, 0.0], [2.0, 0.0], [0.5, 1.0]])  # the second is not in use
    picture = np.zeros((1, 4, 4, 3), np.uint8)
    unit = AnchoredUnit("unit", scalars, np.zeros(50_000, int), gaussians, [0], picture)
    anchors_figure([unit], tmp_path / "x", "t", "c")
    (line,) = kept[0].axes[1].lines
    x, y = line.get_data()
    edges = np.histogram_bin_edges(scalars, anchor_figures.NUM_BINS)
    counts = np.histogram(scalars, edges)[0]
    at_centres = np.interp((edges[1:] + edges[:-1]) / 2, x, y)
    assert np.abs(at_centres - counts).max() < 5 * np.sqrt(counts.max())
    assert at_centres.max() == pytest.approx(50_000 * (2 * norm.cdf((edges[1] - edges[0]) / 2 / 0.5) - 1), rel=0.02)


def test_names_of_units_are_shown_everywhere(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 200)  # the console was made at import, as wide as the terminal then was
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    assert main(["name", str(run), "1", "what  shines"]) == 0
    assert main(["name", str(run), "2", "nothing"]) == 0
    assert main(["name", str(run / "model"), "2"]) == 0  # taken away again
    assert json.loads((run / "model" / "names.json").read_text()) == {"1": "what shines"}
    explorer = Explorer.open(str(run), "", "cpu", FIVE)
    assert explorer.labels == ["unit 0", "unit 1\nwhat shines", "unit 2"]
    scores = dict.fromkeys(PUBLISHED, 0.5) | {"importance": [[0.9, 0.0], [0.1, 0.7], [0.0, 0.3]], "notes": []}
    results = {
        "scores": scores | {"accuracy_per_factor": [0.8, 0.9]},
        "untrained": scores,
        "data": {"factor_names": ["hue", "shape"], "factor_sizes": [10, 4]},
        "history": explorer.model.history,
    }
    (run / "results.json").write_text(json.dumps(results))
    assert Explorer.open(str(run), "", "cpu", FIVE).labels == ["unit 0\nhue", "unit 1\nwhat shines", "unit 2\nshape"]
    capsys.readouterr()
    show(results, explorer.model.unit_names)
    shown = " ".join(capsys.readouterr().err.split())
    assert "1 what shines (70%)" in shown
    assert "0 (90%)" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["RUN", "3", "x"], "there is no unit 3: choose from 0 to 2"),
        (["RUN", "0", LONG + "ish"], "has 42 letters: at most 40 fit a label"),
        (["rooms-cpu", "0", "x"], "rooms-cpu is not a folder of yours"),
        (["nowhere", "0", "x"], "no model 'nowhere'"),
    ],
)
def test_names_that_do_not_fit_are_refused(words, said, tiny_run, capsys):
    assert main(["name", *(str(tiny_run) if word == "RUN" else word for word in words)]) == 2
    assert said in capsys.readouterr().err
    assert not (tiny_run / "model" / "names.json").exists()


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"9": "x"}', '{"x": "y"}'])
def test_damaged_names_are_told(text, tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "model" / "names.json").write_text(text)
    with pytest.raises(unweave.UserError, match=r"names\.json"):
        unweave.load(run)


def test_names_go_with_a_model_that_is_saved_elsewhere(model, tmp_path):
    from unweave.models.folder import save_model

    named = unweave.load("rooms-cpu")
    named.unit_names = {3: "wall hue, the greens", 4: "Größe"}
    save_model(named, tmp_path / "copy")
    assert unweave.load(tmp_path / "copy").unit_names == named.unit_names
