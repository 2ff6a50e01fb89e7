"""What the viewer answers, without a browser: of the bundled model."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.stats import kstest, norm
from sklearn.neighbors import NearestNeighbors

import unweave
from unweave.config import Sampling
from unweave.errors import UserError
from unweave.explore import anchor_means, exchange_unit, reconstruct
from unweave.models.diffusion import DiffusionModel
from unweave.models.folder import find, save_model
from unweave.report.anchor_figures import colour, dot_map
from unweave.report.pictures import Explorer
from unweave.viewer import parts
from unweave.viewer.session import MOST_BYTES, NEIGHBOUR, Drawn, Reading, Session, Typical


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder of one's own: the bundled model, copied."""
    copy = tmp_path_factory.mktemp("viewed") / "rooms"
    shutil.copytree(find("rooms-cpu"), copy)
    return copy


@pytest.fixture(scope="module")
def session(folder):
    return Session.open(str(folder), "", "cpu", Sampling(steps=5))


@pytest.fixture(scope="module")
def seen(session):
    return session.see(session.examples[0])


def test_probabilities_of_anchors_are_those_of_the_mixture(session, seen):
    weights, means, deviations = (part.numpy() for part in session.model.anchors.on_scalars)
    for unit, reading in enumerate(session.readings(seen)):
        alive = len(session.anchors_of(unit))
        joint = weights[unit, :alive] * norm.pdf(reading.value, means[unit, :alive], deviations[unit, :alive])
        expected = joint / joint.sum()
        assert [anchor for anchor, _ in reading.anchors] == np.argsort(-expected)[: len(reading.anchors)].tolist()
        assert all(share == pytest.approx(expected[anchor], abs=1e-6) for anchor, share in reading.anchors)
        assert reading.anchors[0][0] == seen.codes.anchors[0, unit]
        low, high = np.quantile(session.explorer.sample.codes.scalars[:, unit], [0.01, 0.99])
        assert reading.place == pytest.approx(np.clip((reading.value - low) / (high - low), 0, 1), abs=1e-4)


def test_typical_is_the_share_of_lonelier_images(session):
    known = session.explorer.sample.codes.scalars
    fresh = session.model.encode(session.explorer.draw_images(40, 99)).scalars
    found = Typical(known).shares(fresh)
    for unit in (0, 5):
        neighbours = NearestNeighbors(n_neighbors=NEIGHBOUR + 1).fit(known[:, [unit]].astype(np.float64))
        among = neighbours.kneighbors(known[:, [unit]].astype(np.float64))[0][:, -1]  # the nearest is itself
        away = neighbours.kneighbors(fresh[:, [unit]].astype(np.float64))[0][:, NEIGHBOUR - 1]
        expected = ((among >= away[:, None]).sum(axis=1) + 1) / (len(known) + 1)
        assert found[:, unit] == pytest.approx(expected)


def test_typical_is_uniform_whatever_the_distribution():
    rng = np.random.default_rng(0)
    two_humps = rng.normal(size=(3000, 1)) * 0.2 + rng.choice([-3, 3], (3000, 1), p=[0.8, 0.2])
    values = np.concatenate([two_humps, rng.exponential(size=(3000, 1))], axis=1)
    shares = Typical(values[:2000]).shares(values[2000:])
    assert all(kstest(column, "uniform").pvalue > 0.01 for column in shares.T)
    assert (Typical(values).shares(np.array([[0.0, 20.0]])) < 0.001).all()  # between the humps, and far out


def test_noise_is_unlike_the_data_and_its_images_are_not(session):
    noise = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    assert any(reading.odd for reading in session.readings(session.see(noise)))
    assert not any(reading.odd for reading in session.readings(session.see(session.examples[3])))


def test_a_mix_is_what_the_library_draws(session, seen):
    other, sampling = session.see(session.examples[1]), session.explorer.sampling
    images = seen.image[None]
    assert np.array_equal(session.mix(seen, other, []), reconstruct(session.model, images, sampling)[0])
    swapped = exchange_unit(session.model, images, 8, other.codes.aligned[:, 8], sampling)[0, 0]
    assert np.array_equal(session.mix(seen, other, [8]), swapped)
    everything = session.mix(seen, other, range(session.num_units))
    assert np.array_equal(everything, reconstruct(session.model, other.image[None], sampling)[0])
    with pytest.raises(UserError, match="no unit 10"):
        session.mix(seen, other, [10])


def test_moving_every_unit_to_where_another_picture_has_it_gives_that(session, seen):
    other = session.see(session.examples[1])
    moved = session.move(other.codes.scalars[0].tolist())
    assert np.abs(moved.astype(int) - session.mix(other, seen, []).astype(int)).max() <= 1


def test_an_anchor_draws_with_its_tokens(session, seen):
    as_they_are, mean, member, drawn = session.drawn_from(seen, 5, 2)
    assert np.array_equal(as_they_are.pictures[0], seen.image)
    expected = exchange_unit(
        session.model, as_they_are.pictures, 5, anchor_means(session.model, 5)[[2]], session.explorer.sampling
    )[:, 0]
    assert np.array_equal(mean.pictures, expected)
    assert len({row.pictures.tobytes() for row in (mean, member, drawn)}) == 3
    with pytest.raises(UserError, match="unit 5 has no anchor 9"):
        session.drawn_from(seen, 5, 9)


def test_a_dot_is_found_where_it_is_drawn():
    rng = np.random.default_rng(0)
    anchors = rng.integers(2, size=300)
    points = rng.normal(size=(300, 2)) * 0.1 + np.array([[0, 0], [5, 3]])[anchors]
    found = dot_map(points, anchors)
    for dot in range(0, 300, 30):
        x, y = found.pixels[dot]
        assert found.nearest(x, y) == anchors[dot]
    shades = {tuple(round(255 * part) for part in colour(anchor)) for anchor in (0, 1)}
    assert shades <= set(map(tuple, found.picture.reshape(-1, 3)))
    for anchor in (0, 1):
        rows, columns = np.nonzero((found.picture == [round(255 * part) for part in colour(anchor)]).all(axis=2))
        assert all(found.nearest(x, y) == anchor for x, y in zip(columns[::50], rows[::50]))
    assert found.pixels[points[:, 1].argmax(), 1] == found.pixels[:, 1].min()  # up is up


def test_a_constant_unit_has_a_map():
    assert dot_map(np.zeros((5, 2)), np.zeros(5, int)).nearest(0, 0) == 0


def test_uploads(session, tmp_path):
    Image.fromarray(np.tile(session.examples[4], (1, 2, 1))).save(tmp_path / "wide.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "square.jpg")
    assert session.read(tmp_path / "wide.png").shape == (32, 32, 3)
    assert np.abs(session.read(tmp_path / "square.jpg").astype(int) - [254, 0, 0]).max() <= 1
    (tmp_path / "words.png").write_text("no picture")
    (tmp_path / "large.png").write_bytes(b"\0" * (MOST_BYTES + 1))
    with pytest.raises(UserError, match="not a picture"):
        session.read(tmp_path / "words.png")
    with pytest.raises(UserError, match=r"10\.0 MB: the limit is 10 MB"):
        session.read(tmp_path / "large.png")


def test_names_are_kept_with_the_model_and_shown(session, folder, seen):
    session.name(3, "  height of\nthe object ")
    assert session.labels[3] == "unit 3: height of the object"
    assert unweave.load(folder).unit_names == {3: "height of the object"}
    assert session.readings(seen)[3].label == session.labels[3]
    session.name(3, "")
    assert session.labels[3] == "unit 3"
    bundled = Session("rooms-cpu", session.explorer)
    with pytest.raises(UserError, match="not a folder of yours"):
        bundled.name(3, "height")


def test_card_without_its_header(session):
    assert session.card().startswith("<!--")
    assert "FactorVAE" in session.card()


def test_a_model_without_anchors_has_none(tiny, tmp_path):
    config = replace(tiny.model, anchors=replace(tiny.model.anchors, mode="off"))
    model = DiffusionModel(config).eval()
    model.trained_on = tiny.data
    save_model(model, tmp_path / "plain")
    session = Session("plain", Explorer.open(str(tmp_path / "plain"), "", "cpu", Sampling(steps=2)))
    assert session.anchors_of(0) == []
    assert session.readings(session.see(session.examples[0]))[0].anchors == []


def test_parts_escape_what_was_typed(session):
    image = session.examples[0]
    evil = "<script>alert(1)</script>"
    reading = Reading(evil, 0.5, 0.5, [(0, 1.0)], 0.01, True)
    for text in (
        parts.pictures([(evil, image)]),
        parts.readings([reading], 5),
        parts.rows([Drawn(evil, image[None])]),
    ):
        assert "<script>" not in text
        assert "&lt;script&gt;" in text
