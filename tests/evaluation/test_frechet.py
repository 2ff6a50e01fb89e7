"""The distance of drawn images from the data is that of their features, whatever the batches, and named for them."""

import json
from hashlib import sha256

import numpy as np
import pytest
import torch

from tests.nn.test_inception import drawn_weights
from unweave.cli import main
from unweave.config import Sampling
from unweave.data.arrays import ArrayImages
from unweave.errors import UserError
from unweave.evaluation.frechet import distance_to_data
from unweave.models.pixels import normalise
from unweave.nn.inception import Inception

FEW = Sampling(steps=4, solver="ddim", seed=3)


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(drawn_weights(), path)
    yield path
    path.unlink()


def drawn_at_once(model, dataset, num):
    """As `distance_to_data` draws, in one batch."""
    rows = np.random.default_rng(FEW.seed).integers(len(dataset), size=num)
    tokens = model.encode(dataset.images(rows)).aligned
    return model.decode(tokens, FEW.steps, seed=FEW.seed, batch_size=num, solver=FEW.solver)


@torch.no_grad()
def by_hand(features, pictures, images):
    """From the features of all images at once; tr (S S')^(1/2) as a sum of singular values."""
    one, two = (features(normalise(torch.from_numpy(found))).double().numpy() for found in (pictures, images))
    a, b = ((part - part.mean(0)) / (len(part) - 1) ** 0.5 for part in (one, two))
    overlap = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return np.sum((one.mean(0) - two.mean(0)) ** 2) + np.sum(a**2) + np.sum(b**2) - 2 * overlap


def test_it_is_the_distance_of_all_features_at_once(model, rooms):
    num = 400
    images = ArrayImages(rooms.images(np.arange(0, len(rooms), 5)))
    pictures = drawn_at_once(model, images, num)
    width = model.encoder.features(torch.zeros(1, 3, 32, 32)).shape[1]
    assert width < num
    found = distance_to_data(model, images, num, sampling=FEW)
    assert found["value"] == pytest.approx(by_hand(model.encoder.features, pictures, images.array), rel=1e-4)
    assert found["value"] > 0
    assert (found["images"], found["real_images"], found["weights"]) == (num, len(images), None)
    odd = distance_to_data(model, images, num, sampling=FEW, batch_size=37)
    assert odd["value"] == pytest.approx(found["value"], rel=1e-4)


def test_it_tells_the_data_from_other_data(model, rooms):
    images = rooms.images(np.arange(0, len(rooms), 5))
    near = distance_to_data(model, ArrayImages(images), 200, sampling=FEW)["value"]
    scrambled = np.random.default_rng(0).permuted(images, axis=0)  # each pixel from another image
    far = distance_to_data(model, ArrayImages(scrambled), 200, sampling=FEW)["value"]
    assert far > 3 * near


def test_fid_is_that_of_inceptions_features(model, rooms, inception):
    images = ArrayImages(rooms.images([0, 700, 1_400]))
    told = []
    found = distance_to_data(model, images, 3, inception, FEW, log=told.append)
    expected = by_hand(Inception.read(inception), drawn_at_once(model, images, 3), images.array)
    assert found["value"] == pytest.approx(expected, rel=1e-4)
    assert found["name"] == "FID"
    assert found["weights"] == {"file": "inception.pth", "sha256": sha256(inception.read_bytes()).hexdigest()}
    assert told[-1] == "note: 3 images for 2,048 features: the distance is far too high"


def test_the_command_writes_it_down_and_calls_it_what_it_is(tiny_run, tmp_path, capsys):
    arguments = ["frechet", str(tiny_run), "--images", "40", "--real", "30", "--steps", "4", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path), "--json"]) == 0
    printed, said = capsys.readouterr()
    found = json.loads((tmp_path / "frechet.json").read_text())
    assert json.loads(printed) == found
    assert said.splitlines()[-1].startswith(f"Frechet distance, own features: {found['value']:.4g} (")
    assert "FID" not in said + printed
    assert (found["images"], found["real_images"], found["sampling"]["steps"]) == (40, 30, 4)
    assert found["sampling"]["solver"] == "ddim"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num": 1}, "1 images: a distance needs at least 2"),
        ({"num_real": 1}, "1 real images: choose 2 to 3"),
        ({"num_real": 4}, "4 real images: choose 2 to 3"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_mistakes_are_named(model, options, words):
    with pytest.raises(UserError, match=words):
        distance_to_data(model, ArrayImages(np.zeros((3, 32, 32, 3), np.uint8)), **{"num": 2, **options})
    with pytest.raises(UserError, match=r"array has images \(16, 16, 3\): this model takes \(32, 32, 3\)"):
        distance_to_data(model, ArrayImages(np.zeros((3, 16, 16, 3), np.uint8)))
