"""The first stage is trained by the same loop: it resumes exactly, says how well it does, and serves the second."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import unweave
from unweave.cli import main
from unweave.config import (
    CriticConfig,
    DataConfig,
    RunConfig,
    TokenizerConfig,
    VQConfig,
    VQGANConfig,
    VQRunConfig,
    VQTrainConfig,
)
from unweave.configfile import from_dict
from unweave.data import Rooms, open_dataset
from unweave.data.arrays import ArrayImages
from unweave.errors import UserError
from unweave.models.tokenizer import make_tokenizer, make_vq, read_vq
from unweave.record import Record, read_record
from unweave.train import train
from unweave.training import loop as training
from unweave.training.batches import split_rows
from unweave.training.run import Run
from unweave.training.runtime import launch

SIZES = VQConfig(channels=(8, 8), num_res_blocks=1, codebook_size=16, norm_groups=4)


@pytest.fixture(scope="module")
def rooms() -> ArrayImages:
    """Some rooms at 16 px."""
    drawn = Rooms(32).images(np.random.default_rng(0).integers(480_000, size=100))
    return ArrayImages(drawn.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4)).astype(np.uint8))


@pytest.fixture(scope="module")
def small() -> VQRunConfig:
    """A run of seconds with every part that needs no file: codes revived, critic, average."""
    return VQRunConfig(
        data=DataConfig(held_out=0.4),
        model=VQGANConfig(image_size=16, vq=SIZES, revive_after=5, critic=CriticConfig(channels=4, layers=2)),
        train=VQTrainConfig(
            images=640,
            batch_size=8,
            accumulate=2,
            lr=3e-3,
            ema_decay=0.9,
            log_every_images=160,
            save_every_images=240,
            accelerator="cpu",
        ),
    )


@pytest.fixture(scope="module")
def small_run(small, rooms, tmp_path_factory):
    """A finished run's folder, and what it said; tests must not write into it."""
    folder, told = tmp_path_factory.mktemp("vq") / "run", []
    train(small, folder, told.append, dataset=rooms)
    return folder, told


def newest(folder):
    return load_file(sorted((folder / "state").iterdir())[-1] / "tensors.safetensors")


def lines(folder):
    timing = ("seconds", "images_per_second")
    return [{k: v for k, v in line.items() if k not in timing} for line in read_record(folder / "metrics.jsonl")]


def test_a_run_that_died_and_went_on_is_bit_equal_to_one_that_did_not(small, small_run, rooms, tmp_path, monkeypatch):
    """It dies between two checkpoints, with codes revived before and after."""

    class Killed(BaseException):
        pass

    def dies_at_400(state, images):
        if state.images == 400:
            raise Killed
        return train_step(state, images)

    train_step = training.train_step
    monkeypatch.setattr(training, "train_step", dies_at_400)
    with pytest.raises(Killed):
        train(small, tmp_path / "run", [].append, dataset=rooms)
    monkeypatch.setattr(training, "train_step", train_step)
    told = []
    train(small, tmp_path / "run", told.append, dataset=rooms)
    assert "resuming from 240 of 640 images" in told
    whole, cut = newest(small_run[0]), newest(tmp_path / "run")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert lines(small_run[0]) == lines(tmp_path / "run")
    assert any(name.startswith("optimizer.exp_avg.critic") for name in whole)


def test_it_learns_and_the_record_says_how_well(small, small_run):
    folder, told = small_run
    record = read_record(folder / "metrics.jsonl")
    assert record[-1]["images"] == 640
    losses = [loss for line in record for loss in line["per_step"]["loss"]]
    assert len(losses) == record[-1]["step"] == 80
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])
    assert record[-1]["psnr"] > record[0]["psnr"] + 1
    assert record[-1]["held_out_loss"] < record[0]["held_out_loss"]
    for line in record:
        assert 1 <= line["perplexity"] <= line["codes_used"] <= 16
        assert line["critic"] >= 0
        assert line["critic_weight"] > 0
        assert line["perceptual"] is None
    assert "training a VQModel with the losses of pixels, a critic; without a perceptual loss" in told[-1]
    assert "--model.perceptual.backbone" in told[-1]


def test_the_record_is_about_the_images_that_were_held_out(small, small_run, rooms):
    """The saved model is the moving average; the record's numbers are those of the weights as they are."""
    folder, _ = small_run
    _, held_out = split_rows(len(rooms), small.data.held_out, small.train.seed)
    tensors = newest(folder)
    vq = make_vq(small.model, 16).eval()
    read_vq(vq, folder / "model")
    assert torch.equal(vq.decoder.conv_out.weight, tensors["ema.vq.decoder.conv_out.weight"])
    vq.load_state_dict({n.removeprefix("model.vq."): t for n, t in tensors.items() if n.startswith("model.vq.")})
    pictures = torch.from_numpy(rooms.images(held_out)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        redrawn = vq(pictures).sample
    rounded = ((redrawn + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    errors = ((rounded - pictures) / 2).square().mean((1, 2, 3))
    expected = np.mean([-10 * math.log10(error) for error in errors])
    assert read_record(folder / "metrics.jsonl")[-1]["psnr"] == pytest.approx(expected, abs=1e-3)


def test_the_second_stage_trains_on_it(small_run, rooms, tiny, tmp_path):
    folder, _ = small_run
    tokenizer = TokenizerConfig(downsample=2, vq=SIZES, folder=str(folder / "model"))
    unet = replace(tiny.model.unet, attention_widths=(8, 4), skip_dropout_widths=(8,))
    config = replace(
        tiny,
        model=replace(tiny.model, image_size=16, tokenizer=tokenizer, unet=unet),
        train=replace(tiny.train, images=64, log_every_images=64),
    )
    told = []
    train(config, tmp_path / "run", told.append, dataset=rooms)
    assert any(line.startswith(f"vq tokenizer from {folder / 'model'}: latents scaled by") for line in told)
    model = unweave.load(tmp_path / "run")
    latents = model.tokenizer.encode(torch.from_numpy(rooms.images(np.arange(100))).permute(0, 3, 1, 2) / 127.5 - 1)
    assert latents.std().item() == pytest.approx(1, abs=0.1)
    wrong = replace(
        config, model=replace(config.model, tokenizer=replace(tokenizer, vq=replace(SIZES, codebook_size=8)))
    )
    with pytest.raises(UserError, match=r"num_vq_embeddings 16.* has 8: .*--model.tokenizer.vq.codebook-size"):
        train(wrong, tmp_path / "wrong", [].append, dataset=rooms)


@pytest.fixture(scope="module")
def on_latents(small_run, tiny):
    """A run of the second stage on the first, on the rooms of `tiny`."""
    tokenizer = TokenizerConfig(downsample=2, vq=SIZES, folder=str(small_run[0] / "model"))
    unet = replace(tiny.model.unet, attention_widths=(16, 8), skip_dropout_widths=(16,))
    options = replace(tiny.train, images=64, log_every_images=64, accumulate=2)
    return replace(tiny, model=replace(tiny.model, tokenizer=tokenizer, unet=unet), train=options)


def test_latents_are_encoded_once_and_train_the_same(on_latents, tmp_path, monkeypatch):
    caching = replace(
        on_latents,
        data=replace(on_latents.data, cache=str(tmp_path)),
        train=replace(on_latents.train, cache_latents=True, workers=1),
    )
    train(on_latents, tmp_path / "plain", [].append)
    told = []
    train(caching, tmp_path / "first", told.append)
    (path,) = tmp_path.glob("latents-*.npy")
    assert any(f"latents of rooms: converting 40 images into {path}" in line for line in told)

    model = unweave.load(tmp_path / "first")
    images = open_dataset(caching.data, 32, [].append).images(np.arange(40))
    kept = np.load(path).view(np.float16)
    latents = model.tokenizer.encode(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1) / model.tokenizer.scale
    np.testing.assert_allclose(kept, latents.numpy(), rtol=2**-10, atol=1e-4)

    plain, cached = (read_record(tmp_path / name / "metrics.jsonl")[-1] for name in ("plain", "first"))
    np.testing.assert_allclose(cached["per_step"]["loss"], plain["per_step"]["loss"], rtol=5e-3)

    monkeypatch.setattr("unweave.training.latents.LatentSource.read", None)  # not called again
    monkeypatch.setattr("unweave.training.latents.LatentSource.image_shape", None)
    told.clear()
    train(replace(caching, train=replace(caching.train, seed=1)), tmp_path / "second", told.append)
    assert not any("latents of rooms" in line for line in told)


def test_latents_that_cannot_be_kept_are_refused(on_latents, tiny, tmp_path):
    caching = replace(on_latents.train, cache_latents=True)
    little = replace(on_latents, train=caching, data=replace(on_latents.data, cache=str(tmp_path), cache_gb=1e-5))
    with pytest.raises(UserError, match=r"latents of rooms: 40 images take .* data.cache_gb is 1e-05"):
        train(little, tmp_path / "little", [].append)
    handed_over = replace(on_latents, train=caching)
    with pytest.raises(UserError, match="train.cache_latents needs images of a data set"):
        train(handed_over, tmp_path / "handed", [].append, dataset=ArrayImages(Rooms(32).images(np.arange(20))))
    with pytest.raises(UserError, match="train.cache_latents needs the tokenizer `vq`"):
        replace(tiny, train=replace(tiny.train, cache_latents=True))


def _train_two(fabric, config, folder):
    """In each of two processes; returns how far their codebooks are apart, and how many codes were ever moved."""
    dataset = ArrayImages(np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    rows, held_out = split_rows(len(dataset), config.data.held_out, 0)
    record = Record(folder / "metrics.jsonl", silent=not fabric.is_global_zero)
    run = Run(fabric, config, folder, dataset, None, rows, held_out, record, [].append)
    state = training.resume_or_build(run)
    start = state.model.vq.quantize.embedding.weight.detach().clone()
    training.run_loop(state, "training", config.train.images)
    ours = state.model.vq.quantize.embedding.weight.detach()
    books = fabric.all_gather(ours)
    return float((books[0] - books[1]).abs().max()), int(((ours - start).abs().amax(1) > 0.05).sum())


@pytest.mark.slow
def test_two_processes_revive_the_same_codes(small, tmp_path):
    config = replace(
        small,
        model=replace(small.model, revive_after=2),
        train=replace(small.train, devices=2, images=48, log_every_images=48, save_every_images=48, ema_decay=0.0),
    )
    apart, moved = launch(config.train, _train_two, config, tmp_path)
    assert apart == 0
    assert moved >= 8


def test_from_the_command_line(tiny, tmp_path, capsys):
    words = ["train", "vq-rooms-cpu", "--run", str(tmp_path / "run"), "--data.cache", tiny.data.cache]
    words += ["--data.fixed", *tiny.data.fixed, "--data.held-out", "0.2", "--model.image-size", "32"]
    words += ["--model.vq.channels", "8", "8", "16", "--model.vq.codebook-size", "16", "--model.critic.weight", "0"]
    words += ["--model.perceptual.weight", "0", "--train.images", "32", "--train.batch-size", "8"]
    assert main(words) == 0
    said = capsys.readouterr().err
    picture = tmp_path / "run" / "report" / "reconstructions.png"
    assert f"reconstructions are in {picture}" in said
    assert "perceptual" not in said
    assert picture.stat().st_size > 1_000
    (command,) = re.findall("Next: unweave (.*)", said)
    assert main([*command.split(), "--dry-run"]) == 0
    tokenizer = from_dict(RunConfig, json.loads(capsys.readouterr().out)).model.tokenizer
    make_tokenizer(tokenizer, 32).fit(torch.rand(4, 3, 32, 32))  # reads the folder: the sizes are its own

    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert "--model.tokenizer.folder" in capsys.readouterr().err
    assert main(["train", "tiny", "--run", str(tmp_path / "run")]) == 2
    assert "holds no run of this kind" in capsys.readouterr().err


def test_a_file_of_weights_that_is_not_there_is_named(small, rooms, tmp_path):
    perceptual = replace(small.model.perceptual, backbone=str(tmp_path / "vgg16.pth"), heads=str(tmp_path / "vgg.pth"))
    config = replace(small, model=replace(small.model, perceptual=perceptual))
    with pytest.raises(UserError, match=r"perceptual.backbone .*vgg16.pth cannot be read"):
        train(config, tmp_path / "run", [].append, dataset=rooms)


def test_perceptual_weights_are_in_no_checkpoint(small, rooms, tmp_path, monkeypatch):
    class Constant:
        read = classmethod(lambda cls, *_: cls())

        def __call__(self, pictures, others):
            return (pictures - others).square().mean((1, 2, 3))

    monkeypatch.setattr("unweave.training.stages.Perceptual", Constant)
    perceptual = replace(small.model.perceptual, backbone="vgg16.pth", heads="vgg.pth")
    config = replace(small, model=replace(small.model, perceptual=perceptual), train=replace(small.train, images=16))
    told = []
    train(config, tmp_path / "run", told.append, dataset=rooms)
    assert read_record(tmp_path / "run" / "metrics.jsonl")[-1]["perceptual"] > 0
    assert told[-1] == "training a VQModel with the losses of pixels, VGG16's features, a critic"
    assert {name.split(".")[1] for name in newest(tmp_path / "run") if name.startswith("model.")} == {
        "vq",
        "critic",
        "idle",
        "spare",
    }
