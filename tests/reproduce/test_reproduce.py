"""The way of a table from images to Markdown, in seconds: cut wherever it may be, it ends with the same table."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import unweave
from unweave.cli import main
from unweave.data import open_dataset
from unweave.errors import UserError
from unweave.metrics import cell_index, dci, factor_vae_score, sample_rows, tad
from unweave.reproduce import command, costs, job, plan, pool
from unweave.reproduce.plan import Request, make_plan
from unweave.train import train
from unweave.training import loop as training


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a table that was made without a break, two jobs at a time."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "all_cores", lambda: 2)
        assert main(["reproduce", "table1", "--scale", "tiny", "--seeds", "0", "--out", str(out)]) == 0
    return out


def table(out, name="table1"):
    """What must not depend on how the work was cut, as text."""
    found = json.loads((out / name / "table.json").read_text())
    del found["seconds"]
    return json.dumps(found), (out / name / "TABLE.md").read_text()


@pytest.mark.slow
def test_the_table_says_that_losses_fell_and_what_the_untrained_extractor_scores(whole):
    found = json.loads((whole / "table1" / "table.json").read_text())
    assert all(losses["fell"] for losses in found["losses"].values())
    assert len(found["losses"]) == 3
    for row in found["sets"]["rooms"]["rows"]:
        assert row["untrained"].keys() >= row["best_step"]["scores"].keys()
        assert row["best_step"]["of"] == 2


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_table_that_was_cut_in_every_stage_is_the_same(whole, tmp_path, monkeypatch):
    """In the first stage, between checkpoints, after a checkpoint but before its codes, and while scoring.

    Also where jobs follow one another and the other table's were made side by side.
    """
    request = Request("table1", seeds=(0,), scale="tiny", out=tmp_path)
    monkeypatch.setattr(command, "show_costs", lambda *_: 0.0)
    monkeypatch.setattr(command, "devices", lambda _: {"here": {}})
    train_step, encode, score = training.train_step, job.encode, job.score
    cuts = []

    def cut(name, original, due):
        def stand_in(*arguments):
            if name not in cuts and due(*arguments):
                cuts.append(name)
                raise Killed
            return original(*arguments)

        return stand_in

    def at(images, first):
        return lambda state, *_: state.images == images and ("first_stage" in str(state.run.folder)) == first

    steps = cut("first stage", train_step, at(112, True))
    monkeypatch.setattr(training, "train_step", cut("second stage", steps, at(480, False)))
    monkeypatch.setattr(job, "encode", cut("codes", encode, lambda model, *_: model.history["images"] == 320))
    monkeypatch.setattr(job, "score", cut("scores", score, lambda *_: True))
    for _ in range(4):
        with pytest.raises(Killed):
            command.reproduce(request)
    assert cuts == ["first stage", "codes", "second stage", "scores"]
    command.reproduce(request)
    assert table(tmp_path) == table(whole)


@pytest.mark.slow
def test_scores_are_those_of_the_codes(whole):
    """Official: the first principal component of each unit's tokens as the anchors leave them, by scikit-learn."""
    one = next(one for one in make_plan(Request("table1", seeds=(0,), scale="tiny", out=whole)) if one.method)
    model, dataset = unweave.load(whole / one.name / "run"), open_dataset(one.config.data, 32, [].append)
    codes = model.encode(dataset.images(np.arange(len(dataset))))
    written = np.load(sorted((whole / one.name / "codes").glob("*.npz"))[-1])
    np.testing.assert_allclose(written["scalars"], codes.scalars, atol=1e-5)
    for unit in range(codes.aligned.shape[1]):
        component = PCA(1).fit_transform(codes.aligned[:, unit].astype(np.float64))[:, 0]
        sign = np.sign(component @ written["components"][:, unit])
        np.testing.assert_allclose(written["components"][:, unit], sign * component, atol=1e-4)
    found = json.loads((whole / one.name / "result.json").read_text())["last"]["official"][0]
    sizes = dataset.factor_sizes
    train, test = sample_rows(sizes)
    table = written["components"].astype(np.float64)
    trees = dci(table[cell_index(train, sizes)], train, table[cell_index(test, sizes)], test)
    assert found["dci_disentanglement"] == pytest.approx(trees.disentanglement, abs=1e-6)
    assert found["factor_vae"] == pytest.approx(factor_vae_score(table, sizes, protocol="official").score)


@pytest.mark.slow
def test_another_table_only_reads_what_it_shares(whole, monkeypatch, capsys):
    monkeypatch.setattr(job, "train", None)
    monkeypatch.setattr(costs, "measure", None)
    assert main(["reproduce", "downstream", "--scale", "tiny", "--seeds", "0", "--out", str(whole)]) == 0
    said = capsys.readouterr()
    assert "3 jobs, 3 of them finished" in said.err
    assert "accuracy, 10,000" in said.out


@pytest.mark.slow
def test_a_folder_of_other_options_is_refused(whole):
    request = Request("table1", seeds=(0,), scale="tiny", out=whole)
    one = make_plan(request)[0]
    other = one._replace(config=replace(one.config, train=replace(one.config.train, lr=0.5)))
    longer = one._replace(config=replace(one.config, train=replace(one.config.train, threads=2)))
    assert job.finished(longer, request) is not None
    with pytest.raises(
        UserError, match=r"other options \(train.lr: 0.002 -> 0.5\): choose another --out, or delete that"
    ):
        job.finished(other, request)


def test_costs_are_said_before_anything_is_done(tmp_path, capsys):
    words = ["reproduce", "ablation", "--scale", "tiny", "--seeds", "0", "1", "--out", str(tmp_path), "--dry-run"]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "9 jobs, 0 of them finished" in said
    assert "rooms/unet-dyga-alone/seed1" in said
    assert "of training" in said
    assert not list(tmp_path.iterdir())


def test_a_cost_counts_steps_and_bytes():
    config = make_plan(Request("table1", seeds=(0,), scale="tiny"))[1].config
    config = replace(config, train=replace(config.train, images=1_000, batch_size=16))
    cost = costs.measure(config, num_images=1_000_000, snapshots=5)
    assert cost.steps == 63
    assert cost.seconds == pytest.approx(63 / cost.steps_per_second)
    codes = 2 * 4 * 1_000_000 * 5 * config.model.encoder.num_units / 1e9
    assert codes < cost.disk_gb < codes + 0.02


def test_table2_scores_attributes_and_drawn_images(tmp_path, monkeypatch):
    """One row: TAD of 10,000 images at most, as the published script draws them, and a distance under its own name."""
    asked = []

    def distance_to_data(model, dataset, num, weights, sampling, log):
        asked.append((num, weights, sampling.steps, sampling.seed))
        return {"name": "Frechet distance, own features", "value": 2.5, "images": num, "seconds": 1.0}

    monkeypatch.setitem(sys.modules, "unweave.evaluation.frechet", SimpleNamespace(distance_to_data=distance_to_data))
    monkeypatch.setattr(command, "show_costs", lambda *_: 0.0)
    monkeypatch.setattr(command, "devices", lambda _: {"here": {}})
    methods = plan.methods
    monkeypatch.setattr(plan, "methods", lambda *arguments: {"dyga": methods(*arguments)["dyga"]})
    request = Request("table2", seeds=(3,), scale="tiny", out=tmp_path)
    command.reproduce(request)
    row = json.loads(table(tmp_path, "table2")[0])["sets"]["faces"]["rows"][0]
    assert asked == [(16, None, 2, 3)]
    assert row["distance"]["name"] == "Frechet distance, own features"
    assert "| 2.50 | Frechet distance, own features | 16 |" in table(tmp_path, "table2")[1]
    one = make_plan(request)[1]
    faces = open_dataset(one.config.data, 32, [].append)
    order = np.random.RandomState(0).permutation(len(faces))[len(faces) // 3 :]
    written = np.load(sorted((tmp_path / one.name / "codes").glob("*.npz"))[-1])
    grid = tad(written["components"][order], faces.factors(order), method="grid")
    assert row["official"]["tad"]["mean"] == pytest.approx(grid.score)
    exact = tad(written["scalars"][order], faces.factors(order))
    assert row["robust"]["tad"]["mean"] == pytest.approx(exact.score)
    assert row["robust"]["tad_captured"]["mean"] == exact.captured.sum()


def test_what_looks_at_a_run_is_shown_where_it_goes_on(tiny, tmp_path):
    seen = []
    few = replace(tiny, train=replace(tiny.train, images=160, save_every_images=80))
    train(few, tmp_path / "run", [].append, on_save=lambda model: seen.append(weights(model)))
    train(few, tmp_path / "run", [].append, on_save=lambda model: seen.append(weights(model)))
    (_, _), (last, saved), (again, restored) = seen
    assert (last, again) == (160, 160)
    assert torch.equal(saved, restored)


def weights(model):
    return model.history["images"], next(model.denoiser.parameters()).detach().clone()
