from collections import Counter
from dataclasses import replace

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from unweave.config import UNetConfig
from unweave.errors import UserError
from unweave.nn.unet import ResBlock, SkipDropout, Transformer, UNet

SMALL = UNetConfig(
    channels=16,
    multipliers=(1, 2),
    num_res_blocks=1,
    attention_widths=(4, 2),
    num_heads=4,
    self_attention=False,
    skip_dropout_widths=(4,),
)


def small(seed=0, **changes) -> UNet:
    """A float64 U-Net of 4 x 4 latents with 5 channels and tokens of 6 numbers, its zeroed layers drawn at random."""
    torch.manual_seed(seed)
    unet = UNet(replace(SMALL, **changes), 5, 4, 6)
    for parameter in unet.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return unet.double()


def inputs(batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noisy = torch.randn(batch, 5, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.randint(0, 1000, (batch,), generator=generator)
    return noisy, t, torch.randn(batch, 7, 6, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(0)
    return UNet(UNetConfig(), latent_channels=3, latent_size=16, token_dim=32)


def record_inputs(unet, kind):
    """The shapes of the first argument at each call of the modules of a kind, filled as the network runs."""
    shapes = []
    for module in unet.modules():
        if isinstance(module, kind):
            module.register_forward_pre_hook(lambda _, arguments: shapes.append(tuple(arguments[0].shape)))
    return shapes


def test_parameter_count_is_the_published_one(published):
    assert sum(p.numel() for p in published.parameters()) == 37_549_507
    assert set(dict(published.named_buffers())) == {"time_embedding.frequencies"}
    assert "time_embedding.frequencies" not in published.state_dict()


def test_where_it_attends_and_which_skips_it_drops_from(published):
    attended, skips, dropped = record_inputs(published, Transformer), [], []

    def watch(_module, arguments, skip):
        skips.append(tuple(arguments[0].shape[1:3]))
        if not torch.equal(arguments[0], skip):
            dropped.append(skip.shape[-1])

    handle = published.skip_dropout.register_forward_hook(watch)
    published.train()(torch.randn(2, 3, 16, 16), torch.tensor([3, 900]), torch.randn(2, 20, 32))
    handle.remove()
    assert Counter(shape[-1] for shape in attended) == {16: 5, 8: 5, 4: 5, 2: 1}
    pushed = [(64, 16)] * 3 + [(64, 8)] + [(128, 8)] * 2 + [(128, 4)] + [(256, 4)] * 2 + [(256, 2)] * 3
    assert skips == pushed[::-1]
    assert dropped == [8, 8, 8, 16, 16, 16]


def test_skip_dropout_drops_whole_channels_and_preserves_the_mean():
    torch.manual_seed(0)
    drop = SkipDropout(UNetConfig(skip_dropout=0.2)).train()
    skip = torch.rand(64, 200, 8, 8) + 1
    ratio = drop(skip) / skip
    mask = ratio.amax((2, 3))  # (B, C): one number per sample and channel
    torch.testing.assert_close(ratio, mask[:, :, None, None].expand_as(ratio))
    assert mask.round(decimals=5).unique().tolist() == [0, 1.25]
    assert abs(mask.mean() - 1) < 4 * 0.5 / len(mask.flatten()) ** 0.5  # a mask entry has standard deviation 0.5
    assert len(mask.unique(dim=0)) == 64


def test_skip_dropout_of_elements():
    torch.manual_seed(0)
    drop = SkipDropout(UNetConfig(skip_dropout=0.5, skip_dropout_mode="element")).train()
    kept = drop(torch.ones(16, 16, 16, 16)) > 0
    assert 0.45 < kept.float().mean() < 0.55
    assert kept.float().mean((2, 3)).min() > 0.2  # no channel as a whole


@pytest.mark.parametrize("width", [16, 8, 4, 2])
def test_skip_dropout_is_silent_where_it_should_be(width):
    drop, skip = SkipDropout(UNetConfig()), torch.randn(4, 64, width, width)
    assert torch.equal(drop.eval()(skip), skip)
    assert torch.equal(drop.train()(skip), skip) == (width in (4, 2))


def test_it_starts_as_nothing(published):
    """Zeroed last layers: each residual branch is silent at first, and so is the whole network."""
    published.eval()
    assert not published(torch.randn(2, 3, 16, 16), torch.tensor([3, 900]), torch.randn(2, 20, 32)).any()
    blocks = [block for block in published.modules() if isinstance(block, ResBlock) and block.resample == "keep"]
    assert len(blocks) == 22
    for block in blocks:
        x = torch.randn(1, block.conv_in.in_channels, 2, 2)
        assert torch.equal(block(x, torch.randn(1, 256)), block.shortcut(x))
    x = torch.randn(1, 256, 2, 2)
    assert torch.equal(published.middle.attention(x, torch.randn(1, 20, 32)), x)


def test_time_embedding_equals_diffusers(published):
    t = torch.tensor([0, 1, 500, 999])
    expected = get_timestep_embedding(t, 64, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(published.time_embedding(t), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("self_attention", [True, False])
def test_tokens_are_a_set(self_attention):
    """Their order does not matter, their values do; a unit is known by its value alone."""
    unet, (noisy, t, tokens) = small(self_attention=self_attention).eval(), inputs()
    out = unet(noisy, t, tokens)
    torch.testing.assert_close(unet(noisy, t, tokens.flip(1)), out, rtol=0, atol=1e-12)
    changed = tokens.clone()
    changed[:, 3] += 1
    assert (unet(noisy, t, changed) - out).abs().amax((1, 2, 3)).min() > 1e-4


def test_samples_do_not_see_each_other():
    unet, (noisy, t, tokens) = small().eval(), inputs()
    alone = torch.cat([unet(noisy[i : i + 1], t[i : i + 1], tokens[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(unet(noisy, t, tokens), alone, rtol=0, atol=1e-12)


def test_attention_is_that_of_multihead_attention():
    torch.manual_seed(0)
    block = Transformer(16, 6, SMALL)
    ours, oracle = block.cross_attention, nn.MultiheadAttention(16, 4, kdim=6, vdim=6, batch_first=True)
    oracle.q_proj_weight, oracle.out_proj = ours.query.weight, ours.out
    oracle.k_proj_weight, oracle.v_proj_weight = (nn.Parameter(w) for w in ours.key_value.weight.chunk(2))
    nn.init.zeros_(oracle.in_proj_bias)
    x, context = torch.randn(3, 10, 16), torch.randn(3, 7, 6)
    torch.testing.assert_close(ours(x, context), oracle(x, context, context)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"self_attention": True},
        {"channels": 20, "num_res_blocks": 2},  # groups of norms that 32 does not fit
        {"attention_widths": (), "multipliers": (1, 2, 3), "norm_groups": 8},
    ],
)
def test_other_sizes_train_every_parameter(changes):
    unet = small(**changes)
    unet(*inputs()).square().sum().backward()
    for name, parameter in unet.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert sum(bool(p.grad.any()) for p in unet.parameters()) > 0.95 * len(list(unet.parameters()))


def test_group_norms_have_groups_that_divide():
    norms = [m for m in UNet(replace(SMALL, channels=24), 5, 4, 6).modules() if isinstance(m, nn.GroupNorm)]
    assert {(m.num_channels, m.num_groups) for m in norms} == {(24, 8), (48, 16), (72, 8), (96, 32)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 15}, "unet.channels is 15"),
        ({"num_heads": 5}, "unet.num_heads is 5"),
        ({"num_heads": 0}, "unet.num_heads is 0"),
        ({"multipliers": (1, 0)}, r"unet.multipliers is \(1, 0\)"),
        ({"skip_dropout": 1.0}, "unet.skip_dropout is 1.0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        replace(SMALL, **changes)
