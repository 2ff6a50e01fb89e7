"""Parity with the published modules at full size, and the way from their checkpoint to a model folder."""

import collections
import fnmatch
import json
import math
import os
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import VQModel

import unweave
from unweave.config import DiffusionConfig
from unweave.errors import UserError
from unweave.models.tokenizer import VQ
from unweave.nn.encoder import FeatureExtractor
from unweave.nn.unet import UNet
from unweave.published import convert as convert_module
from unweave.published.convert import convert
from unweave.published.names import EMA, IGNORED, UNET, published_parts, write_first_stage

FIXTURES = Path(__file__).parents[1] / "fixtures"
CONFIG = DiffusionConfig()
SCALE_FACTOR = 0.73
SCHEDULE = [name for name in IGNORED if not name.startswith(EMA)]


def fill(kind, z):
    """A tensor's values from its standard normal draws, by the rule of `published_state_dict.json`."""
    rules = {
        "*running_var": lambda: 1 + 0.1 * np.abs(z),
        "*running_mean": lambda: 0.1 * z,
        "*bias": lambda: 0.1 * z,
        "1-d": lambda: 1 + 0.1 * z,
        "else": lambda: z / math.sqrt(math.prod(z.shape[1:])),
    }
    return torch.from_numpy(rules[kind]().astype(np.float32))


@pytest.fixture(scope="session")
def published_state():
    """The published model's state dict, filled as its description says; shared, so never written into."""
    described = json.loads((FIXTURES / "published_state_dict.json").read_text())
    rng, state = np.random.default_rng(described["seed"]), {}
    for name, shape, _ in sorted(described["tensors"]):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        z = rng.standard_normal(shape)
        patterns = [rule for rule in described["rule"] if rule.startswith("*") and fnmatch.fnmatch(name, rule)]
        state[name] = fill(patterns[0] if patterns else "1-d" if len(shape) == 1 else "else", z)
    return state


@pytest.fixture(scope="module")
def parts(published_state):
    return published_parts(published_state | {"scale_factor": torch.tensor(SCALE_FACTOR)})


@pytest.fixture(scope="session")
def published_io():
    """Inputs of the published modules, and what these gave."""
    return {name: torch.from_numpy(array) for name, array in np.load(FIXTURES / "published_io.npz").items()}


def distance(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def with_average(state):
    """The state with its U-Net as the moving average, and another U-Net, all on one storage, in its place."""
    unet = {name: tensor for name, tensor in state.items() if name.startswith(UNET)}
    average = {EMA + name.removeprefix("model.").replace(".", ""): tensor for name, tensor in unet.items()}
    assert len(average) == len(unet)
    shared = torch.rand(max(tensor.numel() for tensor in unet.values()))
    raw = {name: shared[: tensor.numel()].view(tensor.shape) for name, tensor in unet.items()}
    counters = {EMA + "decay": torch.tensor(0.9999), EMA + "num_updates": torch.tensor(93_800, dtype=torch.int32)}
    return state | raw | average | counters


@torch.no_grad()
def test_feature_extractor(parts, published_io):
    encoder = FeatureExtractor(CONFIG.encoder, CONFIG.image_size)
    encoder.load_state_dict(parts.encoder)
    assert sum(p.numel() for p in encoder.parameters()) == 23_570_324
    scalars, tokens = encoder.eval()(published_io["images"])
    assert distance(scalars, published_io["unit_scalars"]) <= 1e-4
    assert distance(tokens, published_io["tokens"]) <= 1e-4


@torch.no_grad()
def test_unet(parts, published_io):
    unet = UNet(CONFIG.unet, CONFIG.tokenizer.channels, CONFIG.latent_size, CONFIG.encoder.token_dim)
    unet.load_state_dict(parts.unet)
    assert sum(p.numel() for p in unet.parameters()) == 37_549_507
    predicted = unet.eval()(*(published_io[name] for name in ("noisy_latents", "timesteps", "tokens")))
    assert distance(predicted, published_io["predicted_noise"]) <= 1e-4


@torch.no_grad()
def test_first_stage(parts, published_io):
    tokenizer = VQ(CONFIG.tokenizer, CONFIG.image_size)
    tokenizer.load_state_dict(parts.vq)
    assert sum(p.numel() for p in tokenizer.parameters()) == 3_478_078
    latents = tokenizer.encode(published_io["images"])
    assert distance(latents / SCALE_FACTOR, published_io["first_stage_latents"]) <= 1e-4
    _, _, (_, _, indices) = tokenizer.vq.quantize(latents / SCALE_FACTOR)
    assert torch.equal(indices.reshape(2, 16, 16), published_io["codebook_indices"])
    assert distance(tokenizer.decode(latents), published_io["first_stage_reconstruction"]) <= 1e-4


def test_every_number_is_used_and_every_tensor_of_ours_is_filled(parts, published_state):
    """Same count and same sum: no number of theirs is lost, none of ours is left as it was."""
    for prefix, ours in (
        ("model.", parts.unet),
        ("cond_stage_model.", parts.encoder),
        ("first_stage_model.", parts.vq),
    ):
        theirs = [tensor for name, tensor in published_state.items() if name.startswith(prefix)]
        numbers = [tensor for name, tensor in ours.items() if name != "scale"]
        assert sum(t.numel() for t in theirs) == sum(t.numel() for t in numbers)
        expected, found = (sum(t.double().sum().item() for t in tensors) for tensors in (theirs, numbers))
        assert found == pytest.approx(expected, rel=1e-9)


def test_scale_factor(parts, published_state):
    assert parts.scale_factor == parts.vq["scale"] == torch.tensor(SCALE_FACTOR)
    assert published_parts(published_state).scale_factor == 1


def test_the_first_stage_as_a_folder(parts, published_io, tmp_path):
    """diffusers reads it, and a tokenizer fitted from it has the same weights."""
    write_first_stage(parts, tmp_path / "vq")
    vq = VQModel.from_pretrained(tmp_path / "vq", local_files_only=True, use_safetensors=True).eval()
    assert vq.config.scaling_factor == parts.scale_factor
    with torch.no_grad():
        reconstruction = vq.decode(published_io["first_stage_latents"]).sample
    assert distance(reconstruction, published_io["first_stage_reconstruction"]) <= 1e-4
    tokenizer = VQ(replace(CONFIG.tokenizer, folder=str(tmp_path / "vq")), CONFIG.image_size)
    tokenizer.fit(published_io["images"])
    assert all(torch.equal(t, parts.vq[name]) for name, t in tokenizer.state_dict().items() if name != "scale")
    assert tokenizer.scale.item() == pytest.approx(1 / published_io["first_stage_latents"].std().item(), rel=1e-4)
    with pytest.raises(UserError, match="cannot write"):
        write_first_stage(parts, tmp_path / "vq" / "config.json")


def test_the_moving_average_is_told_from_the_unet(parts, published_state):
    both = published_parts(with_average(published_state))
    assert both.unet.keys() == both.unet_ema.keys()
    assert all(torch.equal(tensor, both.unet_ema[name]) for name, tensor in parts.unet.items())
    assert not any(torch.equal(tensor, both.unet_ema[name]) for name, tensor in both.unet.items())
    assert parts.unet_ema == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.diffusion_model.out.2.bias": None}, "the checkpoint has no model.diffusion_model.out.2.bias"),
        ({"model_ema.diffusion_modelout2bias": torch.zeros(3)}, "has no model_ema.diffusion_model"),
        (
            {"first_stage_model.quantize.embedding.weight": torch.zeros(512, 3)},
            r"embedding.weight has shape \(512, 3\)",
        ),
        ({"cond_stage_model.mlps.20.layers.0.bias": torch.zeros(256)}, "1 tensors .* 'cond_stage_model.mlps.20.layers"),
        ({"bad\nname": torch.zeros(1)}, r"1 tensors .* 'bad\\nname'"),
        ({"scale_factor": torch.tensor(math.nan)}, r"scale_factor in the checkpoint is \[nan\]"),
        ({"scale_factor": torch.ones(3)}, r"scale_factor in the checkpoint is \[1.0, 1.0, 1.0\]"),
    ],
)
def test_another_model_is_refused(published_state, changes, message):
    state = {name: tensor for name, tensor in (published_state | changes).items() if tensor is not None}
    with pytest.raises(UserError, match=message) as caught:
        published_parts(state)
    assert "\n" not in str(caught.value)


class Hostile:
    """Writes a file when it is unpickled in the usual way."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def unknown_class():
    """An object of a class whose module is gone when the checkpoint is read."""
    module = types.ModuleType("training_code")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": "training_code"})
    sys.modules["training_code"] = module
    yield module.ModelCheckpoint
    sys.modules.pop("training_code", None)


def lightning_content(state, hostile, unknown_class):
    """What a Lightning checkpoint of the published code holds beside its tensors, and what it should not hold."""
    callback = unknown_class()
    callback.best_score, callback.attack = torch.tensor(0.03), hostile
    noise = {name: torch.rand(1000) for name in SCHEDULE}
    critic = {"first_stage_model.loss.discriminator.main.0.weight": torch.rand(64, 3, 4, 4)}
    state_dict = collections.OrderedDict(state | noise | critic | {"scale_factor": torch.tensor(SCALE_FACTOR)})
    state_dict._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    return {
        "epoch": 99,
        "global_step": 93_800,
        "pytorch-lightning_version": "1.9.0",
        "callbacks": {unknown_class: {"monitor": None, "state": callback}, "hostile": hostile},
        "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.rand(4)}}, "param_groups": [{"lr": 1e-4}]}],
        "lr_schedulers": [],
        "hyper_parameters": {"unet_config": callback, "hostile": [hostile]},
        "state_dict": state_dict,
    }


def test_checkpoint_to_model(published_state, published_io, unknown_class, tmp_path):
    checkpoint, folder, marker = tmp_path / "epoch=000099.ckpt", tmp_path / "model", tmp_path / "it ran"
    torch.save(lightning_content(with_average(published_state), Hostile(marker), unknown_class), checkpoint)
    del sys.modules["training_code"]
    convert(checkpoint, folder)
    checkpoint.unlink()  # 270 MB
    assert not marker.exists()

    model = unweave.load(folder)
    (folder / "model.safetensors").unlink()
    codes = model.encode((published_io["images"].permute(0, 2, 3, 1) + 1) / 2)
    assert distance(torch.from_numpy(codes.scalars), published_io["unit_scalars"]) <= 1e-4
    assert distance(torch.from_numpy(codes.tokens), published_io["tokens"]) <= 1e-4
    np.testing.assert_array_equal(codes.aligned, codes.tokens)  # no anchors were fitted
    with torch.no_grad():
        predicted = model.denoiser(*(published_io[name] for name in ("noisy_latents", "timesteps", "tokens")))
        latents = model.tokenizer.encode(published_io["images"])
        reconstruction = model.tokenizer.decode(latents)
    assert distance(predicted, published_io["predicted_noise"]) <= 1e-4
    assert distance(latents, published_io["first_stage_latents"] * SCALE_FACTOR) <= 1e-4
    assert distance(reconstruction, published_io["first_stage_reconstruction"]) <= 1e-4


def test_without_an_average_the_unet_itself_is_taken(published_state, parts, monkeypatch, tmp_path):
    written = []
    monkeypatch.setattr(convert_module, "read_state_dict", lambda _: published_state)
    monkeypatch.setattr(convert_module, "save_model", lambda model, _: written.append(model))
    convert(Path("x.ckpt"), tmp_path / "folder")
    assert all(torch.equal(tensor, parts.unet[name]) for name, tensor in written[0].denoiser.state_dict().items())


def test_the_hostile_object_would_have_run(tmp_path):
    """Shows that the test above has teeth."""
    marker = tmp_path / "it ran"
    torch.save({"callbacks": Hostile(marker)}, tmp_path / "x.ckpt")
    torch.load(tmp_path / "x.ckpt", weights_only=False)
    assert marker.exists()
