"""docs/fidelity.md holds: each option that it names exists and changes the output, and where it says `as published`,
the published arithmetic comes out."""

import copy
import dataclasses
import functools
import inspect
import json
import re
import typing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import unweave
from tests.published_arithmetic import normalised, published_fit, published_pull
from unweave import metrics
from unweave.config import AnchorConfig, DiffusionConfig, EncoderConfig, ModelConfig, RunConfig, TrainConfig, UNetConfig
from unweave.configfile import from_dict
from unweave.data import open_dataset
from unweave.data.sets import SETS
from unweave.errors import UserError
from unweave.explore import swap
from unweave.metrics import suite
from unweave.models.diffusion import DiffusionModel
from unweave.nn.anchors import make_anchors
from unweave.nn.anchors.published_fit import fit as fit_as_published
from unweave.nn.encoder import FeatureExtractor, UnitMLPs
from unweave.nn.unet import SkipDropout, UNet
from unweave.presets import FIRST_STAGES, PRESETS
from unweave.presets.published import SCHEDULES
from unweave.train import train
from unweave.training.batches import split_rows
from unweave.training.loop import learning_rate

PAGE = Path(__file__).parents[1] / "docs" / "fidelity.md"
CHANGE_RESULTS = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 21, 22, 23, 25, 27, 29, 30}

N, D = 2, 4


def scalars(num, seed=0):
    """(num, N): four levels, and a normal number."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(4, (num, 1), generator=generator) + 0.05 * torch.randn(num, 1, generator=generator)
    return torch.cat([levels, torch.randn(num, 1, generator=generator)], dim=1)


def positive_tokens(values):
    """(n, N) -> (n, N, D) between 1 and 2: without zeros the published lambda is not 0."""
    return 1.5 + 0.5 * torch.sin(values.unsqueeze(2) * torch.tensor([0.3, 0.7, 1.1, 1.9]) + torch.arange(4))


def fit(values, token_fn=positive_tokens, **options):
    anchors = make_anchors(AnchorConfig(**{"k_max": 12, **options}), N, D)
    anchors.fit(values, token_fn, seed=0)
    return anchors


fitted_once = functools.cache(lambda mode: fit(scalars(400), mode=mode))


def fitted(mode):
    """Anchors fitted to 400 scalars in a mode; each caller has its own."""
    return copy.deepcopy(fitted_once(mode))


def pulled(anchors, values):
    return anchors.align(values, positive_tokens(values), positive_tokens)


# The page


def rows():
    """The table's rows by number: (whether it changes results, cells)."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"\d+( R)?", cells[0]):
            found[int(cells[0].split()[0])] = (cells[0].endswith("R"), cells)
    return found


def test_all_points_are_on_the_page():
    assert sorted(rows()) == list(range(1, 35))
    assert {number for number, (changes, _) in rows().items() if changes} == CHANGE_RESULTS
    for number, (_, cells) in rows().items():
        assert len(cells) == 6, number
        assert all(cells), number


def config_option(path, value):
    """Whether the config has an option `anchors.mode`, and, if one is named, the value."""
    kind: typing.Any = RunConfig
    parts = path.split(".")
    for part in parts if parts[0] in ("train", "data", "model") else ["model", *parts]:
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        if part not in hints:
            return False
        kind = DiffusionConfig if hints[part] is ModelConfig else hints[part]
    return not value or typing.get_origin(kind) is not typing.Literal or value in typing.get_args(kind)


FUNCTIONS = {
    "DiffusionModel.decode": DiffusionModel.decode,
    "factor_vae_score": metrics.factor_vae_score,
    "infomec": metrics.infomec,
    "tad": metrics.tad,
    "score_rows": suite.score_rows,
}


def named_options():
    return [(number, name) for number, (_, cells) in rows().items() for name in re.findall(r"`([^`]+)`", cells[5])]


@pytest.mark.parametrize(("number", "name"), named_options())
def test_options_of_the_page_exist(number, name):
    call = re.fullmatch(r"([\w.]+)\(([\w, ]+)\)", name)
    if call:
        parameters = inspect.signature(FUNCTIONS[call[1]]).parameters
        assert set(call[2].split(", ")) <= set(parameters)
    else:
        path, _, value = name.partition(" ")
        assert config_option(path, value), name


def test_links_of_the_page_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", PAGE.read_text())
    assert links
    for link in links:
        assert link.startswith("http") or (PAGE.parent / link).exists(), link


# Points 1 to 5: the pull


@pytest.mark.parametrize("mode", ["off", "corrected"])
def test_1_to_5_17_mode_changes_the_pull(mode):
    some = scalars(32, seed=1)
    assert not torch.equal(pulled(fitted("published").train(), some).tokens, pulled(fitted(mode).train(), some).tokens)


def test_1_to_5_published_is_the_published_arithmetic_with_its_gradient():
    values, anchors = scalars(32, seed=1), fitted("published").train()
    ours = positive_tokens(values).requires_grad_()
    theirs = positive_tokens(values).requires_grad_()
    aligned, expected = anchors.align(values, ours, positive_tokens).tokens, published_pull(theirs, anchors)
    torch.testing.assert_close(aligned, expected)
    probe = torch.randn(aligned.shape, generator=torch.Generator().manual_seed(2))
    (aligned * probe).sum().backward()
    (expected * probe).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("point", [1, 2, 3, 4, 5])
def test_1_to_5_each_is_in_it(point):
    values, anchors = scalars(32, seed=1), fitted("published").train()
    mended = published_pull(positive_tokens(values), anchors, {point})
    assert (mended - pulled(anchors, values).tokens).abs().max() > 1e-4


def test_1_published_leaves_relu_tokens_alone_and_corrected_does_not():
    torch.manual_seed(0)
    mlps = UnitMLPs(N, (1, 64, D), final_relu=True).requires_grad_(False)
    found = {}
    for mode in ("published", "corrected"):
        anchors = fit(scalars(200), mlps, mode=mode)
        found[mode] = anchors.train().align(scalars(64, 1), mlps(scalars(64, 1)), mlps)
    assert (mlps(scalars(64, 1)) == 0).any()
    assert (found["published"].weight == 0).all()
    assert torch.equal(found["published"].tokens, mlps(scalars(64, 1)))
    assert (found["corrected"].weight > 0).all()


def test_4_5_encoding_knows_no_neighbours_in_either_mode():
    some = scalars(16, seed=1)
    for mode in ("published", "corrected"):
        anchors = fitted(mode).eval()
        alone = torch.cat([pulled(anchors, row).tokens for row in some.split(1)])
        torch.testing.assert_close(pulled(anchors, some).tokens, alone)


# Points 6 to 15: the fit


def test_6_published_refits_on_altered_tokens():
    values, anchors = scalars(600, seed=1), fitted("published")  # a batch and a part of one
    tokens = positive_tokens(values)
    altered = torch.cat([published_pull(part, anchors) for part in tokens.split(512)])
    expected, raw = (fit_as_published(x, 12, seed=1).mixture.means for x in (altered, tokens))
    anchors.fit(values, positive_tokens, seed=1)
    torch.testing.assert_close(anchors.means, expected, rtol=0, atol=1e-5)
    assert (anchors.means - raw).abs().max() > 1e-3


def test_6_corrected_refits_on_the_encoder_s_own():
    anchors = fitted("corrected")
    before = {name: tensor.clone() for name, tensor in anchors.state_dict().items()}
    anchors.fit(scalars(400), positive_tokens, seed=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in anchors.state_dict().items())


def clumps(dim=2, num=240):
    """(num, dim): twelve tight clumps."""
    rng = np.random.default_rng(0)
    return rng.uniform(size=(12, dim))[rng.integers(12, size=num)] + 0.02 * rng.normal(size=(num, dim))


def scattered(dim=6, num=240):
    """(num, dim): wide enough that every Gaussian asks for a split."""
    return np.random.default_rng(0).uniform(size=(num, dim))


def means_of_both(x, k_max, mended=frozenset()):
    """Means that `anchors.mode published` finds of one unit's tokens (n, D), and those of the published arithmetic."""
    fit = fit_as_published(torch.from_numpy(x)[:, None], k_max, seed=0).mixture
    scaled = normalised(x[:, None], x.min(keepdims=True)[0], x.max(keepdims=True)[0])[:, 0]
    theirs = published_fit(scaled, k_max, torch.Generator().manual_seed(0), mended)
    return fit.means[0, fit.weights[0] > 0].numpy(), theirs[0]


@pytest.mark.parametrize(("points", "k_max"), [(clumps(), 32), (scattered(), 32), (scattered(), 9)])
def test_7_to_12_published_anchors_are_the_published_fit(points, k_max):
    """All but the overshoot of `k_max` (11), under the same random numbers."""
    ours, theirs = means_of_both(points, k_max, {11})
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("point", [7, 8, 9, 10])
def test_7_to_10_each_is_in_it(point):
    ours, mended = means_of_both(clumps(), 32, {point, 11})
    assert ours.shape != mended.shape or np.abs(ours - mended).max() > 1e-3


def test_7_to_10_mode_changes_the_fit():
    published, corrected = fitted("published"), fitted("corrected")
    assert published.num_alive.tolist() != corrected.num_alive.tolist() == [4, 1]


@pytest.mark.parametrize(
    "option",
    [{"lambda_max": 0.3}, {"target": "mean_token"}, {"space": "token"}, {"criterion": "bic"}, {"k_max": 2}],
)
def test_1_2_7_11_12_options_of_the_default_change_the_pull(option):
    generator = torch.Generator().manual_seed(0)
    values = torch.stack([torch.randint(4, (1_000,), generator=generator), torch.rand(1_000, generator=generator)], 1)
    values = values + 0.02 * torch.randn(values.shape, generator=generator)
    tokens = [pulled(fit(values, **changed), values).tokens for changed in ({}, option)]
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3


def test_11_k_max_is_a_limit_and_was_not():
    ours, theirs = means_of_both(scattered(), 9)
    assert len(ours) <= 9 < len(theirs)


def test_12_an_option_of_earlier_versions_is_read_where_its_behaviour_is_left():
    assert from_dict(AnchorConfig, {"covariance": "full"}) == AnchorConfig()
    with pytest.raises(UserError, match="anchors.covariance is 'hddc': this version has only 'full'"):
        from_dict(AnchorConfig, {"covariance": "hddc"}, "anchors")


def test_13_14_empty_gaussians_upset_no_fit():
    same = torch.full((50, 1, 3), 0.5)
    same[:3] = torch.tensor([0.0, 0.2, 1.0])
    found = fit_as_published(same, 12, seed=0).mixture
    assert all(part.isfinite().all() for part in found)


def test_15_units_draw_from_their_own_streams():
    tokens = positive_tokens(scalars(200))
    both, first = fit_as_published(tokens, 9, seed=0), fit_as_published(tokens[:, :1], 9, seed=0)
    torch.manual_seed(5)
    again = fit_as_published(tokens, 9, seed=0)
    assert torch.equal(both.mixture.means[:1], first.mixture.means)
    assert torch.equal(both.mixture.means, again.mixture.means)


# Points 16 to 24: networks and training


def unet_output(widths):
    """A U-Net's output while it trains, and the widths of the skips that it changed."""
    config = UNetConfig(
        channels=8,
        multipliers=(1, 1, 1, 1),
        num_res_blocks=1,
        attention_widths=(4,),
        num_heads=4,
        self_attention=False,
        dropout=0.0,
        skip_dropout_widths=widths,
    )
    torch.manual_seed(0)
    unet = UNet(config, 3, 16, D)
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.2)
    changed = set()

    def note(_, given, kept):
        if not torch.equal(given[0], kept):
            changed.add(kept.shape[-1])

    for module in unet.modules():
        if isinstance(module, SkipDropout):
            module.register_forward_hook(note)
    return unet(torch.randn(4, 3, 16, 16), torch.arange(4), torch.randn(4, N, D)), changed


def test_16_skips_are_dropped_as_the_published_comparison_has_it():
    factors, widths = (1, 2, 4), (16, 8, 4, 2)
    published, changed = unet_output(UNetConfig().skip_dropout_widths)
    assert changed == {width for width in widths if width not in factors}
    meant, changed = unet_output(tuple(16 // factor for factor in (1, 2, 4, 8) if factor not in factors))
    assert changed == {2}
    assert not torch.equal(published, meant)


def test_17_without_anchors_nothing_is_fitted_or_pulled():
    anchors = fitted("off")
    assert not anchors.num_alive.any()
    assert torch.equal(pulled(anchors, scalars(8)).tokens, positive_tokens(scalars(8)))


@pytest.mark.parametrize(
    ("name", "of", "steps", "fits", "points", "batch"),
    [
        ("shapes3d", "shapes3d", 93_800, 100, 48_000, 512),
        ("mpi3d", "mpi3d_toy", 101_250, 50, 103_680, 512),
        ("cars3d", "cars3d", 105_000, 600, 17_568, 512),
        ("celeba", "celeba", 949_800, 60, 20_259, 64),
    ],
)
def test_19_presets_have_the_published_schedules(name, of, steps, fits, points, batch):
    """Steps as published, to the part of a batch that each epoch there ends with; where the set is downloaded to."""
    published = PRESETS[f"dyga-{name}-published"].config
    assert published.data.folder == f"data/{of}/{SETS[of].files[0].name}"
    assert SCHEDULES[name].images == SETS[of].num_images
    assert published.data.cache_gb * 1e9 >= SETS[of].num_images * 64 * 64 * 3
    assert published.train.batch_size == batch
    assert published.train.images / batch == pytest.approx(steps, rel=0.02)
    assert published.train.images == SCHEDULES[name].images * SCHEDULES[name].epochs
    assert published.train.images / published.model.anchors.fit_every_images == fits
    assert published.model.anchors.max_points == points
    assert published.data.held_out == 0
    ours = PRESETS[f"dyga-{name}"].config
    assert replace(ours, model=replace(ours.model, anchors=published.model.anchors)) == published
    assert FIRST_STAGES[f"vq-{name}"].config.train.images == 101 * SETS[of].num_images


@pytest.fixture(scope="module")
def short_run(tiny, tmp_path_factory):
    """Runs of 20 steps with some options changed."""

    @functools.cache
    def run(fit_every_images, ema_encoder):
        folder = tmp_path_factory.mktemp("short") / "run"
        anchors = replace(tiny.model.anchors, fit_every_images=fit_every_images)
        options = replace(tiny.train, images=320, save_every_images=320, ema_encoder=ema_encoder)
        train(replace(tiny, model=replace(tiny.model, anchors=anchors), train=options), folder, [].append)
        return folder

    return run


def test_19_anchors_are_fitted_when_the_schedule_says(short_run):
    for every in (96, 160):
        lines = (short_run(every, True) / "metrics.jsonl").read_text().splitlines()
        pulls = [value for line in lines for value in json.loads(line)["per_step"]["lambda"]]
        assert [value > 0 for value in pulls] == [16 * step >= every for step in range(20)]


def test_21_learning_rates_are_what_is_written():
    for batch in (64, 512):
        assert learning_rate(TrainConfig(lr=3e-4, batch_size=batch), 10_000) == 3e-4
    launched = {
        "encdiff-cars3d": 2e-6 * 128,
        "vq-cars3d": 4.5e-6 * 256,
    }  # what the launcher makes of a rate and a batch
    for name, lr in launched.items():
        assert (PRESETS | FIRST_STAGES)[name].config.train.lr == pytest.approx(lr)


def scalars_of(**options):
    torch.manual_seed(0)
    encoder = FeatureExtractor(EncoderConfig(num_units=3, channels=(8, 8, 8), **options), 32).eval()
    return encoder(torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32))


def test_22_widths_and_the_activation_of_tokens():
    narrow, wide = scalars_of(hidden=(16, 8)), scalars_of(hidden=(8, 8))
    assert not torch.equal(narrow[0], wide[0])
    with_relu, without = scalars_of(hidden=(8,)), scalars_of(hidden=(8,), token_activation="none")
    assert (without[1] < 0).any()
    assert torch.equal(with_relu[1], without[1].relu())
    assert EncoderConfig().hidden == (4096, 256)
    assert EncoderConfig().token_activation == "relu"


def test_23_the_extractor_is_averaged_only_where_asked(short_run):
    """Both runs train alike; the published one saves the extractor as it was trained last."""
    saved, last = {}, {}
    for averaged in (False, True):
        folder = short_run(160, averaged)
        (state,) = (folder / "state").iterdir()
        last[averaged] = load_file(state / "tensors.safetensors")["model.encoder.head.0.weight"]
        saved[averaged] = unweave.load(folder).encoder.head[0].weight
    assert torch.equal(last[False], last[True])
    assert torch.equal(saved[False], last[False])
    assert not torch.equal(saved[True], saved[False])


def test_24_anchors_and_what_normalises_them_are_in_the_weights():
    anchors = fitted("published")
    restored = make_anchors(anchors.config, N, D)
    restored.load_state_dict(anchors.state_dict())
    some = scalars(16, seed=1)
    for training in (True, False):
        found = [pulled(one.train(training), some) for one in (anchors, restored)]
        assert torch.equal(found[0].tokens, found[1].tokens)


# Points 25 to 27: sampling


@pytest.fixture(scope="module")
def model(tiny_run):
    return unweave.load(tiny_run)


@pytest.fixture(scope="module")
def images(tiny):
    return open_dataset(tiny.data, 32, [].append).images(np.arange(2))


def test_26_sampling_is_seeded(model, images):
    tokens = model.encode(images).aligned
    assert np.array_equal(model.decode(tokens, 10, seed=1), model.decode(tokens, 10, seed=1))
    assert not np.array_equal(model.decode(tokens, 10, seed=1), model.decode(tokens, 10, seed=2))


def test_27_noise_is_shared_where_it_is_given_and_in_swaps(model, images):
    same = model.encode(images[[0, 0]]).aligned
    published = model.decode(same, 10)
    assert not np.array_equal(published[0], published[1])
    shared = model.decode(same, 10, noise=model.draw_noise(1, 0))
    assert np.array_equal(shared[0], shared[1])
    columns = swap(model, images[:1], images[:1])[0]
    assert all(np.array_equal(column, columns[0]) for column in columns)


# Points 28 to 33: scores


def attributes(num=500, seed=0):
    """Codes (num, 3), and attributes (num, 2) in {0, 1} that the first two of them tell."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=(num, 2))
    return np.column_stack([truth + 0.4 * rng.normal(size=truth.shape), rng.lognormal(size=num)]), truth


def eleven_thresholds(code, truth):
    """The area under the ROC curve as published, the better of both directions."""
    code = code.astype(np.float32)
    areas = []
    for above in (True, False):
        said = [(code >= t) == above for t in np.linspace(code.min(), code.max(), 11, dtype=np.float32)]
        false = np.sort([guess[truth == 0].mean() for guess in said])
        true = np.sort([guess[truth == 1].mean() for guess in said])
        areas.append(sum((b - a) * height for a, b, height in zip(false, false[1:], true[1:], strict=False)))
    return max(areas)


def test_28_thresholds_or_ranks():
    codes, truth = attributes()
    exact, grid = metrics.tad(codes, truth), metrics.tad(codes, truth, method="grid")
    assert exact.score != grid.score
    for attribute in range(2):
        for code in range(3):
            expected = eleven_thresholds(codes[:, code], truth[:, attribute])
            assert grid.auroc[attribute, code] == pytest.approx(expected, abs=1e-6)


def grid_codes():
    """Two factors of 4 and 5 values, each told by a code of its own; and a faint copy of the second."""
    factors = np.indices((4, 5)).reshape(2, -1).T
    return np.column_stack([factors, 0.01 * factors[:, 1]]).astype(float)


@pytest.mark.parametrize("prune", [0.05, 0.001])
def test_29_thresholds_of_scores_are_absolute_where_published(prune):
    small = {"num_variance": 500, "num_train": 200, "num_eval": 100}
    official = metrics.factor_vae_score(grid_codes(), (4, 5), protocol="official", prune=prune, **small)
    robust = metrics.factor_vae_score(grid_codes(), (4, 5), **small)
    drawn = grid_codes().std(axis=0)  # of the whole grid; far from both thresholds
    assert official.active.tolist() == (drawn >= prune).tolist()
    assert robust.active.all()
    codes, truth = attributes()
    found = {method: metrics.tad(0.01 * codes, truth, method=method) for method in ("grid", "exact")}
    assert (np.ptp(0.01 * codes, axis=0) <= 0.2).any()
    assert ((found["grid"].auroc == 0.5).all(axis=0) == (np.ptp(0.01 * codes, axis=0) <= 0.2)).all()
    assert not (found["exact"].auroc == 0.5).any()


def test_30_both_codings_of_attributes_are_one():
    codes, truth = attributes()
    for method in ("exact", "grid"):
        assert metrics.tad(codes, truth, method=method).score == metrics.tad(codes, 2 * truth - 1, method=method).score


def test_31_which_codes_are_active():
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(4, size=600), rng.random(600) < 0.1], axis=1).astype(int)
    codes = np.column_stack([factors + 0.01 * rng.normal(size=factors.shape), 0.2 * rng.normal(size=600)])
    quartiles = np.subtract(*np.quantile(codes, [0.75, 0.25], axis=0))
    by_rule = {"iqr10": quartiles > quartiles.max() / 10, "range20": np.ptp(codes, axis=0) > np.ptp(codes) / 20}
    for prune, expected in by_rule.items():
        found = metrics.infomec(codes, factors, protocol="official", prune=prune)
        assert found.active.tolist() == expected.tolist()
        kept = found.nmi[:, expected]
        part = (kept.max(1) / (kept.sum(1) + 1e-6)).mean()
        num = expected.sum()
        assert found.compactness == pytest.approx((part - 1 / num) / (1 - 1 / num), abs=1e-12)
    assert by_rule["iqr10"].tolist() != by_rule["range20"].tolist()
    assert metrics.infomec(codes, factors).active.tolist() == [True, True, False]


def test_32_what_is_held_out():
    rows, held_out = split_rows(1_000, 0.0, 0)
    assert (len(rows), len(held_out)) == (1_000, 0)
    rows, held_out = split_rows(1_000, 0.02, 0)
    assert len(held_out) == 20
    assert not set(rows) & set(held_out)
    rng = np.random.default_rng(0)
    factors = rng.integers(3, size=(300, 1))
    codes = factors + 0.6 * rng.normal(size=factors.shape)
    found = [
        suite.score_rows(codes, factors, metrics=["sap"], protocol="official", test=test).matrices["sap"]
        for test in (None, np.arange(300) < 100)
    ]
    assert not np.array_equal(*found)


def test_33_active_codes_are_counted():
    codes = np.column_stack([grid_codes(), np.zeros(20)])
    found = metrics.factor_vae_score(codes, (4, 5), num_variance=500, num_train=200, num_eval=100)
    assert found.active.sum() == 3 < codes.shape[1]
