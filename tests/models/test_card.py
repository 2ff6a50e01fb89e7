"""The card beside a model parses as the Hub's, says what is known, and leaves the words of others alone."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard, ModelCardData

import unweave
from unweave.metrics.suite import PUBLISHED
from unweave.models.card import OURS, write_card
from unweave.models.folder import load, save_model


def results_of(model):
    numbers = {name: 0.1 * place + 0.0123 for place, name in enumerate(PUBLISHED, 1)}
    return {
        "scores": numbers,
        "untrained": dict.fromkeys(PUBLISHED, 0.05),
        "data": {"name": "rooms", "images": 40, "factor_sizes": [10, 4]},
        "history": model.history,
    }


def test_a_trained_model_has_a_card_and_opens(tiny_run):
    card = ModelCard.load(tiny_run / "model" / "README.md")
    assert isinstance(card.data, ModelCardData)
    assert card.data.library_name == "unweave"
    assert card.data.license is None
    assert card.data.eval_results is None
    model = load(tiny_run)
    weights = sum(p.numel() for part in (model.encoder, model.denoiser) for p in part.parameters())
    for fact in (
        "1,600 images in 100 steps",
        f"unet, {weights:,} weights",
        "rooms, drawn by unweave, with floor_hue=0",
    ):
        assert fact in card.text
    assert "Scores" not in card.text
    assert "None was stated for the weights" in card.text


def test_scores_that_exist_are_on_it_and_those_of_another_state_are_not(tiny_run, tmp_path):
    model = load(tiny_run)
    results = results_of(model)
    (tmp_path / "results.json").write_text(json.dumps(results))
    save_model(model, tmp_path / "model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    found = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert found == {name: round(value, 4) for name, value in results["scores"].items()}
    assert "| FactorVAE | 0.112 | 0.050 | 0.500 |" in card.text
    assert "| DCI informativeness | 0.412 | 0.050 | 0.175 |" in card.text
    assert load(tmp_path / "model").history == model.history
    model.history = {**model.history, "images": 3_200}
    save_model(model, tmp_path / "model")
    assert ModelCard.load(tmp_path / "model" / "README.md").data.eval_results is None


def test_evaluating_a_run_puts_its_scores_on_the_card(tiny_run, tmp_path, monkeypatch):
    from unweave.commands import evaluate as command

    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    results = results_of(load(run))
    for name in ("importance_figure", "show"):
        monkeypatch.setattr(command, name, lambda *_: None)
    monkeypatch.setattr(command, "evaluate", lambda *_: results)
    command.evaluate_run(str(run), tmp_path / "elsewhere", device="cpu")
    assert "Scores" not in (run / "model" / "README.md").read_text()
    command.evaluate_run(str(run), run, device="cpu")
    assert "| FactorVAE | 0.112 |" in (run / "model" / "README.md").read_text()


def test_a_card_that_someone_wrote_stays(tmp_path):
    model = unweave.load("rooms-cpu")
    write_card(model, tmp_path)
    path = tmp_path / "README.md"
    path.write_text(path.read_text().replace(OURS, "My own words."))
    write_card(model, tmp_path, results_of(model))
    assert "My own words." in path.read_text()
    assert "Scores" not in path.read_text()


@pytest.mark.parametrize("licence", [None, "cc-by-4.0"])
def test_names_and_licence(tmp_path, licence):
    model = unweave.load("rooms-cpu")
    model.unit_names = {3: "wall | hue"}
    write_card(model, tmp_path, licence=licence)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == licence
    assert "| 3 | wall / hue |" in card.text


def test_bundled_models_have_the_card_of_their_recorded_scores():
    from tests.test_readme import ROOT
    from unweave.models.folder import bundled, find

    for name in bundled():
        card = ModelCard.load(find(name) / "README.md")
        recorded = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["scores"]
        found = {one.metric_type: one.metric_value for one in card.data.eval_results}
        assert found == {key: round(recorded[key], 4) for key in PUBLISHED}
        assert card.data.license == "apache-2.0"
