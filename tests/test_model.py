"""A trained model in use: encoding knows no neighbours, decoding knows its noise, swapping exchanges."""

import numpy as np
import pytest
import torch

import unweave
from unweave.config import Sampling
from unweave.data import open_dataset
from unweave.errors import UserError
from unweave.estimator import UnitEncoder
from unweave.explore import reconstruct, swap, traverse, unit_range

TEN = Sampling(steps=10)


@pytest.fixture(scope="module")
def model(tiny_run):
    return unweave.load(tiny_run)


@pytest.fixture(scope="module")
def images(tiny):
    return open_dataset(tiny.data, 32, [].append).images(np.arange(40))


def test_encoding_does_not_depend_on_the_batch(model, images):
    whole, one_by_one = model.encode(images), model.encode(images, batch_size=1)
    for name in ("scalars", "tokens", "aligned"):
        assert np.abs(getattr(whole, name) - getattr(one_by_one, name)).max() < 1e-5
    assert np.array_equal(whole.anchors, one_by_one.anchors)
    as_floats = model.encode(images / np.float32(255))
    assert np.abs(as_floats.scalars - whole.scalars).max() < 1e-5


def test_a_model_in_training_mode_encodes_and_decodes_as_in_eval_mode_and_stays_in_it(model, images):
    expected = model.encode(images)
    pictures, scalars = model.decode(expected.aligned[:2], 10), model.scalars(images)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    model.train()
    try:
        codes = model.encode(images)
        for name in ("scalars", "tokens", "aligned"):
            np.testing.assert_array_equal(getattr(codes, name), getattr(expected, name))
        np.testing.assert_array_equal(model.scalars(images), scalars)
        np.testing.assert_array_equal(model.align(scalars), expected.aligned)
        np.testing.assert_array_equal(model.decode(codes.aligned[:2], 10), pictures)
        assert model.training
    finally:
        model.eval()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[0], r"add a first axis"),
        (lambda x: x[:0], r"there are no images"),
        (lambda x: x.transpose(0, 3, 1, 2), r"channels come last"),
        (lambda x: x[:, ::2], r"\(40, 16, 32, 3\): this model takes \(n, 32, 32, 3\)"),
        (lambda x: x.astype(np.int64), r"dtype int64"),
        (lambda x: x.astype(np.float32), r"floats should be in \[0, 1\]"),
        (lambda x: np.full(x.shape, np.nan, np.float32), r"floats should be in \[0, 1\]"),
    ],
)
def test_wrong_images_are_named(model, images, change, words):
    with pytest.raises(UserError, match=words):
        model.encode(change(images))


def test_decoding_is_seeded_and_an_image_does_not_depend_on_the_others(model, images):
    tokens = model.encode(images[:5]).aligned
    pictures = model.decode(tokens, steps=10, seed=3)
    assert np.abs(model.decode(tokens[:2], 10, 3).astype(int) - pictures[:2]).max() <= 1
    assert np.abs(model.decode(tokens, 10, 3, batch_size=2).astype(int) - pictures).max() <= 1
    assert not np.array_equal(model.decode(tokens, 10, 4), pictures)


def test_swapping_every_unit_gives_the_target(model, images):
    source, target = images[:3], images[20:23]
    grid = swap(model, source, target, TEN)
    assert np.array_equal(grid[:, 0], reconstruct(model, source, TEN))
    start = model.encode(source).aligned
    mixed = start.copy()
    for unit in range(mixed.shape[1]):
        alone = start.copy()
        alone[:, unit] = model.encode(target).aligned[:, unit]
        drawn = model.decode(alone, 10, noise=model.draw_noise(1, 0))
        assert np.abs(drawn.astype(int) - grid[:, 2 + unit]).max() <= 1
        mixed[:, unit] = alone[:, unit]
    all_swapped = model.decode(mixed, 10, noise=model.draw_noise(1, 0))
    assert np.abs(all_swapped.astype(int) - grid[:, 1]).max() <= 1


def test_traversal_passes_through_the_image_itself(model, images):
    scalars = model.scalars(images)
    values = unit_range(scalars, 3)
    values[:, 1] = scalars[7]
    grid = traverse(model, images[7], values, TEN)
    expected = reconstruct(model, images[7:8], TEN)[0]
    assert all(np.abs(row[1].astype(int) - expected).max() <= 1 for row in grid)


def test_scikit_learn_manner(images):
    estimator = UnitEncoder("tiny", num_images=320, batch_size=16, device="cpu").fit(images)
    codes = estimator.transform(images)
    assert codes.shape == (40, 3)
    assert np.array_equal(codes, estimator.model_.encode(images).scalars)
    again = UnitEncoder("tiny", num_images=320, batch_size=16, device="cpu").fit_transform(images)
    assert np.array_equal(codes, again)
    with pytest.raises(UserError, match="preset is 'huge'"):
        UnitEncoder("huge").fit(images)
