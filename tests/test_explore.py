"""Looking at units: an image keeps what was not changed, anchors draw themselves, attention is what it says it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import unweave
from unweave.config import AnchorConfig, NoiseConfig, Sampling, TokenizerConfig, TransformerConfig
from unweave.data import Fixed, Rooms
from unweave.errors import UserError
from unweave.explore import anchor_draws, anchor_means, anchor_members, attention, exchange_unit, reconstruct, swap
from unweave.models.diffusion import DiffusionModel
from unweave.models.pixels import normalise, to_uint8
from unweave.presets import PRESETS


@pytest.fixture(scope="module")
def codes(model, rooms):
    return model.encode(rooms.images(np.arange(0, len(rooms), 7)))


def seen_through_the_tokenizer(model, images):
    """What of images the latents can hold."""
    latents = model.tokenizer.encode(normalise(torch.from_numpy(images)))
    return to_uint8(model.tokenizer.decode(latents)).astype(int)


@pytest.mark.parametrize("solver", ["ddim", "dpm"])
def test_an_image_comes_back_from_the_noise_it_comes_from(model, rooms, solver):
    images = rooms.images(np.arange(0, len(rooms), 400))
    tokens, held = model.encode(images).aligned, seen_through_the_tokenizer(model, images)
    noise = model.invert(images, tokens, 20, solver=solver)
    back = np.abs(model.decode(tokens, 20, noise=noise, solver=solver) - held)
    assert back.mean() < 0.25
    assert back.max() <= 6
    shared = np.abs(reconstruct(model, images, Sampling(20, 0, solver)) - held)
    assert shared.mean() > 3 * back.mean()


def test_inverted_noise_keeps_the_pixels_that_a_swap_should_not_touch(model, rooms):
    factors = rooms.factors(np.arange(0, len(rooms), 400))
    other = factors.copy()
    hue = rooms.factor_names.index("object_hue")
    other[:, hue] = (other[:, hue] + 5) % rooms.factor_sizes[hue]
    source, target = rooms.images(rooms.index(factors)), rooms.images(rooms.index(other))
    held = seen_through_the_tokenizer(model, source)
    reached = (seen_through_the_tokenizer(model, target) != held).any(axis=3)  # in patches with a part of the object
    units = np.abs(model.scalars(target) - model.scalars(source)).mean(0).argsort()[-3:]  # of the object's hue
    errors = {
        inverted: np.abs(swap(model, source, target, inverted=inverted)[:, 2 + units] - held[:, None]).mean(axis=4)
        for inverted in (True, False)
    }
    far = np.broadcast_to(~reached[:, None], errors[True].shape)
    assert far.mean() > 0.3
    assert errors[True][far].mean() < 0.7 * errors[False][far].mean()
    assert errors[True][far].mean() < 1


def test_inversion_wants_tokens_for_each_image(model, rooms):
    images = rooms.images([0, 1])
    with pytest.raises(UserError, match="2 images and tokens of 1"):
        model.invert(images, model.encode(images[:1]).aligned)


def test_redrawing_with_the_token_that_is_there_changes_nothing(model, rooms):
    images = rooms.images([3, 2500])
    tokens = model.encode(images).aligned[:, 3]
    grid = exchange_unit(model, images, 3, tokens)
    assert grid.shape == (2, 2, 32, 32, 3)
    own = np.stack([grid[0, 0], grid[1, 1]]).astype(int)
    assert np.abs(own - reconstruct(model, images)).max() <= 1
    assert np.abs(grid[0, 1].astype(int) - own[0]).max() > 20
    with pytest.raises(UserError, match="no unit 10: choose from 0 to 9"):
        exchange_unit(model, images, 10, tokens)


def test_the_mean_of_an_anchor_belongs_to_it(model, codes):
    """Read back from the curve of the unit's tokens: the scalar whose token is nearest is assigned to that anchor."""
    anchors = model.anchors
    for unit in range(10):
        means = anchor_means(model, unit)
        assert len(means) == anchors.num_alive[unit]
        line = torch.linspace(*np.quantile(codes.scalars[:, unit], [0, 1]), 3_000)
        scalars = line[:, None].expand(-1, 10)
        curve = model.encoder.tokens(scalars)
        index = anchors.align(scalars, curve, model.encoder.tokens).gaussian[:, unit]
        nearest = torch.cdist(torch.from_numpy(means), curve[:, unit]).argmin(1)
        assert index[nearest].tolist() == list(range(len(means)))
        expected = anchors.means[unit, : len(means), 0] * anchors.scale[unit] + anchors.centre[unit, 0]
        assert torch.allclose(line[nearest].double(), expected, atol=5e-3)


def test_draws_of_an_anchor_have_its_mean_and_spread():
    """Units whose token is their scalar twice over: drawn tokens are drawn scalars, pulled as those of images are."""
    config = replace(PRESETS["tiny"].config.model, anchors=AnchorConfig(lambda_max=0.0))
    model = DiffusionModel(config)
    model.encoder.tokens = lambda scalars: torch.stack([scalars, 2 * scalars], 2)
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([-4.0, 1.0, 3.0])[torch.randint(3, (6_000, 3), generator=generator)]
    model.anchors.fit(places + 0.3 * torch.randn(6_000, 3, generator=generator), model.encoder.tokens, seed=0)
    for anchor, place in enumerate((-4.0, 1.0, 3.0)):
        drawn = anchor_draws(model, 1, anchor, 4_000)
        assert drawn[:, 0].mean() == pytest.approx(place, abs=0.03)
        assert drawn[:, 0].std() == pytest.approx(0.3, rel=0.08)
        assert np.allclose(drawn[:, 1], 2 * drawn[:, 0])
        assert anchor_draws(model, 1, anchor, 4_000, spread=2.0)[:, 0].std() == pytest.approx(0.6, rel=0.08)
    assert np.array_equal(anchor_draws(model, 1, 0, 5, seed=3), anchor_draws(model, 1, 0, 5, seed=3))
    assert not np.array_equal(anchor_draws(model, 1, 0, 5, seed=3), anchor_draws(model, 1, 0, 5, seed=4))


@pytest.mark.parametrize(("mode", "space"), [("corrected", "token"), ("published", "scalar")])
def test_anchors_of_tokens_are_drawn_where_their_tokens_are(mode, space):
    """Three levels of the scalar: each token space anchor draws near the tokens of the images assigned to it."""
    torch.manual_seed(0)
    model = DiffusionModel(replace(PRESETS["tiny"].config.model, anchors=AnchorConfig(mode=mode, space=space))).eval()
    scalars = torch.tensor([-4.0, 1.0, 3.0])[torch.randint(3, (2_000, 3))] + 0.05 * torch.randn(2_000, 3)
    tokens = model.encoder.tokens(scalars).detach()
    model.anchors.fit(scalars, model.encoder.tokens, seed=0)
    aligned = model.anchors.align(scalars, tokens, model.encoder.tokens)
    for unit in range(3):
        for anchor in range(int(model.anchors.num_alive[unit])):
            members = tokens[aligned.gaussian[:, unit] == anchor, unit]
            if len(members) < 50:
                continue
            reach = (tokens[:, unit] - tokens[:, unit].mean(0)).norm(dim=1).mean()
            drawn = torch.from_numpy(anchor_draws(model, unit, anchor, 500))
            assert (drawn.mean(0) - members.mean(0)).norm() < 0.1 * reach
            mean = torch.from_numpy(anchor_draws(model, unit, anchor, 1, spread=0))[0]
            assert (mean - members.mean(0)).norm() < 0.1 * reach


def test_members_of_an_anchor_are_real(codes):
    for anchor in np.unique(codes.anchors[:, 2]):
        drawn = anchor_members(codes, 2, anchor, 6, seed=1)
        rows = [np.flatnonzero((codes.aligned[:, 2] == token).all(1)) for token in drawn]
        assert all((codes.anchors[row, 2] == anchor).all() for row in rows)
    with pytest.raises(UserError, match=r"none of these [\d,]+ images belongs to anchor 31 of unit 2"):
        anchor_members(codes, 2, 31, 1)


def test_anchors_that_are_not_there_are_named(model):
    alive = int(model.anchors.num_alive[1])
    with pytest.raises(UserError, match=f"unit 1 has no anchor {alive}: choose from 0 to {alive - 1}"):
        anchor_draws(model, 1, alive, 1)
    with pytest.raises(UserError, match="no unit -1"):
        anchor_means(model, -1)
    without = DiffusionModel(replace(PRESETS["tiny"].config.model, anchors=AnchorConfig(mode="off")))
    with pytest.raises(UserError, match="the model has no anchors"):
        anchor_means(without, 0)


def numbers(module):
    return {name: value.detach().double().numpy() for name, value in module.named_parameters()}


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_hand(weights, x, context, num_heads):
    """Attention maps (B, L, M), averaged over heads, of named arrays."""
    query, key = x @ weights["query.weight"].T, (context @ weights["key_value.weight"].T)[..., : x.shape[2]]
    heads = []
    for head in np.split(np.arange(x.shape[2]), num_heads):
        heads.append(softmax(query[..., head] @ key[..., head].swapaxes(1, 2) / np.sqrt(len(head))))
    return np.mean(heads, axis=0)


def test_attention_of_one_block_is_what_a_hand_computes():
    """One block, one step: positions as the net sees them in pure noise, in NumPy."""
    torch.manual_seed(1)
    config = replace(
        PRESETS["tiny"].config.model,
        denoiser="transformer",
        transformer=TransformerConfig(width=8, depth=1, num_heads=2),
        tokenizer=TokenizerConfig(kind="pixels", channels=3, downsample=1),
        noise=NoiseConfig(prediction="v"),
    )
    model = DiffusionModel(config).eval()
    torch.nn.init.normal_(model.denoiser.blocks[0].film.weight)
    images = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3), dtype=np.uint8)
    found = attention(model, images, Sampling(steps=1, seed=5))

    net = numbers(model.denoiser)
    noise = model.draw_noise(1, 5).double().numpy()
    h = noise.reshape(1, 3, -1).swapaxes(1, 2) @ net["stem.weight"].T + net["stem.bias"] + net["positions"]
    code = model.denoiser.time_mlp(torch.tensor([999])).detach().double().numpy()
    code = code / (1 + np.exp(-code))
    scale, shift = np.split(code @ net["blocks.0.film.weight"].T + net["blocks.0.film.bias"], 4, axis=1)[:2]
    normed = (h - h.mean(2, keepdims=True)) / np.sqrt(h.var(2, keepdims=True) + 1e-5)
    x = normed * (1 + scale) + shift
    tokens = model.encode(images).aligned.astype(float)
    expected = by_hand(numbers(model.denoiser.blocks[0].cross_attention), x, tokens, 2)  # (2, L, N)
    np.testing.assert_allclose(found, expected.swapaxes(1, 2).reshape(2, 3, 32, 32), atol=1e-5)


def test_attention_is_the_mean_over_levels_and_steps(tiny_run, tiny):
    """Of the U-Net's layers, of 4 and 2 px: what each was given is caught here and averaged by hand."""
    model = unweave.load(tiny_run)
    images = Fixed(Rooms(32), tiny.data.fixed_values).images([0, 15, 30])
    maps, sizes = [], set()

    def catch(layer, inputs):
        x, context = (value.detach().double().numpy() for value in inputs)
        weights = by_hand(numbers(layer), x, context, layer.num_heads)
        width = int(weights.shape[1] ** 0.5)
        sizes.add(width)
        maps.append(np.kron(weights.swapaxes(1, 2).reshape(3, -1, width, width), np.ones((4 // width, 4 // width))))

    layers = [layer for name, layer in model.denoiser.named_modules() if name.endswith("cross_attention")]
    hooks = [layer.register_forward_pre_hook(catch) for layer in layers]
    done = []
    found = attention(model, images, Sampling(steps=5), done.append)
    for hook in hooks:
        hook.remove()
    assert sizes == {2, 4}
    assert len(maps) == 5 * len(layers)
    np.testing.assert_allclose(found, np.mean(maps, axis=0), atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert done == [3]
    assert not any(layer._forward_pre_hooks for layer in layers)
    alone = attention(model, images[1:2], Sampling(steps=5))
    np.testing.assert_allclose(alone[0], found[1], atol=1e-5)
