"""The VAEs' losses put together by hand, and their training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from unweave.config import ExtractorConfig, VAEConfig
from unweave.data import Fixed, Rooms
from unweave.errors import UserError
from unweave.models.base import make_model
from unweave.models.pixels import normalise
from unweave.nn import penalties
from unweave.presets import PRESETS
from unweave.record import read_record
from unweave.train import train

PENALTIES = ("beta_vae", "beta_tcvae", "factor_vae", "dip_vae")


def small(penalty, weight=5.0):
    return VAEConfig(
        image_size=32,
        penalty=penalty,
        weight=weight,
        encoder=ExtractorConfig(num_units=3, channels=(8, 16), stem_kernel=4, stem_stride=4, hidden=(32,)),
        decoder_hidden=(32,),
        decoder_channels=(16, 8),
        discriminator_widths=(16, 16),
        discriminator_lr_ratio=0.5,
    )


def built(penalty, weight=5.0):
    torch.manual_seed(0)
    model = make_model(small(penalty, weight))
    torch.manual_seed(0)  # a discriminator has drawn its weights
    torch.nn.init.normal_(model.encoder.log_variance.weight, std=0.3)
    images = normalise(torch.from_numpy(Rooms(32).images(np.arange(0, 480_000, 30_000))))
    return model, images


def by_hand(model, images, seed):
    """Codes, posterior and the two parts of the evidence lower bound."""
    torch.manual_seed(seed)
    features = model.encoder.head[:-1](model.encoder.convs(images).flatten(1))
    mean, log_variance = model.encoder.head[-1](features), model.encoder.log_variance(features)
    codes = mean + (log_variance / 2).exp() * torch.randn(mean.shape)
    told = torch.distributions.Bernoulli(logits=model.decoder(codes), validate_args=False)
    reconstruction = -told.log_prob(images / 2 + 0.5).sum((1, 2, 3)).mean()
    kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1).mean()
    return codes, mean, log_variance, reconstruction, kl


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_loss_is_what_its_parts_say(penalty):
    model, images = built(penalty)
    torch.manual_seed(1)
    losses = model(images)
    codes, mean, log_variance, reconstruction, kl = by_hand(model, images, 1)
    if penalty == "beta_vae":
        expected = reconstruction + 5 * kl
    elif penalty == "beta_tcvae":
        expected = reconstruction + kl + 4 * penalties.total_correlation(codes, mean, log_variance)
    elif penalty == "dip_vae":
        expected = reconstruction + kl + 5 * penalties.covariance_penalty(mean, log_variance)
    else:
        shuffled = penalties.shuffle_units(codes)  # the generator goes on where the codes left it
        joint = model.discriminator(codes)
        labels = torch.cat([torch.zeros(16), torch.ones(16)]).long()
        own = F.cross_entropy(torch.cat([joint, model.discriminator(shuffled)]), labels)
        expected = reconstruction + kl + 5 * (joint[:, 0] - joint[:, 1]).mean() + own
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses.parts["loss"].item() == losses.total.item()
    assert losses.parts["reconstruction"].item() == pytest.approx(reconstruction.item(), rel=1e-5)
    assert losses.parts["kl"].item() == pytest.approx(kl.item(), rel=1e-5)


def test_each_part_of_factor_vae_learns_from_its_own_loss():
    """The discriminator minimises its cross entropy alone, and the encoder sees nothing of that."""
    model, images = built("factor_vae")
    torch.manual_seed(1)
    model(images).total.backward()
    codes, _, _, reconstruction, kl = by_hand(model, images, 1)
    shuffled, (encoder, critic) = penalties.shuffle_units(codes.detach()), (model.encoder, model.discriminator)
    joint = critic(codes)
    steered = reconstruction + kl + 5 * (joint[:, 0] - joint[:, 1]).mean()
    own = penalties.discriminator_loss(critic(codes.detach()), critic(shuffled))
    weights = [encoder.head[-1].weight, critic[0].weight]
    expected = (torch.autograd.grad(steered, weights[0], retain_graph=True), torch.autograd.grad(own, weights[1]))
    for weight, (gradient,) in zip(weights, expected):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_a_plain_vae_is_where_all_meet():
    losses = {}
    for penalty, weight in zip(PENALTIES, (1.0, 1.0, 0.0, 0.0)):
        model, images = built(penalty, weight)
        torch.manual_seed(1)
        found = model(images)
        losses[penalty] = (found.total - found.parts.get("discriminator", 0.0)).item()
    assert np.ptp(list(losses.values())) < 1e-3


def test_the_discriminator_has_its_own_rate_and_moments():
    model, _ = built("factor_vae")
    networks, own = model.parameter_groups()
    assert (networks["lr_ratio"], own["lr_ratio"], own["betas"]) == (1.0, 0.5, (0.5, 0.9))
    assert {id(p) for p in own["params"]} == {id(p) for p in model.discriminator.parameters()}
    assert len(networks["params"]) + len(own["params"]) == len([*model.parameters()])


class CutError(Exception):
    pass


@pytest.mark.parametrize("penalty", ["beta_vae", "beta_tcvae", "factor_vae"])
def test_cut_and_resumed_is_bit_equal_to_uninterrupted_and_learns(penalty, cache, tmp_path):
    config = PRESETS[f"{penalty.replace('_', '-')}-rooms-cpu"].config
    options = replace(config.train, images=1_920, save_every_images=960, log_every_images=320, batch_size=32)
    data = replace(config.data, fixed=PRESETS["tiny"].config.data.fixed, cache=str(cache))
    config = replace(config, data=data, model=small(penalty), train=options)

    def cut(model):
        if model.history["images"] == 960:
            raise CutError

    train(config, tmp_path / "whole", [].append)
    with pytest.raises(CutError):
        train(config, tmp_path / "cut", [].append, on_save=cut)
    train(config, tmp_path / "cut", [].append)
    whole, resumed = (
        load_file(tmp_path / name / "state" / "000000001920" / "tensors.safetensors") for name in ("whole", "cut")
    )
    assert set(whole) == set(resumed)
    assert any(name.startswith("optimizer.exp_avg.discriminator") for name in whole) == (penalty == "factor_vae")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    record = read_record(tmp_path / "whole" / "metrics.jsonl")
    assert record[-1]["held_out_loss"] < 0.95 * record[0]["held_out_loss"]
    assert record[-1]["kl"] > 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight": 0.5}, "model.weight is 0.5: beta_vae needs at least 1"),
        ({"decoder_channels": ()}, r"decoder_channels is \(\): name at least one"),
        ({"image_size": 36}, "36 px cannot be halved 4 times"),
        ({"decoder_hidden": (0,)}, r"decoder_hidden is \(0,\)"),
        ({"discriminator_lr_ratio": 0.0}, "must be positive"),
    ],
)
def test_options_that_cannot_be_used_cannot_be_made(options, words):
    with pytest.raises(UserError, match=words):
        VAEConfig(**options)


def test_the_presets_have_the_extractor_and_the_images_of_rooms_cpu():
    ours = PRESETS["rooms-cpu"].config
    for name in ("beta-vae-rooms-cpu", "beta-tcvae-rooms-cpu", "factor-vae-rooms-cpu"):
        theirs = PRESETS[name].config
        assert theirs.data == ours.data
        assert replace(theirs.train, weight_decay=ours.train.weight_decay) == ours.train
        model, rival = make_model(ours.model), make_model(theirs.model)
        assert [tuple(p.shape) for p in model.encoder.convs.parameters()] == [
            tuple(p.shape) for p in rival.encoder.convs.parameters()
        ]
        assert [tuple(p.shape) for p in model.encoder.head.parameters()] == [
            tuple(p.shape) for p in rival.encoder.head.parameters()
        ]


def test_decoded_pictures_are_the_means_of_the_pixels():
    model, _ = built("beta_vae")
    rooms = Fixed(Rooms(32), {"floor_hue": 0, "wall_hue": 5, "scale": 4, "orientation": 7})
    codes = model.eval().encode(rooms.images(np.arange(3)))
    with torch.no_grad():
        means = torch.sigmoid(model.decoder(torch.from_numpy(codes.scalars))).permute(0, 2, 3, 1).numpy()
    assert np.abs(model.decode(codes.aligned) / 255 - means).max() < 0.51 / 255
