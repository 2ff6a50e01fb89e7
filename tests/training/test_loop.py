"""Training goes on exactly where it stopped, saves under every kind of stop, and says what went wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import unweave
from unweave.cli import main
from unweave.config import TrainConfig
from unweave.data import Rooms, open_dataset
from unweave.data.arrays import ArrayImages
from unweave.errors import UserError
from unweave.models.diffusion import DiffusionModel
from unweave.nn.noise import Schedule
from unweave.record import read_record
from unweave.train import train
from unweave.training import loop as training
from unweave.training.loop import learning_rate
from unweave.training.stages import spread

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
    """200 steps with dropout, skip dropout, both averages, two workers and anchors refitted on the way."""
    model = replace(tiny.model, unet=replace(tiny.model.unet, dropout=0.1))
    assert model.unet.skip_dropout > 0
    assert tiny.train.ema_encoder
    options = replace(tiny.train, images=3_200, workers=2, save_every_images=1_000)
    config = replace(tiny, model=model, train=options)
    train(config, tmp_path / "whole", [].append)

    arguments = [*command(config, tmp_path / "cut"), "--model.unet.dropout", "0.1"]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE)
    wait_for(lambda: images_recorded(tmp_path / "cut") >= 1_900, process)  # past the save at 1,008
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert images_recorded(tmp_path / "cut") < 3_200, "killed too late to show anything"
    subprocess.run(arguments, check=True, stderr=subprocess.PIPE)

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


def test_loss_falls_and_the_record_holds_every_step(tiny_run):
    record = read_record(tiny_run / "metrics.jsonl")
    assert record[-1]["images"] == 1_600
    losses = [loss for line in record for loss in line["per_step"]["loss"]]
    assert len(losses) == record[-1]["step"] == 100
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
    assert all(line["held_out_loss"] > 0 for line in record)
    assert record[-1]["lambda"] > 0
    assert all(alive >= 1 for alive in record[-1]["anchors_alive"])


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


def test_arithmetic_has_as_many_threads_as_asked_for(tiny, tmp_path, monkeypatch):
    before, seen, step = torch.get_num_threads(), [], training.train_step

    def watched(*arguments):
        seen.append(torch.get_num_threads())
        return step(*arguments)

    monkeypatch.setattr(training, "train_step", watched)
    for num in (1, before + 1, 0):
        train(replace(tiny, train=replace(tiny.train, images=16, threads=num)), tmp_path / str(num), [].append)
    assert seen == [1, before + 1, before]
    assert torch.get_num_threads() == before


def test_held_out_loss_is_of_images_from_the_whole_set():
    rows = np.arange(0, 9_000, 3)
    chosen = spread(rows, 1_000)
    assert np.array_equal(spread(rows[:7], 1_000), rows[:7])
    assert (chosen[0], chosen[-1], len(np.unique(chosen))) == (0, rows[-1], 1_000)
    assert set(np.diff(chosen)) == {9, 12}  # 3 or 4 rows apart
    assert np.isin(chosen, rows).all()


def test_held_out_images_are_never_trained_on(tiny):
    from unweave.training.batches import Order, split_rows

    dataset = open_dataset(tiny.data, 32, [].append)
    rows, held_out = split_rows(len(dataset), 0.1, 0)
    assert len(held_out) == round(0.1 * len(dataset))
    assert not np.isin(Order(rows, 0).rows_at(0, 5 * len(dataset)), held_out).any()


def test_saved_model_is_the_moving_average(tiny_run):
    tensors = weights(tiny_run)
    model = unweave.load(tiny_run)
    for name, tensor in model.denoiser.state_dict().items():
        assert torch.equal(tensor, tensors[f"ema.denoiser.{name}"])
    assert not torch.equal(tensors["ema.denoiser.stem.weight"], tensors["model.denoiser.stem.weight"])


def test_loss_that_is_not_finite_stops_with_the_step(tiny, tmp_path, monkeypatch):
    train(tiny, tmp_path / "run", [].append)
    add_noise = Schedule.add_noise
    calls = []

    def break_at_the_thirteenth(self, latents, noise, t):
        calls.append(1)
        return add_noise(self, latents, noise, t) * (float("nan") if len(calls) == 13 else 1.0)

    monkeypatch.setattr(Schedule, "add_noise", break_at_the_thirteenth)
    longer = replace(tiny, train=replace(tiny.train, images=3_200))
    with pytest.raises(UserError, match=r"loss is nan at step 113 .*Last good checkpoint: .*000000001600") as stop:
        train(longer, tmp_path / "run", [].append)
    assert "--train.lr" in str(stop.value)


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


def test_learning_rate_rises_stays_and_falls():
    options = TrainConfig(images=1_000, batch_size=10, lr=2.0, warmup_images=100, cooldown=0.2)
    rates = [learning_rate(options, images) for images in (0, 40, 90, 500, 800, 900, 990)]
    assert rates == pytest.approx([0.2, 1.0, 2.0, 2.0, 2.0, 1.0, 0.1])
    assert learning_rate(TrainConfig(images=1_000, batch_size=10, lr=2.0), 990) == 2.0


def test_price_of_the_bottleneck_moves_evenly_in_its_logarithm_and_settles(tiny):
    units = replace(tiny.model.encoder, beta=2.0, beta_initial=8.0, beta_annealing=0.5)
    assert [units.beta_at(part) for part in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([8.0, 4.0, 2.0, 2.0])
    assert replace(units, beta_initial=0.0).beta_at(0.0) == 2.0
    model = DiffusionModel(replace(tiny.model, encoder=units))
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    model.tokenizer.fit(images)
    found = []
    for progress in (0.0, 1.0):
        torch.manual_seed(0)
        found.append(model(images, progress))
    cost = found[0].parts["kl"] / np.prod(model.latent_shape)
    assert (found[0].total - found[1].total).item() == pytest.approx(6.0 * cost.item(), rel=1e-4)


@pytest.mark.parametrize("prediction", ["noise", "v", "image", "flow"])
@pytest.mark.parametrize("denoiser", ["unet", "transformer"])
def test_every_denoiser_learns_every_prediction(denoiser, prediction, tiny, tmp_path):
    noise = replace(tiny.model.noise, prediction=prediction, weighting="min_snr" if prediction == "noise" else "none")
    model = replace(tiny.model, denoiser=denoiser, noise=noise)
    train(replace(tiny, model=model, train=replace(tiny.train, images=1_280)), tmp_path / "run", [].append)
    losses = [loss for line in read_record(tmp_path / "run" / "metrics.jsonl") for loss in line["per_step"]["loss"]]
    assert np.mean(losses[-20:]) < 0.95 * np.mean(losses[:20])
    model = unweave.load(tmp_path / "run")
    images = open_dataset(tiny.data, 32, [].append).images(np.arange(2))
    assert np.isfinite(model.encode(images).aligned).all()
    assert model.decode(model.encode(images).aligned, steps=10).std() > 1


def test_the_model_is_shown_as_it_is_saved(tiny, tmp_path):
    seen = []
    options = replace(tiny.train, save_every_images=800)
    train(
        replace(tiny, train=options),
        tmp_path / "run",
        [].append,
        on_save=lambda model: seen.append((model.history["images"], model.training, model.denoiser.state_dict())),
    )
    assert [(images, training) for images, training, _ in seen] == [(800, False), (1_600, False)]
    saved = unweave.load(tmp_path / "run").denoiser.state_dict()
    plain = tmp_path / "plain"
    train(replace(tiny, train=options), plain, [].append)
    again = unweave.load(plain).denoiser.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in saved.items())  # looking changes nothing


def test_one_image_is_enough_to_train_and_none_is_not(tiny, tmp_path):
    image = Rooms(32).images([0])
    train(tiny, tmp_path / "one", [].append, dataset=ArrayImages(image))
    assert np.isfinite(unweave.load(tmp_path / "one").encode(image).scalars).all()
    with pytest.raises(UserError, match="the data set has no images"):
        train(tiny, tmp_path / "none", [].append, dataset=ArrayImages(image[:0]))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody may write")
@pytest.mark.parametrize("option", ["--run", "--data.cache"])
def test_a_place_that_cannot_be_written_is_named(option, tmp_path, capsys):
    arguments = ["train", "tiny", "--run", str(tmp_path / "run"), "--data.cache", str(tmp_path)]
    arguments[arguments.index(option) + 1] = "/proc/unweave"
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert "/proc/unweave" in said
