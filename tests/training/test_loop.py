"""Training learns, records what it does, and reports what went wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import unweave
from tests.training.test_resume import weights
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


def test_loss_falls_and_the_record_holds_every_step(tiny_run):
    record = read_record(tiny_run / "metrics.jsonl")
    assert record[-1]["images"] == 1_600
    losses = [loss for line in record for loss in line["per_step"]["loss"]]
    assert len(losses) == record[-1]["step"] == 100
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
    assert all(line["held_out_loss"] > 0 for line in record)
    assert record[-1]["lambda"] > 0
    assert all(alive >= 1 for alive in record[-1]["anchors_alive"])


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
