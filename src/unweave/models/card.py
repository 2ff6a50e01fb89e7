"""The model card: a README.md beside the weights, as the Hugging Face Hub shows it, of what is known and no more."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from unweave.config import DataConfig
from unweave.files import write_text
from unweave.models.base import UnitModel
from unweave.record import clock

CARD = "README.md"
OURS = "<!-- Written by unweave, which writes it anew; take this line away to keep your own words. -->"


def write_card(
    model: UnitModel,
    folder: Path,
    results: dict[str, Any] | None = None,
    attributes: dict[str, Any] | None = None,
    licence: str | None = None,
) -> None:
    """Writes the card of the model in a folder, with its scores where there are `results`, and TAD of `attributes`.

    `licence` is that of the weights, by its name on the Hub. A card that someone has made their own is left alone.
    """
    path = folder / CARD
    if path.exists() and OURS not in path.read_text(encoding="utf-8"):
        return
    data = ModelCardData(
        license=licence,
        library_name="unweave",
        pipeline_tag="image-feature-extraction",
        tags=["disentanglement", "representation-learning"],
        model_name="unweave" if results or attributes else None,
        eval_results=[*_eval_results(results), *_tad_results(attributes)] or None,
    )
    parts = [
        _about(model),
        _use(model),
        _names(model),
        _scores(results) if results else "",
        _tad(attributes) if attributes else "",
        _licence(model, licence),
    ]
    text = "\n\n".join(filter(None, [f"---\n{data.to_yaml()}\n---", OURS, *parts])) + "\n"
    write_text(path, str(ModelCard(text, ignore_metadata_errors=False)))


def _about(model: UnitModel) -> str:
    config, history = model.config, model.history
    facts = [
        f"- **Images**: {config.image_size} x {config.image_size} px, RGB",
        *(f"- **{title.capitalize()}**: {text}" for title, text in model.facts()),
        f"- **Trained on**: {_data(model.trained_on)}",
    ]
    if history:
        facts.append(
            f"- **Trained for**: {history['images']:,} images in {history['step']:,} steps, {clock(history['seconds'])}"
        )
    return "\n".join(
        [
            "# A model that takes images apart",
            "",
            f"An image becomes {model.num_units} numbers, its *units*, learned without labels; the image is "
            "drawn again from them, so that a unit can be read, moved and exchanged.",
            "",
            *facts,
        ]
    )


def _data(trained_on: DataConfig | None) -> str:
    if trained_on is None:
        return "images that this folder does not name"
    if trained_on.folder:
        return f"images of {Path(trained_on.folder).name}"
    held = f", with {', '.join(trained_on.fixed)}" if trained_on.fixed else ""
    return f"{trained_on.name}, drawn by unweave{held}"


def _use(model: UnitModel) -> str:
    size = model.config.image_size
    return f"""## Use

```python
import unweave

model = unweave.load("FOLDER")  # this folder, or its name on the Hub
codes = model.encode(images)  # uint8 (n, {size}, {size}, 3); .scalars (n, {model.num_units})
pictures = model.decode(codes.aligned)
```

`unweave report FOLDER` draws what each unit does."""


def _names(model: UnitModel) -> str:
    if not model.unit_names:
        return ""
    rows = "\n".join(f"| {unit} | {text.replace('|', '/')} |" for unit, text in model.unit_names.items())
    return f"## What the units were called\n\n| unit | name |\n| --- | --- |\n{rows}"


def _scores(results: dict[str, Any]) -> str:
    from unweave.metrics.suite import DESCRIPTIONS, PUBLISHED  # here, so that training loads no score

    sizes = results["data"]["factor_sizes"]
    rows = [
        f"| {DESCRIPTIONS[name].title} | {results['scores'][name]:.3f} | {results['untrained'][name]:.3f} "
        f"| {DESCRIPTIONS[name].chance_level(sizes):.3f} | {DESCRIPTIONS[name].asks} |"
        for name in PUBLISHED
    ]
    about = (
        f"Of the units' numbers on {results['data']['images']:,} images of {results['data']['name']}, with the "
        "constants of published tables, beside an untrained extractor of the same shape. 1 is perfect."
    )
    head = "| score | this model | untrained | chance | asks |\n| --- | --- | --- | --- | --- |"
    return "\n".join(["## Scores", "", about, "", head, *rows])


def _tad(attributes: dict[str, Any]) -> str:
    from unweave.metrics.suite import DESCRIPTIONS  # here, so that training loads no score

    num = len(attributes["data"]["factor_names"])
    rows = [
        f"| {definition} | {found['tad']:.3f} | {len(found['captured'])} of {num} "
        f"| {attributes['untrained'][definition]['tad']:.3f} |"
        for definition, found in attributes["scores"].items()
    ]
    about = (
        f"Of {attributes['protocol']['images']:,} of the {attributes['data']['images']:,} images of "
        f"{attributes['data']['name']}: {DESCRIPTIONS['tad'].asks} The sum over the attributes that are captured."
    )
    head = "| TAD | this model | attributes captured | untrained |\n| --- | --- | --- | --- |"
    return "\n".join(["## Attributes", "", about, "", head, *rows])


def _eval_results(results: dict[str, Any] | None) -> list[EvalResult]:
    if results is None:
        return []
    from unweave.metrics.suite import PUBLISHED

    return [_eval_result(results["data"]["name"], score, results["scores"][score]) for score in PUBLISHED]


def _tad_results(attributes: dict[str, Any] | None) -> list[EvalResult]:
    if attributes is None:
        return []
    return [_eval_result(attributes["data"]["name"], "tad", attributes["scores"]["exact"]["tad"])]


def _eval_result(data: str, score: str, value: float) -> EvalResult:
    from unweave.metrics.suite import DESCRIPTIONS  # here, so that training loads no score

    return EvalResult(
        task_type="image-feature-extraction",
        dataset_type=data,
        dataset_name=data,
        metric_type=score,
        metric_name=DESCRIPTIONS[score].title,
        metric_value=round(value, 4),
    )


def _licence(model: UnitModel, licence: str | None) -> str:
    weights = (
        f"The weights: {licence}."
        if licence
        else "None was stated for the weights: name one in the header before you share them."
    )
    data = model.trained_on
    images = " The images they were trained on: Apache-2.0, as unweave is." if data and not data.folder else ""
    return f"## Licence\n\n{weights}{images}"
