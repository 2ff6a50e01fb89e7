"""A model of another family goes wherever a model goes: each consumer of `UnitModel` takes a plain VAE.

Only attention and anchors may say that this model has none, in a sentence.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

import unweave
from unweave import explore
from unweave.config import DataConfig, ExtractorConfig, Sampling, VAEConfig
from unweave.data import Fixed, Rooms
from unweave.errors import UserError
from unweave.estimator import UnitEncoder
from unweave.evaluation import encode, frechet
from unweave.evaluation.files import read_codes
from unweave.evaluation.model import evaluate, evaluate_attributes
from unweave.models.base import make_model
from unweave.models.card import write_card
from unweave.models.folder import name_unit, save_model
from unweave.presets import PRESETS
from unweave.report.page import write_report
from unweave.report.pictures import Explorer, unit_labels
from unweave.reproduce.job import encode as encode_job
from unweave.reproduce.job import score as score_job
from unweave.viewer.session import Session

TINY = PRESETS["tiny"].config.data
CONFIG = VAEConfig(
    image_size=32,
    encoder=ExtractorConfig(num_units=4, channels=(8, 8), stem_kernel=4, stem_stride=4, hidden=(16,)),
    decoder_hidden=(16,),
    decoder_channels=(8, 8),
)


@pytest.fixture(scope="module")
def model():
    """A VAE with weights that make its units differ from image to image."""
    torch.manual_seed(0)
    made = make_model(CONFIG).eval()
    torch.nn.init.normal_(made.encoder.head[-1].weight, std=2.0)
    made.trained_on = DataConfig("rooms", fixed=TINY.fixed, cache_gb=0.0)
    made.history = {"images": 1, "step": 1, "seconds": 1.0}
    return made


@pytest.fixture(scope="module")
def rooms():
    return Fixed(Rooms(32), TINY.fixed_values)


@pytest.fixture
def explorer(model, rooms):
    return Explorer(model, rooms, unit_labels(model, None), Sampling())


def test_codes_are_what_the_encoder_says(model, rooms):
    images = rooms.images(np.arange(6))
    codes = model.encode(images, batch_size=4)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = model.encoder.head(model.encoder.convs(batch).flatten(1)).numpy()
        pixels = model.decoder(torch.from_numpy(expected)).sigmoid().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(codes.scalars, expected, atol=1e-5)
    np.testing.assert_array_equal(codes.tokens[..., 0], codes.scalars)
    np.testing.assert_array_equal(codes.aligned, codes.tokens)
    np.testing.assert_array_equal(model.scalars(images, batch_size=4), codes.scalars)
    np.testing.assert_array_equal(model.align(codes.scalars), codes.aligned)
    assert (codes.anchors == 0).all()
    np.testing.assert_allclose(model.decode(codes.aligned), 255 * pixels, atol=0.51)


def test_evaluate_scores_it_beside_an_untrained_one(model, rooms):
    results = evaluate(model, rooms, quiet=True)
    assert np.shape(results["scores"]["importance"]) == (4, 2)
    assert results["untrained"]["importance"] != results["scores"]["importance"]
    fresh, again = model.untrained(3), model.untrained(3)
    assert torch.equal(fresh.encoder.head[-1].weight, again.encoder.head[-1].weight)
    assert not torch.equal(fresh.encoder.head[-1].weight, model.encoder.head[-1].weight)


class Labelled(Fixed):
    """Rooms whose factors are said to be binary attributes."""

    def factors(self, rows):
        return super().factors(rows) % 2


def test_evaluate_attributes(model, rooms):
    results = evaluate_attributes(model, Labelled(Rooms(32), TINY.fixed_values), quiet=True)
    assert set(results["scores"]) == {"published", "exact"}
    assert len(results["scores"]["exact"]["auroc"][0]) == 4


def test_it_is_explored(model, rooms):
    images = rooms.images(np.arange(4))
    codes = model.encode(images)
    drawn = explore.reconstruct(model, images)
    np.testing.assert_array_equal(drawn, model.decode(codes.aligned))
    for inverted in (False, True):
        swapped = explore.swap(model, images[:2], images[2:], inverted=inverted)
        assert swapped.shape == (2, 6, 32, 32, 3)
        mixed = codes.aligned[:1].copy()
        mixed[:, 1] = codes.aligned[2:3, 1]
        np.testing.assert_array_equal(swapped[0, 3], model.decode(mixed)[0])
    values = explore.unit_range(codes.scalars, 3)
    moved = explore.traverse(model, images[0], values)
    scalars = codes.scalars[:1].copy()
    scalars[0, 2] = values[2, 1]
    np.testing.assert_array_equal(moved[2, 1], model.decode(model.align(scalars))[0])
    assert explore.exchange_unit(model, images, 0, np.zeros((2, 1), np.float32)).shape == (4, 2, 32, 32, 3)


def test_attention_and_anchors_say_that_it_has_none(model, rooms, explorer, tmp_path):
    with pytest.raises(UserError, match="no cross-attention"):
        explore.attention(model, rooms.images(np.arange(2)))
    with pytest.raises(UserError, match="no cross-attention"):
        explorer.attention(tmp_path)
    for ask in (lambda: explorer.anchors(tmp_path), lambda: explore.anchor_means(model, 0)):
        with pytest.raises(UserError, match="the model has no anchors"):
            ask()
    with pytest.raises(UserError, match="no unit 9"):
        explore.anchor_means(model, 9)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_it_is_encoded_into_a_file(model, rooms, tmp_path, suffix):
    path = tmp_path / f"codes{suffix}"
    encode._WRITERS[suffix](model, rooms, path, 64)
    np.testing.assert_allclose(read_codes(path), model.scalars(rooms.images(np.arange(len(rooms)))), atol=1e-6)


def test_its_distance_to_the_data_is_of_its_own_features(model, rooms):
    found = frechet.distance_to_data(model, rooms, 20, num_real=40)
    assert found["features"] == "the model's own extractor, 16"
    assert np.isfinite(found["value"])


def test_it_is_saved_named_and_loaded(model, rooms, tmp_path):
    save_model(model, tmp_path)
    name_unit(tmp_path, 1, "hue")
    loaded = unweave.load(tmp_path)
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert loaded.unit_names == {1: "hue"}
    images = rooms.images(np.arange(3))
    np.testing.assert_array_equal(loaded.scalars(images), model.scalars(images))
    card = (tmp_path / "README.md").read_text()
    assert "beta-vae with weight 4" in card
    assert "diffusion" not in card
    write_card(model, tmp_path)


def test_its_pictures_and_pages_are_drawn(model, explorer, tmp_path):
    for picture in (explorer.reconstructions(tmp_path), explorer.swaps(tmp_path), explorer.traversals(tmp_path)):
        assert picture.path.stat().st_size > 1_000
    assert explorer.figure1(tmp_path, 2).path.exists()
    beside = Explorer(unweave.load("rooms-cpu"), explorer.dataset, [f"unit {n}" for n in range(10)], Sampling(steps=2))
    page = write_report({"vae": explorer, "rooms-cpu": beside}, tmp_path / "report.html").read_text()
    assert "beta-vae with weight 4" in page
    assert "model: beta-vae with weight 4" in page


def test_the_viewer_reads_and_moves_it(model, explorer, rooms):
    session = Session("vae", explorer)
    seen = session.see(rooms.images([3])[0])
    readings = session.readings(seen)
    assert [round(reading.value, 5) for reading in readings] == [round(float(v), 5) for v in seen.codes.scalars[0]]
    assert all(reading.anchors == [] for reading in readings)
    np.testing.assert_array_equal(session.mix(seen, seen, [0]), model.decode(seen.codes.aligned)[0])
    assert session.move(seen.codes.scalars[0]).shape == (32, 32, 3)
    assert len(session.maps) == 4


def test_a_table_of_the_paper_scores_it(model, rooms, tmp_path):
    encode_job(model, rooms, tmp_path / "codes.npz")
    with np.load(tmp_path / "codes.npz", allow_pickle=False) as codes:
        assert set(score_job(codes["scalars"], rooms, "robust", 0)) >= {"factor_vae", "dci_disentanglement"}
        assert codes["components"].shape == codes["scalars"].shape


def test_the_estimator_trains_it(rooms, monkeypatch):
    preset = PRESETS["beta-vae-rooms-cpu"]
    monkeypatch.setitem(PRESETS, "small-vae", preset._replace(config=replace(preset.config, model=CONFIG)))
    images = rooms.images(np.arange(len(rooms)))
    units = UnitEncoder("small-vae", num_images=128, device="cpu").fit(images).transform(images[:5])
    assert units.shape == (5, 4)
    assert np.ptp(units, axis=0).min() > 0
