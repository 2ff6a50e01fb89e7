"""Shared by all tests: one thread per process, and rendered images kept apart from the user's."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; threads of two processes slow each other down

from dataclasses import replace

import pytest

import unweave
from unweave.config import RunConfig
from unweave.data import Fixed, Rooms
from unweave.presets import PRESETS
from unweave.train import train


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder for rendered images that the session shares."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model():
    """The bundled model."""
    return unweave.load("rooms-cpu")


@pytest.fixture(scope="module")
def rooms(model):
    """The images that it was trained on."""
    return Fixed(Rooms(32), model.trained_on.fixed_values)


@pytest.fixture(scope="session")
def tiny(cache) -> RunConfig:
    """A run of seconds: preset `tiny`, 1,600 images, anchors fitted each 640."""
    config = PRESETS["tiny"].config
    return replace(config, data=replace(config.data, cache=str(cache)), train=replace(config.train, images=1_600))


@pytest.fixture(scope="session")
def tiny_run(tiny, tmp_path_factory):
    """A finished `tiny` run's folder; tests must not write into it."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    train(tiny, folder, [].append)
    return folder
