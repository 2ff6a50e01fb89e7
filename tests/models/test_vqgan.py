"""One backward pass gives decoder and critic the gradients of their own losses; codes are looked after."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import VQModel

from unweave.config import CriticConfig, PerceptualConfig, TokenizerConfig, VQConfig, VQGANConfig
from unweave.errors import UserError
from unweave.metrics.image_quality import psnr, ssim
from unweave.models.base import eval_mode
from unweave.models.pixels import normalise, to_uint8
from unweave.models.tokenizer import make_tokenizer, write_vq
from unweave.models.vqgan import VQGAN, reconstruct
from unweave.nn.critic import hinge_loss
from unweave.presets import FIRST_STAGES

SIZES = VQConfig(channels=(8, 8), num_res_blocks=1, codebook_size=32, norm_groups=4)
SMALL = VQGANConfig(image_size=16, vq=SIZES, critic=CriticConfig(channels=4, layers=2), revive_after=0)


def images(num=4, seed=0):
    coarse = torch.rand(num, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear")


def make(config=SMALL, perceptual=None, spread=0.5):
    """A model whose codes are as far apart as its latents."""
    torch.manual_seed(0)
    model = VQGAN(config, perceptual)
    torch.nn.init.normal_(model.vq.quantize.embedding.weight, std=spread)
    return model


def gradients(loss, parameters):
    return torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)


def test_each_part_has_the_gradient_of_its_own_loss():
    """Against both losses written out, each differentiated alone with the critic's parameters in the open."""
    model = make()
    batch = images()
    model(batch).total.backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    model.zero_grad()
    seen = reconstruct(model.vq, batch)
    distance = (seen.pictures - batch).abs().mean()
    logits = -model.critic(seen.pictures).mean()
    last = [model.vq.decoder.conv_out.weight]
    ratio = gradients(distance, last)[0].norm() / (gradients(logits, last)[0].norm() + 1e-4)
    drawn = distance + seen.codebook_loss + 0.75 * ratio.clamp(0, 1e4) * logits
    judged = hinge_loss(model.critic(batch), model.critic(seen.pictures.detach()))
    for part, loss in (("vq", drawn), ("critic", judged)):
        names = [name for name in ours if name.startswith(part)]
        expected = gradients(loss, [model.get_parameter(name) for name in names])
        for name, gradient in zip(names, expected):
            torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-6)


def test_the_record_names_every_part():
    class Constant:
        def __call__(self, pictures, others):
            return torch.full((len(pictures),), 3.0) + 0 * pictures.mean((1, 2, 3))

    config = replace(SMALL, pixel=2.0, codebook=0.5, perceptual=PerceptualConfig(weight=0.1))
    losses = make(config, Constant())(images())
    parts = {name: value.item() for name, value in losses.parts.items()}
    assert parts["perceptual"] == 3
    assert parts["loss"] == pytest.approx(2 * parts["pixel"] + 0.1 * 3 + 0.5 * parts["codebook"])
    total = parts["loss"] + parts["critic_weight"] * parts["adversarial"] + parts["critic"]
    assert losses.total.item() == pytest.approx(total, rel=1e-5)


def test_what_weighs_nothing_is_not_built():
    model = make(replace(SMALL, critic=CriticConfig(weight=0), perceptual=PerceptualConfig(weight=0)))
    assert not [name for name in model.state_dict() if not name.startswith("vq.")]
    losses = model(images())
    assert sorted(losses.parts) == ["codebook", "loss", "pixel"]
    assert losses.total == losses.parts["loss"]


def test_a_critic_that_does_not_count_yet_moves_nothing():
    late = replace(SMALL, critic=replace(SMALL.critic, start=0.5))
    model, alone = make(late), make(replace(SMALL, critic=CriticConfig(weight=0)))
    alone.vq.load_state_dict(model.vq.state_dict())
    model(images(), progress=0.49).total.backward()
    alone(images(), progress=0.49).total.backward()
    assert all((parameter.grad == 0).all() for parameter in model.critic.parameters())
    for ours, theirs in zip(model.vq.parameters(), alone.vq.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad)
    model(images(), progress=0.5).total.backward()
    assert any((parameter.grad != 0).any() for parameter in model.critic.parameters())


@pytest.mark.parametrize(("beta_on", "on_codes", "on_latents"), [("latents", 1.0, 0.25), ("codes", 0.25, 1.0)])
def test_the_codebook_loss_pulls_codes_and_latents(beta_on, on_codes, on_latents):
    """van den Oord et al. 2017, equation 3: |sg(z) - e|^2 + beta |z - sg(e)|^2, means over all entries."""
    model = make(replace(SMALL, beta_on=beta_on))
    book = model.vq.quantize.embedding.weight
    latents = (0.5 * torch.randn(2, 3, 4, 4)).requires_grad_()
    quantised, loss, (_, _, codes) = model.vq.quantize(latents)
    flat = latents.detach().permute(0, 2, 3, 1).reshape(-1, 3)
    nearest = (flat[:, None] - book.detach()).square().sum(2).argmin(1)
    assert torch.equal(codes, nearest)
    difference = flat - book.detach()[nearest]
    assert loss.item() == pytest.approx((on_codes + on_latents) * difference.square().mean().item(), rel=1e-5)
    by_latents, by_codes = torch.autograd.grad(loss, [latents, book], retain_graph=True)
    expected = on_latents * 2 * difference / difference.numel()
    torch.testing.assert_close(by_latents.permute(0, 2, 3, 1).reshape(-1, 3), expected)
    pull = torch.zeros_like(book).index_add_(0, nearest, -on_codes * 2 * difference / difference.numel())
    torch.testing.assert_close(by_codes, pull)
    (through,) = torch.autograd.grad(quantised.square().sum(), latents)  # straight through: at the codes
    torch.testing.assert_close(through, 2 * quantised.detach())


def test_codes_start_as_published():
    torch.manual_seed(0)
    book = VQGAN(SMALL).vq.quantize.embedding.weight
    assert 0.9 / 32 < book.abs().max() <= 1 / 32


def test_idle_codes_become_latents_of_the_last_batch():
    model = make(replace(SMALL, revive_after=3), spread=0.05).train()
    book = model.vq.quantize.embedding.weight
    book.data[::2] += 100.0  # far from every latent
    before = book.detach().clone()
    for seed in range(3):
        model(images(seed=seed))
        assert torch.equal(book, before)
    used = model.idle == 0
    idle = model.idle >= 3
    assert idle[::2].all()
    assert used.any()
    last = reconstruct(model.vq, images(seed=2)).latents.permute(0, 2, 3, 1).reshape(-1, 3)
    model(images(seed=3))
    assert torch.equal(book[~idle], before[~idle])
    assert ((book[idle][:, None] - last).abs().sum(2).min(1).values == 0).all()
    assert (model.idle[idle] <= 1).all()
    assert "idle" in model.state_dict()  # a resumed run goes on counting


def test_the_presets_look_after_codes_or_do_not():
    assert FIRST_STAGES["vq-rooms-cpu"].config.model.revive_after > 0
    published = FIRST_STAGES["vq-rooms"].config
    assert published.model.revive_after == 0
    assert published.model.beta_on == "codes"
    # the first stage that the second's presets ask for
    assert published.model.vq == TokenizerConfig().vq
    assert published.model.channels == TokenizerConfig().channels


def test_what_is_measured_is_what_is_drawn():
    model = make()
    pictures = to_uint8(images(num=10))
    found = model.measure(pictures, batch_size=4)
    with torch.no_grad(), eval_mode(model):
        seen = reconstruct(model.vq, normalise(torch.from_numpy(pictures)))
    assert found["psnr"] == pytest.approx(psnr(pictures, to_uint8(seen.pictures)).mean())
    assert found["ssim"] == pytest.approx(ssim(pictures, to_uint8(seen.pictures)).mean())
    shares = np.bincount(seen.codes.numpy()) / len(seen.codes)
    assert found["codes_used"] == (shares > 0).sum()
    assert found["perplexity"] == pytest.approx(np.prod(shares[shares > 0] ** -shares[shares > 0]))
    distance = (seen.pictures - normalise(torch.from_numpy(pictures))).abs().mean()
    assert found["loss"] == pytest.approx((distance + seen.codebook_loss).item(), rel=1e-5)
    assert model.training


def test_the_written_folder_opens_in_diffusers_and_as_a_tokenizer(tmp_path):
    model = make().eval()
    write_vq(model.vq, tmp_path)
    batch = images(num=40)
    theirs = VQModel.from_pretrained(tmp_path).eval()
    tokenizer = make_tokenizer(TokenizerConfig(downsample=2, vq=SIZES, folder=str(tmp_path)), 16)
    tokenizer.fit(batch)
    with torch.no_grad():
        seen = reconstruct(model.vq, batch)
        torch.testing.assert_close(theirs(batch).sample, seen.pictures, rtol=0, atol=1e-5)
        latents = tokenizer.encode(batch)
        torch.testing.assert_close(latents, seen.latents / seen.latents.std(), rtol=0, atol=1e-5)
        torch.testing.assert_close(tokenizer.decode(latents), seen.pictures, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("make_config", "words"),
    [
        (
            lambda: replace(SMALL, image_size=15),
            "model.image_size is 15: the levels of the VQModel need a multiple of 2",
        ),
        (lambda: replace(SMALL, pixel=0.0), "model.pixel is 0 and there is no perceptual loss"),
        (lambda: replace(SMALL, critic=CriticConfig(layers=3)), "critic.layers is 3: too many for 16 px images"),
        (lambda: CriticConfig(weight=-1), "critic.weight is -1: must not be negative"),
        (lambda: PerceptualConfig(backbone="vgg16.pth"), "belong together"),
        (lambda: VQConfig(norm_groups=0), "vq.norm_groups is 0"),
    ],
)
def test_options_that_cannot_be_are_refused(make_config, words):
    with pytest.raises(UserError, match=words):
        make_config()
