import pytest
import torch
from torch import nn

from unweave.config import TransformerConfig
from unweave.errors import UserError
from unweave.nn.transformer import DenoisingTransformer

B, C, SIZE, N, D = 3, 5, 4, 6, 8


def make(**options):
    torch.manual_seed(0)
    net = DenoisingTransformer(TransformerConfig(width=16, num_heads=2, **options), C, SIZE, D)
    for parameter in net.parameters():  # the zeroed branches would hide what they do
        nn.init.normal_(parameter, std=0.3)
    return net.eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    noisy, tokens = torch.randn(B, C, SIZE, SIZE, generator=generator), torch.randn(B, N, D, generator=generator)
    return noisy, torch.tensor([0, 500, 999]), tokens


def oracle(net, noisy, times, tokens):
    """The same network from torch's own attention and layer norm, one image and one position at a time."""
    width = net.stem.out_features
    rows = []
    for image, time, context in zip(noisy, times, tokens):
        angles = time * 10_000 ** (-torch.arange(width // 2) / (width // 2))
        code = torch.cat([angles.cos(), angles.sin()])
        _, first, _, second = net.time_mlp
        code = nn.functional.silu(second(nn.functional.silu(first(code))))
        h = net.stem(image.flatten(1).T) + net.positions[0]  # (L, W)
        for block in net.blocks:
            films = list(block.film(code).chunk(6 if block.self_attention else 4))
            parts = [(block.self_attention, None)] if block.self_attention else []
            for attention, memory in [*parts, (block.cross_attention, context)]:
                x = nn.LayerNorm(width, elementwise_affine=False)(h) * (1 + films.pop(0)) + films.pop(0)
                h = h + attend(attention, x, x if memory is None else memory)
            x = nn.LayerNorm(width, elementwise_affine=False)(h) * (1 + films.pop(0)) + films.pop(0)
            h = h + block.feed_forward(x)
        scale, shift = net.film(code).chunk(2)
        h = nn.LayerNorm(width, elementwise_affine=False)(h) * (1 + scale) + shift
        rows.append(net.head(h).T.reshape(C, SIZE, SIZE))
    return torch.stack(rows)


def attend(attention, x, memory):
    width, context = attention.query.in_features, attention.key_value.in_features
    theirs = nn.MultiheadAttention(width, attention.num_heads, bias=True, kdim=context, vdim=context, batch_first=True)
    key, value = attention.key_value.weight.chunk(2)
    with torch.no_grad():
        if theirs.in_proj_weight is None:
            theirs.q_proj_weight.copy_(attention.query.weight)
            theirs.k_proj_weight.copy_(key)
            theirs.v_proj_weight.copy_(value)
        else:
            theirs.in_proj_weight.copy_(torch.cat([attention.query.weight, key, value]))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.load_state_dict(attention.out.state_dict())
    return theirs(x[None], memory[None], memory[None], need_weights=False)[0][0]


@pytest.mark.parametrize("self_attention", [False, True])
def test_equals_torch_s_own_layers(inputs, self_attention):
    net = make(self_attention=self_attention)
    with torch.no_grad():
        torch.testing.assert_close(net(*inputs), oracle(net, *inputs), rtol=1e-4, atol=1e-4)


def test_positions_exchange_nothing_without_self_attention(inputs):
    noisy, times, tokens = inputs
    changed = noisy.clone()
    changed[:, :, 0, 0] += 1
    for self_attention in (False, True):
        net = make(self_attention=self_attention)
        moved = (net(noisy, times, tokens) - net(changed, times, tokens)).abs().amax((0, 1)) > 1e-5
        assert moved[0, 0]
        assert bool(moved.flatten()[1:].any()) == self_attention


def test_the_order_of_the_units_does_not_matter(inputs):
    noisy, times, tokens = inputs
    net = make()
    torch.testing.assert_close(net(noisy, times, tokens), net(noisy, times, tokens.flip(1)), rtol=1e-4, atol=1e-5)


def test_a_new_network_predicts_nothing(inputs):
    net = DenoisingTransformer(TransformerConfig(width=16, num_heads=2), C, SIZE, D)
    assert (net(*inputs) == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 15}, "transformer.width is 15: must be even"),
        ({"num_heads": 3}, "transformer.num_heads is 3: must divide"),
        ({"depth": 0}, "transformer.depth is 0: must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        TransformerConfig(**options)
