"""Options survive JSON, and what is wrong with one is said with its name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from unweave.config import (
    DataConfig,
    EncoderConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
    UNetConfig,
    VQConfig,
    VQTrainConfig,
)
from unweave.configfile import differences, from_dict, read_json, to_json
from unweave.errors import UserError
from unweave.presets import PRESETS

BEFORE = Path(__file__).parent / "fixtures" / "before_the_move"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = PRESETS[name].config
    assert from_dict(RunConfig, json.loads(to_json(config))) == config


def test_options_under_the_names_of_earlier_versions_are_read():
    """`before_the_move/run` has frozen, fit, starts, kl and anchors called principled."""
    old = json.loads((BEFORE / "run" / "config.json").read_text())
    assert {"frozen", "fit"} <= set(old["data"])
    assert "kl_start" in old["model"]["encoder"]
    config = from_dict(RunConfig, old)
    assert config.data.fixed == ("floor_hue=0", "wall_hue=5", "scale=4", "orientation=7")
    assert config.data.crop == "center"
    assert (config.model.encoder.beta, config.model.encoder.beta_initial) == (0.002, 0.02)
    assert config.model.encoder.beta_annealing == 0.75
    assert config.model.anchors.mode == "corrected"
    assert (config.train.restarts, config.train.restart_images) == (1, 200_000)
    assert from_dict(RunConfig, json.loads(to_json(config))) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trian": {}}, r"unknown options \['trian'\]"),
        ({"train": {"lr": "fast"}}, "config.train.lr is 'fast': should be float"),
        ({"train": {"images": 1.5}}, "config.train.images is 1.5: should be int"),
        ({"train": {"compile": 1}}, "config.train.compile is 1: should be bool"),
        ({"train": {"workers": True}}, "config.train.workers is True: should be int"),
        ({"model": {"loss": "l3"}}, r"config.model.loss is 'l3': choose from \['l1', 'l2'\]"),
        ({"model": {"unet": {"multipliers": 3}}}, "config.model.unet.multipliers is 3: should be a list"),
        ({"train": {"lr": -1}}, "train.lr is -1.0: must be positive"),
        ({"data": 3}, "config.data should be a JSON object, found 3"),
    ],
)
def test_what_is_wrong_is_named(change, words):
    with pytest.raises(UserError, match=words):
        from_dict(RunConfig, change)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: UNetConfig(skip_dropout=1.0), "unet.skip_dropout is 1.0"),
        (lambda: UNetConfig(num_heads=7), "unet.num_heads is 7"),
        (lambda: TokenizerConfig(kind="patch", channels=13, downsample=2), "a 2 px patch has 12 components at most"),
        (lambda: TrainConfig(batch_size=10, devices=4), "must be a multiple of train.devices 4"),
        (lambda: DataConfig(fixed=("scale",)), "write factor=value"),
        (lambda: DataConfig(held_out=0.9), "data.held_out is 0.9: choose a part from 0 to 0.5"),
        (lambda: VQConfig(channels=()), r"vq.channels is \(\): name at least one"),
        (lambda: EncoderConfig(hidden=(64, 0)), r"encoder.hidden is \(64, 0\): all must be at least 1"),
        (lambda: VQTrainConfig(accumulate=0), "train.accumulate is 0: must be at least 1"),
    ],
)
def test_options_that_cannot_be_used_cannot_be_made(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_differences_name_the_options():
    ours = PRESETS["tiny"].config
    theirs = replace(ours, train=replace(ours.train, lr=1.0))
    assert differences(ours, ours) == []
    assert differences(ours, theirs) == ["train.lr: 0.002 -> 1.0"]


def test_files_that_are_missing_or_broken_are_named(tmp_path):
    with pytest.raises(UserError, match="none.json does not exist"):
        read_json(RunConfig, tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"train": ')
    with pytest.raises(UserError, match="half.json is not valid JSON"):
        read_json(RunConfig, tmp_path / "half.json")
