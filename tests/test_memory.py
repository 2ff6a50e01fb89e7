"""What an earlier version saved is still worth something: its runs go on, and its models say the same.

The fixtures were written before models had a common base and training a package of its own, see `fixtures/README.md`.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import unweave
from unweave.config import RunConfig
from unweave.configfile import read_json
from unweave.data import Fixed, Rooms
from unweave.train import train

BEFORE = Path(__file__).parent / "fixtures" / "before_the_move"
MADE_WITH = json.loads((BEFORE / "made_with.json").read_text())
SAME_ARITHMETIC = {"torch": torch.__version__, "processor": torch.backends.cpu.get_cpu_capability()} == MADE_WITH
TOLERANCE = 1e-6 if SAME_ARITHMETIC else 1e-2
"""Rounding differs between processors and versions, and Adam makes much of little."""


def test_a_half_finished_run_of_an_earlier_version_ends_with_the_weights_it_led_to(cache, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(BEFORE / "run", run)
    config = read_json(RunConfig, run / "config.json")
    config = replace(config, data=replace(config.data, cache=str(cache)))
    said = []
    train(config, run, said.append)
    assert "resuming from 800 of 1,600 images" in said
    ours, theirs = unweave.load(run).state_dict(), unweave.load(BEFORE / "final").state_dict()
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        torch.testing.assert_close(
            tensor, theirs[name], rtol=TOLERANCE, atol=TOLERANCE, msg=lambda m, n=name: f"{n} {m}"
        )
    moved = load_file(run / "state" / "000000000800" / "tensors.safetensors")
    assert any((tensor - moved[f"model.{name}"]).abs().max() > 0.01 for name, tensor in ours.items() if "convs" in name)


def test_the_bundled_model_says_what_it_said():
    model = unweave.load("rooms-cpu")
    with np.load(BEFORE / "rooms-cpu-scalars.npz", allow_pickle=False) as before:
        images = Fixed(Rooms(32), model.trained_on.fixed_values).images(before["rows"])
        codes = model.encode(images)
        np.testing.assert_allclose(codes.scalars, before["scalars"], rtol=0, atol=1e-6 if SAME_ARITHMETIC else 1e-4)
        np.testing.assert_allclose(codes.aligned, before["aligned"], rtol=0, atol=1e-6 if SAME_ARITHMETIC else 1e-4)
        np.testing.assert_array_equal(codes.anchors, before["anchors"])
