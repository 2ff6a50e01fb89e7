"""The joint of the parts: what training does is what the parts do, put together by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import unweave
from unweave.data import Fixed, Rooms
from unweave.data.arrays import ArrayImages
from unweave.models.diffusion import DiffusionModel
from unweave.models.pixels import normalise
from unweave.presets import PRESETS
from unweave.record import read_record
from unweave.training import loop
from unweave.training.batches import split_rows
from unweave.training.loop import learning_rate
from unweave.training.main import train

TINY = PRESETS["tiny"].config


def fitted_model(weighting="none", **options):
    """A model of the tiny preset whose denoiser says something, with anchors."""
    torch.manual_seed(0)
    noise = replace(TINY.model.noise, weighting=weighting)
    anchors = replace(TINY.model.anchors, lambda_max=1.0, k_max=1)
    model = DiffusionModel(replace(TINY.model, denoiser="transformer", noise=noise, anchors=anchors, **options))
    images = normalise(torch.from_numpy(Rooms(32).images(np.arange(0, 480_000, 30_000))))
    model.prepare(images)
    torch.nn.init.normal_(model.encoder.head[-1].weight, std=3.0)  # scalars far apart
    torch.nn.init.normal_(model.denoiser.head.weight)
    for block in model.denoiser.blocks:
        torch.nn.init.normal_(block.film.weight, std=0.1)
    with torch.no_grad():
        model.anchors.fit(model.eval().encoder.scalars(images), model.encoder.tokens, seed=0)
    return model, images


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("weighting", ["none", "min_snr"])
def test_the_loss_is_what_its_parts_say(loss, weighting):
    model, images = fitted_model(loss=loss, weighting=weighting)
    torch.manual_seed(1)
    total = model(images).total
    torch.manual_seed(1)
    scalars, latents = model.encoder.scalars(images), model.tokenizer.encode(images)
    aligned = model.anchors.align(scalars, model.encoder.tokens(scalars), model.encoder.tokens).tokens
    assert (aligned - model.encoder.tokens(scalars)).abs().max() > 0.01
    times = torch.randint(0, model.schedule.num_steps, (len(images),))
    noise = torch.randn_like(latents)
    prediction = model.denoiser(model.schedule.add_noise(latents, noise, times), times, aligned)
    error, power = (prediction - model.schedule.target(latents, noise, times)).abs(), 1 if loss == "l1" else 2
    weight = model.schedule.weight[times][:, None, None, None] ** (power / 2)
    assert total.item() == pytest.approx((weight * error**power).mean().item(), rel=1e-6)


def short(tmp_path, **options):
    """The tiny preset for 20 steps."""
    train_options = replace(TINY.train, images=320, log_every_images=320, **options)
    return replace(TINY, train=train_options, data=replace(TINY.data, cache=str(tmp_path / "cache")))


def test_a_step_has_the_rate_the_clip_and_the_progress_of_the_schedule(tmp_path, monkeypatch):
    rates, clips, calls = [], [], []
    step, clip, forward = loop.train_step, torch.nn.utils.clip_grad_norm_, DiffusionModel.forward

    def watched_step(state, batch):
        before = state.images
        result = step(state, batch)
        rates.append((before, state.optimizer.param_groups[0]["lr"]))
        return result

    def watched_forward(model, images, progress=1.0, encoded=None):
        calls.append((model.training, progress))
        return forward(model, images, progress, encoded)

    monkeypatch.setattr(loop, "train_step", watched_step)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda p, most: clips.append(most) or clip(p, most))
    monkeypatch.setattr(DiffusionModel, "forward", watched_forward)
    config = short(tmp_path, warmup_images=64, cooldown=0.5, clip=0.7)
    train(config, tmp_path / "run", [].append)
    assert [lr for _, lr in rates] == [learning_rate(config.train, images) for images, _ in rates]
    assert len({lr for _, lr in rates}) > 10
    assert clips == [0.7] * len(rates)
    assert [progress for training, progress in calls if training] == [images / 320 for images, _ in rates]
    assert np.isfinite(read_record(tmp_path / "run" / "metrics.jsonl")[-1]["loss"])


def test_the_gradient_of_a_step_is_clipped(tmp_path, monkeypatch):
    norms, step = [], torch.optim.AdamW.step

    def watched(optimizer, *arguments):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train(short(tmp_path, clip=1e-3), tmp_path / "run", [].append)
    assert len(norms) == 20
    assert max(norms) == pytest.approx(1e-3, rel=1e-3)


def test_the_saved_average_is_the_recurrence_over_the_weights_of_the_steps(tmp_path, monkeypatch):
    """min(decay, (1 + n) / (10 + n)) at update n, from the first weights on, of denoiser, encoder and their norms."""
    weights, averages, step, build = [], [], loop.train_step, loop.build

    def copies(state):
        return {
            f"{name}.{key}": value.detach().clone()
            for name, network in state.model.networks().items()
            for key, value in network.state_dict().items()
            if value.is_floating_point()
        }

    def watched_build(*arguments, **options):
        state = build(*arguments, **options)
        averages.append(copies(state))
        return state

    def watched_step(state, batch):
        result = step(state, batch)
        weights.append(copies(state))
        return result

    monkeypatch.setattr(loop, "build", watched_build)
    monkeypatch.setattr(loop, "train_step", watched_step)
    config = short(tmp_path, ema_decay=0.6)
    train(config, tmp_path / "run", [].append)
    (average,) = averages
    for update, live in enumerate(weights, start=1):
        decay = min(0.6, (1 + update) / (10 + update))
        average = {name: decay * average[name] + (1 - decay) * value for name, value in live.items()}
    saved = loop.checkpoint.load(tmp_path / "run", print).tensors
    assert {name for name in saved if name.startswith("ema.")} == {f"ema.{name}" for name in average}
    for name, value in average.items():
        torch.testing.assert_close(saved[f"ema.{name}"], value, rtol=1e-4, atol=1e-6)
        assert value.ne(weights[-1][name]).any() or value.eq(average[name]).all()
    model = unweave.load(tmp_path / "run").state_dict()
    moving = [name for name in average if name.endswith("weight")]
    assert all(torch.equal(model[name], saved[f"ema.{name}"]) for name in moving)
    assert any(not torch.equal(model[name], saved[f"model.{name}"]) for name in moving)


def test_the_saved_anchors_are_fitted_to_the_saved_average(tmp_path):
    config = short(tmp_path, ema_decay=0.6)
    config = replace(config, model=replace(config.model, anchors=replace(config.model.anchors, max_points=10**6)))
    train(config, tmp_path / "run", [].append)
    model, dataset = unweave.load(tmp_path / "run"), Fixed(Rooms(32), config.data.fixed_values)
    rows, _ = split_rows(len(dataset), config.data.held_out, config.train.seed)
    scalars = torch.from_numpy(model.scalars(dataset.images(rows)))
    torch.testing.assert_close(model.anchors.centre[:, 0], scalars.double().mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.anchors.scale, scalars.double().std(0, correction=0), rtol=1e-3, atol=0)
    newest = loop.checkpoint.load(tmp_path / "run", print).tensors
    model.encoder.load_state_dict(
        {name.removeprefix("model.encoder."): tensor for name, tensor in newest.items() if "model.encoder." in name}
    )
    last = model.scalars(dataset.images(rows)).mean(0)
    assert np.abs(last - model.anchors.centre[:, 0].numpy()).max() > 1e-3  # of the weights of the last step


def test_held_out_images_reach_no_step_and_no_fit(tmp_path, monkeypatch):
    """Each image has its row number as its colour; held-out ones are seen by the held-out loss alone."""
    num = 60
    pixels = np.repeat(np.arange(num, dtype=np.uint8), 32 * 32 * 3).reshape(num, 32, 32, 3)
    pixels[:, :4, :, 0] += 100  # no patch is constant over the set
    trained, held, encoded, prepared = set(), set(), set(), set()
    forward, units_of, prepare = DiffusionModel.forward, DiffusionModel.units_of, DiffusionModel.prepare

    def rows_of(images):
        return {round(float(value)) for value in (images[:, 1, -1, -1] + 1) * 127.5}

    def watched_forward(model, images, progress=1.0, latents=None):
        (trained if model.training else held).update(rows_of(images))
        return forward(model, images, progress, latents)

    def watched_units(model, images):
        encoded.update(rows_of(images))
        return units_of(model, images)

    def watched_prepare(model, images):
        prepared.update(rows_of(images))
        return prepare(model, images)

    monkeypatch.setattr(DiffusionModel, "forward", watched_forward)
    monkeypatch.setattr(DiffusionModel, "units_of", watched_units)
    monkeypatch.setattr(DiffusionModel, "prepare", watched_prepare)
    config = short(tmp_path)
    config = replace(config, data=replace(config.data, held_out=0.3))
    train(config, tmp_path / "run", [].append, dataset=ArrayImages(pixels))
    rows, left_out = (set(part.tolist()) for part in split_rows(num, 0.3, config.train.seed))
    assert len(left_out) == 18
    assert trained.isdisjoint(held)
    assert trained == rows
    assert held == left_out
    assert encoded == rows  # what the anchors were fitted to
    assert prepared == rows  # what the tokenizer was fitted to
