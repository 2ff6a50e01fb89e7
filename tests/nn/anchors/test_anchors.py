"""Dynamic Gaussian anchors: how many there are, where they pull, and what cannot upset them."""

import threading

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from unweave.config import AnchorConfig
from unweave.errors import UserError
from unweave.nn.anchors import make_anchors
from unweave.nn.anchors.gaussian import bins
from unweave.nn.encoder import UnitMLPs

N, D = 5, 32


@pytest.fixture(scope="module")
def mlps():
    torch.manual_seed(0)
    return UnitMLPs(N, (1, 256, 512, D), final_relu=True).requires_grad_(False)


def normal(n, seed=0):
    return torch.randn(n, N, generator=torch.Generator().manual_seed(seed))


def levels(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, (n, N), generator=generator) + 0.05 * torch.randn(n, N, generator=generator)


def fitted(scalars, mlps, reduce=None, **options):
    anchors = make_anchors(AnchorConfig(**options), N, D)
    anchors.fit(scalars, mlps, seed=0, reduce=reduce)
    return anchors.eval()


@pytest.mark.parametrize("space", ["scalar", "token"])
@pytest.mark.parametrize("criterion", ["bic", "icl"])
@pytest.mark.parametrize("n", [1_000, 20_000])
def test_one_gaussian_is_one_and_four_levels_are_four(mlps, space, criterion, n):
    assert fitted(normal(n), mlps, space=space, criterion=criterion).num_alive.tolist() == [1] * N
    assert fitted(levels(n), mlps, space=space, criterion=criterion).num_alive.tolist() == [4] * N


def test_levels_are_found_where_they_are(mlps):
    anchors = fitted(levels(5_000) * 3 - 7, mlps)
    means = anchors.means[:, :4, 0] * anchors.scale.unsqueeze(1) + anchors.centre
    assert torch.allclose(means, torch.tensor([-7.0, -4.0, -1.0, 2.0]).double().expand(N, 4), atol=0.05)
    index = anchors.align(levels(500) * 3 - 7, mlps(levels(500) * 3 - 7), mlps).gaussian
    assert torch.equal(index, levels(500).round().long())


@pytest.mark.parametrize(
    ("space", "target"),
    [("scalar", "scalar"), ("scalar", "anchor_token"), ("scalar", "mean_token"), ("token", "scalar")],
)
def test_pull_goes_to_the_anchor_and_weakens_with_distance(mlps, space, target):
    scalars = levels(2_000)
    anchors = fitted(scalars, mlps, space=space, target=target, lambda_max=0.3)
    some = scalars[:64] + 0.2
    tokens = mlps(some)
    aligned = anchors.align(some, tokens, mlps)
    assert torch.allclose(aligned.weight, 0.3 * torch.exp(-aligned.distance))
    assert (aligned.weight > 0).all()
    assert (aligned.weight <= 0.3).all()
    strong = fitted(scalars, mlps, space=space, target=target, lambda_max=1.0).align(some, tokens, mlps).tokens
    moved, whole = (aligned.tokens - tokens).flatten(1), (strong - tokens).flatten(1)
    assert (torch.nn.functional.cosine_similarity(moved, whole) > 0.9).all()
    assert (moved.norm(dim=1) < whole.norm(dim=1)).all()


@pytest.mark.parametrize("space", ["scalar", "token"])
def test_responsibilities_are_those_of_the_gaussians(mlps, space):
    scalars = levels(1_000)
    anchors, tokens = fitted(scalars, mlps, space=space), mlps(scalars)
    found = anchors.responsibilities(scalars, tokens).numpy()  # (n, N, K)
    assert found.argmax(axis=2).tolist() == anchors.align(scalars, tokens, mlps).gaussian.tolist()
    for unit in range(N):
        alive = int(anchors.num_alive[unit])
        x = scalars[:, [unit]].double() - anchors.centre[unit]
        if space == "token":
            x = (tokens[:, unit].double() - anchors.centre[unit]) @ anchors.basis[unit]
        joint = np.empty((len(x), alive))
        for anchor in range(alive):
            precision = anchors.precision_chol[unit, anchor] @ anchors.precision_chol[unit, anchor].T
            law = multivariate_normal(anchors.means[unit, anchor].numpy(), precision.inverse().numpy())
            joint[:, anchor] = anchors.weights[unit, anchor].item() * law.pdf((x / anchors.scale[unit]).numpy())
        assert found[:, unit, :alive] == pytest.approx(joint / joint.sum(axis=1, keepdims=True), abs=1e-6)
        assert (found[:, unit, alive:] == 0).all()


def test_scalar_at_its_anchor_stays(mlps):
    anchors = fitted(levels(3_000), mlps)
    means = (anchors.means[:, 2, 0] * anchors.scale + anchors.centre[:, 0]).float().unsqueeze(0)
    aligned = anchors.align(means, mlps(means), mlps)
    assert torch.allclose(aligned.tokens, mlps(means), atol=1e-5)
    assert torch.allclose(aligned.weight, torch.full_like(means, 0.1), atol=1e-6)


def test_gradient_is_one_minus_lambda_and_lambda_carries_none(mlps):
    anchors = fitted(levels(2_000), mlps)
    scalars = (levels(8, 3) + 0.3).requires_grad_()
    aligned = anchors.align(scalars, scalars.unsqueeze(2), lambda s: s.unsqueeze(2))
    aligned.tokens.sum().backward()
    assert not aligned.weight.requires_grad
    assert torch.allclose(scalars.grad, 1 - aligned.weight)


def test_pull_of_an_image_does_not_depend_on_its_neighbours(mlps):
    for options in ({}, {"space": "token"}, {"mode": "published", "k_max": 8}):
        scalars = levels(400)
        anchors = fitted(scalars, mlps, **options)
        whole = anchors.align(scalars[:32], mlps(scalars[:32]), mlps)
        alone = [anchors.align(row, mlps(row), mlps) for row in scalars[:32].split(1)]
        assert torch.allclose(whole.tokens, torch.cat([one.tokens for one in alone]), atol=1e-5)
        assert torch.equal(whole.gaussian, torch.cat([one.gaussian for one in alone]))


def test_identity_before_the_first_fit_and_when_off(mlps):
    tokens = mlps(normal(4))
    for mode in ("off", "corrected", "published"):
        aligned = make_anchors(AnchorConfig(mode=mode), N, D).align(normal(4), tokens, mlps)
        assert torch.equal(aligned.tokens, tokens)
        assert (aligned.weight == 0).all()


def test_published_pull_is_zero_on_relu_tokens_and_not_on_positive_ones(mlps):
    scalars = normal(600)
    anchors = fitted(scalars, mlps, mode="published", k_max=8).train()
    tokens = mlps(scalars[:256])
    aligned = anchors.align(scalars[:256], tokens, mlps)
    assert (aligned.weight == 0).all()
    assert torch.equal(aligned.tokens, tokens)
    positive = tokens + 5
    aligned = anchors.align(scalars[:256], positive, mlps)
    low, high = positive.amin((0, 2)), positive.amax((0, 2))
    scaled = (positive - high[:, None]) / (high - low + 1e-6)[:, None]
    assert scaled.max() == 0
    anchor = anchors.means[torch.arange(N), aligned.gaussian].float()
    expected = 0.1 * torch.exp(-((positive - anchor) / (positive + 1e-6)).abs().mean())
    assert expected > 0
    assert torch.allclose(aligned.weight, expected.expand_as(aligned.weight))
    assert torch.allclose(aligned.tokens, expected * anchor + (1 - expected) * positive, atol=1e-6)


def test_published_fit_keeps_its_limits_and_its_seed(mlps):
    first, again = (fitted(normal(300), mlps, mode="published", k_max=12) for _ in range(2))
    assert torch.equal(first.means, again.means)
    assert (first.num_alive <= 12).all()
    assert first.means.isfinite().all()


def test_strange_units(mlps):
    scalars = normal(500)
    scalars[:, 0] = 3.25
    scalars[:, 1] = (torch.arange(500) % 2).float()
    anchors = fitted(scalars, mlps)
    assert anchors.num_alive[0] == 1
    assert anchors.num_alive[1] == 2
    aligned = anchors.align(scalars, mlps(scalars), mlps)
    assert aligned.tokens.isfinite().all()
    assert torch.allclose(aligned.distance[:, :2], torch.zeros(500, 2), atol=1e-5)
    few = fitted(scalars[:3], mlps)
    assert few.align(scalars[:3], mlps(scalars[:3]), mlps).tokens.isfinite().all()
    scalars[7, 4] = float("nan")
    with pytest.raises(UserError, match="unit 4 has scalars that are not finite"):
        fitted(scalars, mlps)


def test_shapes_that_are_no_clusters(mlps):
    uniform = torch.rand(20_000, N, generator=torch.Generator().manual_seed(0))
    assert fitted(uniform, mlps).num_alive.tolist() == [1] * N
    assert (fitted(normal(5_000).exp(), mlps).num_alive <= 4).all()
    assert (fitted(uniform[:2_000], mlps, criterion="bic", k_max=6).num_alive <= 6).all()


def test_shards_equal_the_whole(mlps):
    """Two threads stand in for two processes: each has half of the images and a sum between them."""
    scalars = levels(1_000)
    barrier, parts, results = threading.Barrier(2), [None, None], [None, None]

    def work(rank):
        def reduce(tensor):
            parts[rank] = tensor
            barrier.wait()
            total = parts[0] + parts[1]
            barrier.wait()
            return total

        results[rank] = fitted(scalars[rank::2], mlps, reduce)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    whole = fitted(scalars, mlps)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(results[0].state_dict()[name], results[1].state_dict()[name])
        assert torch.allclose(results[0].state_dict()[name].double(), tensor.double(), atol=1e-6), name


def test_bins_keep_number_mean_and_outliers():
    scalars = normal(3_000)
    scalars[0, 0] = 1e4
    values, counts = bins(scalars)
    assert torch.equal(counts.sum(1), torch.full((N,), 3_000.0).double())
    assert torch.allclose((values * counts).sum(1) / 3_000, scalars.double().mean(0), atol=1e-9)
    assert (values == 1e4).any()


def test_anchors_survive_a_checkpoint(mlps):
    anchors = fitted(levels(800), mlps)
    copy = make_anchors(AnchorConfig(), N, D)
    copy.load_state_dict(anchors.state_dict())
    some = normal(16)
    assert torch.equal(copy.align(some, mlps(some), mlps).tokens, anchors.align(some, mlps(some), mlps).tokens)


def as_saved_earlier(anchors):
    """The buffers of fitted anchors under the names, and with the idle ones, that all kinds once had."""
    state, wide = anchors.state_dict(), torch.float64
    num, width = anchors.config.k_max, anchors.width
    saved = {
        "centre": torch.zeros(N, 1, dtype=wide),
        "scale": torch.zeros(N, dtype=wide),
        "basis": torch.zeros(N, 1, width, dtype=wide),
        "mean_tokens": torch.zeros(N, num, D, dtype=wide),
        **{name: state[name] for name in state if name not in ("precision_chol", "low", "high")},
        "factors": state["precision_chol"],
    }
    if "high" in state:
        saved |= {"centre": state["high"].unsqueeze(1).expand(-1, D), "scale": state["high"] - state["low"]}
    return {f"anchors.{name}": tensor for name, tensor in saved.items()}


@pytest.mark.parametrize(
    "options", [{}, {"target": "mean_token"}, {"space": "token"}, {"mode": "published", "k_max": 8}]
)
def test_what_earlier_versions_saved_is_loaded(mlps, options):
    anchors, some = fitted(levels(800), mlps, **options), normal(16)
    module = torch.nn.ModuleDict({"anchors": make_anchors(anchors.config, N, D)})
    module.load_state_dict(as_saved_earlier(anchors))
    again = module["anchors"].eval()
    for name, tensor in anchors.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=1e-12)
    torch.testing.assert_close(again.align(some, mlps(some), mlps), anchors.align(some, mlps(some), mlps))
    without = torch.nn.ModuleDict({"anchors": make_anchors(AnchorConfig(mode="off"), N, D)})
    without.load_state_dict(as_saved_earlier(anchors))
    with pytest.raises(RuntimeError, match=r"anchors\.levels"):
        without.load_state_dict({"anchors.levels": torch.zeros(1)})


@pytest.mark.parametrize("levels", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("spread", [0.05, 0.3, 0.5])
def test_levels_six_or_more_standard_deviations_apart_are_all_found(levels, spread):
    """Splits that are in vain by themselves lead on: two Gaussians never describe the halves of four wide levels."""
    torch.manual_seed(0)
    place = torch.randint(levels, (8_000, 1))
    scalars = 3 * place + spread * torch.randn(8_000, 1)
    anchors = make_anchors(AnchorConfig(), 1, 4)
    anchors.fit(scalars, lambda s: s.unsqueeze(2).expand(-1, -1, 4), seed=0)
    assert anchors.num_alive.tolist() == [levels]
    found = (anchors.means[0, :levels, 0] * anchors.scale + anchors.centre[0]).sort().values
    torch.testing.assert_close(found, 3.0 * torch.arange(levels, dtype=torch.float64), rtol=0, atol=0.05)
