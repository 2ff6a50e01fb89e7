import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Normal, kl_divergence

from unweave.config import EncoderConfig
from unweave.errors import UserError
from unweave.nn.encoder import FeatureExtractor, UnitMLPs
from unweave.presets import PRESETS

SMALL = EncoderConfig(
    num_units=5, token_dim=6, channels=(8, 12, 16), stem_kernel=4, stem_stride=2, hidden=(20,), unit_hidden=(10, 14)
)


def images(num, size, seed=0):
    return torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_parameter_count_is_the_published_one():
    with torch.device("meta"):
        encoder = FeatureExtractor(EncoderConfig(), 64)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in encoder.named_children()}
    assert count["units"] == 20 * 148_512
    assert sum(count.values()) == 23_570_324


@pytest.mark.parametrize("activation", ["relu", "none"])
def test_unit_mlps_are_n_separate_mlps(activation):
    torch.manual_seed(0)
    units = UnitMLPs(4, (1, 7, 9, 3), final_relu=activation == "relu")
    scalars = torch.randn(11, 4)
    tokens = units(scalars)
    for unit in range(4):
        layers: list[nn.Module] = []
        for weight, bias in zip(units.weights, units.biases):
            linear = nn.Linear(*weight.shape[1:])
            linear.load_state_dict({"weight": weight[unit].T, "bias": bias[unit]})
            layers += [linear, nn.ReLU()]
        alone = nn.Sequential(*(layers if activation == "relu" else layers[:-1]))
        torch.testing.assert_close(tokens[:, unit], alone(scalars[:, unit : unit + 1]))


def test_unit_mlps_start_as_linear_layers_do():
    torch.manual_seed(0)
    units = UnitMLPs(20, (1, 256, 512, 32), final_relu=True)
    for weight, bias in zip(units.weights, units.biases):
        for unit in (0, 19):
            linear = nn.Linear(*weight.shape[1:])
            for ours, theirs in ((weight[unit], linear.weight), (bias[unit], linear.bias)):
                result = stats.ks_2samp(ours.detach().flatten().numpy(), theirs.detach().flatten().numpy())
                assert result.pvalue > 1e-3
                assert ours.abs().max() <= linear.in_features**-0.5
        assert not torch.equal(weight[0], weight[1])


def test_a_token_depends_on_its_own_scalar_only():
    torch.manual_seed(0)
    encoder = FeatureExtractor(dataclasses.replace(SMALL, token_activation="none"), 32)
    scalars = torch.randn(1, 5)
    jacobian = torch.autograd.functional.jacobian(encoder.tokens, scalars)[0, :, :, 0]  # (N, D, N)
    own = np.arange(5)
    assert (jacobian[own, :, own] != 0).any(-1).all()
    jacobian[own, :, own] = 0
    assert (jacobian == 0).all()


def test_forward_is_scalars_then_tokens():
    torch.manual_seed(0)
    encoder = FeatureExtractor(SMALL, 32).eval()
    scalars, tokens = encoder(images(3, 32))
    torch.testing.assert_close(scalars, encoder.scalars(images(3, 32)))
    torch.testing.assert_close(tokens, encoder.tokens(scalars))
    assert tokens.shape == (3, 5, 6)
    assert tokens.min() == 0  # ReLU


def test_scalars_are_not_clipped_and_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    encoder = FeatureExtractor(SMALL, 32)
    encoder(images(64, 32))  # gives the batch norms statistics of their own
    encoder.eval()
    with torch.no_grad():
        together = encoder.scalars(images(16, 32))
        alone = torch.cat([encoder.scalars(image[None]) for image in images(16, 32)])
    assert together.min() < 0 < together.max()
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("trunk", ["plain", "residual"])
def test_every_parameter_is_trained(trunk):
    torch.manual_seed(0)
    encoder = FeatureExtractor(dataclasses.replace(SMALL, token_activation="none", trunk=trunk), 32)
    encoder(images(8, 32))[1].square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def encdiff_layers(num_units, token_dim):
    """EncDiff's Encoder4 layer by layer, from its published description; the convolutions, and a unit's MLP."""

    def conv(channels):
        return [nn.Conv2d(channels, 128, 4, stride=2, padding=1), nn.BatchNorm2d(128)]

    def residual():
        return [
            nn.ReLU(),
            nn.Conv2d(128, 128, 3, padding=1),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 128, 1),
        ]

    first = nn.Sequential(*conv(3), nn.ReLU(), *conv(128), nn.ReLU(), *conv(128), *conv(128), nn.ReLU())
    blocks = nn.ModuleList([nn.Sequential(*residual()) for _ in range(2)])
    between, scalars = nn.Sequential(nn.BatchNorm2d(128), nn.ReLU()), nn.Linear(128 * 4 * 4, num_units)
    mlp = nn.Sequential(
        nn.Linear(1, 64), nn.ELU(), nn.Linear(64, 128), nn.ELU(), nn.Linear(128, token_dim)
    )  # of one unit
    return first, blocks[0], between, blocks[1], scalars, mlp


@torch.no_grad()
def test_encdiff_has_its_own_extractor():
    """The same tensors in the same order as its published layers, and the same scalars and tokens."""
    config = PRESETS["encdiff-shapes3d"].config.model.encoder
    torch.manual_seed(0)
    ours = FeatureExtractor(config, 64)
    *parts, mlp = encdiff_layers(20, 16)
    theirs = nn.ModuleList(parts)
    assert sum(p.numel() for p in theirs.parameters()) == 1_164_052
    assert sum(p.numel() for p in ours.units.parameters()) == 20 * sum(p.numel() for p in mlp.parameters()) == 210_240
    state = {**ours.convs.state_dict(prefix="convs."), **ours.head.state_dict(prefix="head.")}
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    for module in (theirs, ours):
        module.train()
    first, one, between, two, last = theirs
    h = first(images(8, 64))
    h = between(h + one(h))
    expected = last((h + two(h)).flatten(1))
    scalars, tokens = ours(images(8, 64))
    torch.testing.assert_close(scalars, expected)
    for unit in (0, 19):
        weights = zip(ours.units.weights, ours.units.biases, strict=True)
        pairs = [part for weight, bias in weights for part in (weight[unit].T, bias[unit])]
        mlp.load_state_dict(dict(zip(mlp.state_dict(), pairs, strict=True)))
        torch.testing.assert_close(tokens[:, unit], mlp(scalars[:, unit : unit + 1]))


def test_too_many_convolutions_for_the_images_are_refused():
    with pytest.raises(UserError, match="5 convolutions: too many for 8 px"):
        FeatureExtractor(EncoderConfig(), 8)


def test_variational_bottleneck_draws_and_pays_what_torch_says():
    """The cost is torch's divergence between normals; draws have the mean and the variance that were paid for."""
    torch.manual_seed(0)
    extractor = FeatureExtractor(dataclasses.replace(SMALL, beta=1.0), 16).eval()
    nn.init.normal_(extractor.log_variance.weight, std=0.3)
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        mean, cost = extractor.drawn_scalars(images)
        torch.testing.assert_close(mean, extractor.scalars(images))
        log_variance = extractor.log_variance(extractor.head[:-1](extractor.convs(images).flatten(1)))
        theirs = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1)
        torch.testing.assert_close(cost, theirs)

        extractor.train()
        extractor.convs.eval()  # the statistics of the batch are not what is tested
        draws = torch.stack([extractor.drawn_scalars(images)[0] for _ in range(4_000)])
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.08)
    torch.testing.assert_close(draws.var(0), log_variance.exp(), rtol=0.15, atol=0)


def test_without_bottleneck_scalars_cost_nothing():
    extractor = FeatureExtractor(SMALL, 16).train()
    images = torch.randn(3, 3, 16, 16)
    scalars, cost = extractor.drawn_scalars(images)
    torch.testing.assert_close(scalars, extractor.scalars(images))
    assert (cost == 0).all()
    assert extractor.log_variance is None


@pytest.mark.parametrize("levels", [2, 5, 10])
def test_levels_are_numpys_nearest_and_gradients_pass_as_through_tanh(levels):
    torch.manual_seed(0)
    exact = FeatureExtractor(SMALL, 16).eval()
    nn.init.normal_(exact.head[-1].weight, std=10)  # scalars from one end to the other
    rounded = FeatureExtractor(dataclasses.replace(SMALL, levels=levels), 16).eval()
    rounded.load_state_dict(exact.state_dict())
    images = 3 * torch.randn(256, 3, 16, 16)
    scalars = rounded.scalars(images)
    bounded = exact.scalars(images).tanh()
    grid = np.linspace(-1, 1, levels)
    nearest = grid[np.abs(bounded.detach().numpy()[..., None] - grid).argmin(-1)]
    np.testing.assert_allclose(scalars.detach().numpy(), nearest, atol=1e-6)
    assert len(np.unique(nearest)) == levels
    ours, theirs = (
        torch.autograd.grad(s.sum(), m.head[-1].weight)[0] for s, m in [(scalars, rounded), (bounded, exact)]
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("options", "said"), [({"levels": 1}, "2 or more"), ({"levels": 5, "beta": 1.0}, "only one bottleneck")]
)
def test_levels_that_make_no_sense_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        EncoderConfig(**options)
