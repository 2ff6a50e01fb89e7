"""Training resumes exactly where it stopped, whatever stopped it, alone, from restarts and in several processes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import unweave
from unweave.errors import UserError
from unweave.record import read_record
from unweave.train import train
from unweave.training import loop as training

LONG = 10**9


def command(config, folder):
    """The command line that makes this run, as a subprocess can be given it."""
    options = config.train
    return [
        *(sys.executable, "-m", "unweave", "train", "tiny", "--run", str(folder), "--data.cache", config.data.cache),
        *("--train.images", str(options.images), "--train.workers", str(options.workers)),
        *("--train.save-every-images", str(options.save_every_images)),
    ]


def weights(folder):
    newest = sorted((folder / "state").iterdir())[-1]
    tensors = load_file(newest / "tensors.safetensors")
    return {name: tensor.clone() for name, tensor in tensors.items()}  # not a view of a file that a test may change


def lines(folder):
    kept = ("images", "step", "lr", "loss", "lambda", "pull_distance", "held_out_loss", "anchors_alive", "per_step")
    return [{name: line[name] for name in kept} for line in read_record(folder / "metrics.jsonl")]


def wait_for(what, process):
    for _ in range(1200):
        if what():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("waited for a minute")


def images_recorded(folder):
    path = folder / "metrics.jsonl"
    return read_record(path)[-1]["images"] if path.exists() and path.read_text() else 0


def test_killed_and_resumed_is_bit_equal_to_uninterrupted(tiny, tmp_path):
    """120 steps with dropout, skip dropout, both averages, two workers and anchors refitted on the way."""
    model = replace(tiny.model, unet=replace(tiny.model.unet, dropout=0.1))
    assert model.unet.skip_dropout > 0
    assert tiny.train.ema_encoder
    options = replace(tiny.train, images=1_920, workers=2, save_every_images=700)
    config = replace(tiny, model=model, train=options)
    train(config, tmp_path / "whole", [].append)

    arguments = [*command(config, tmp_path / "cut"), "--model.unet.dropout", "0.1"]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE)
    wait_for(lambda: images_recorded(tmp_path / "cut") >= 1_200, process)  # past the save at 704
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert images_recorded(tmp_path / "cut") < 1_920, "killed too late to show anything"
    train(config, tmp_path / "cut", [].append)

    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")


def test_interrupt_saves_and_says_how_to_go_on(tiny, tmp_path):
    config = replace(tiny, train=replace(tiny.train, images=LONG, save_every_images=LONG))
    process = subprocess.Popen(command(config, tmp_path / "run"), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: images_recorded(tmp_path / "run") > 0, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command again resumes from" in said
    assert "Traceback" not in said
    (folder,) = (tmp_path / "run" / "state").iterdir()
    assert int(folder.name) >= images_recorded(tmp_path / "run")


@pytest.fixture
def two_starts(tiny):
    few = {"images": 1_600, "restart_images": 808, "save_every_images": 400, "log_every_images": 400}
    return replace(tiny, train=replace(tiny.train, restarts=2, **few))


def test_the_start_with_the_lowest_held_out_loss_goes_on_as_if_alone(two_starts, tmp_path, monkeypatch):
    said = []
    train(two_starts, tmp_path / "run", said.append)
    starts = [read_record(tmp_path / "run" / "starts" / str(number) / "metrics.jsonl") for number in (0, 1)]
    assert [record[-1]["images"] for record in starts] == [816, 816]  # whole batches
    losses = [record[-1]["held_out_loss"] for record in starts]
    best = int(np.argmin(losses))
    assert losses[0] != losses[1]
    assert any(f"continuing with start {best + 1}" in line for line in said)

    ours = training.build  # the one way to that start's first weights
    monkeypatch.setattr(training, "build", lambda run, start, fresh: ours(run, best, fresh))
    one = replace(two_starts, train=replace(two_starts.train, restarts=1))
    train(one, tmp_path / "alone", [].append)
    chosen, alone = weights(tmp_path / "run"), weights(tmp_path / "alone")
    assert all(torch.equal(chosen[name], alone[name]) for name in alone)
    record = read_record(tmp_path / "run" / "metrics.jsonl")
    lost = starts[1 - best][-1]["seconds"]
    after = [line["seconds"] for line in record if line["images"] > 816]
    assert after[0] > starts[best][-1]["seconds"] + lost
    assert not list((tmp_path / "run" / "starts").glob("*/state"))


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 1])
def test_a_start_that_was_cut_goes_on(two_starts, tmp_path, monkeypatch, start):
    train(two_starts, tmp_path / "whole", [].append)
    step, folder = training.train_step, tmp_path / "cut"

    def cut(state, batch):
        if state.run.folder.name == str(start) and state.images >= 600:
            raise RuntimeError("cut")
        return step(state, batch)

    monkeypatch.setattr(training, "train_step", cut)
    with pytest.raises(RuntimeError, match="cut"):
        train(two_starts, folder, [].append)
    assert (folder / "starts" / str(start) / "state").is_dir()
    monkeypatch.setattr(training, "train_step", step)
    train(two_starts, folder, [].append)
    whole, again = weights(tmp_path / "whole"), weights(folder)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert lines(tmp_path / "whole") == lines(folder)


def test_starts_cannot_be_compared_without_held_out_images(two_starts, tmp_path):
    config = replace(two_starts, data=replace(two_starts.data, held_out=0.0))
    with pytest.raises(UserError, match="set data.held_out above 0"):
        train(config, tmp_path / "run", [].append)


def test_tampered_checkpoint_is_said_and_the_one_before_is_used(tiny, tmp_path):
    config = replace(tiny, train=replace(tiny.train, save_every_images=800))
    train(config, tmp_path / "run", [].append)
    reference = weights(tmp_path / "run")
    newest = sorted((tmp_path / "run" / "state").iterdir())[-1] / "tensors.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 255
    newest.write_bytes(content)
    told = []
    train(config, tmp_path / "run", told.append)
    assert any("is damaged" in line for line in told)
    assert any("resuming from 800" in line for line in told)
    assert all(torch.equal(reference[name], tensor) for name, tensor in weights(tmp_path / "run").items())


def test_finished_run_has_nothing_left_to_do(tiny, tiny_run):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*.safetensors")}
    train(tiny, tiny_run, [].append)
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*.safetensors")} == before


@pytest.mark.skipif(os.name == "nt", reason="gloo over spawn is tested on POSIX")
def test_two_processes_train_refit_and_save_together(tiny, tmp_path):
    """Without dropout and with frozen BatchNorm statistics aside, two processes see the batch that one would."""
    options = replace(tiny.train, devices=2, images=1_600)
    train(replace(tiny, train=options), tmp_path / "two", [].append)
    record = read_record(tmp_path / "two" / "metrics.jsonl")
    assert record[-1]["images"] == 1_600
    assert record[-1]["lambda"] > 0
    losses = [loss for line in record for loss in line["per_step"]["loss"]]
    assert len(losses) == 100
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
    model = unweave.load(tmp_path / "two")
    assert (model.anchors.num_alive >= 1).all()
    ranks = json.loads((tmp_path / "two" / "config.json").read_text())
    assert ranks["train"]["devices"] == 2
