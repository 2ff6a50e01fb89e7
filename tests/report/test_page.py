"""The page says what results.json says, asks for nothing from elsewhere, and shows what is hostile as text."""

import base64
import io
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import unweave
from unweave.cli import main
from unweave.metrics.suite import DESCRIPTIONS, PUBLISHED
from unweave.report.curves import curves_figure

HOSTILE = "<script>alert('1')</script>&\"<img src=http://x.example>"
SECTIONS = [
    "trained",
    "scores",
    "holds",
    "curves",
    "reconstructions",
    "swaps",
    "traversals",
    "anchors",
    "attention",
    "record",
    "options",
    "versions",
]
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A page read into tags, links, tables and text; fails when a tag is closed that is not open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.tables, self.texts, self.sections, self.links = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")
        if tag == "h2":
            self.sections.append(given["id"])
        if tag == "a":
            self.links.append(given["href"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    @property
    def images(self):
        return [given for tag, given in self.tags if tag == "img"]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def row(self, name):
        """The cells beside one in the first column."""
        (found,) = [row for table in self.tables for row in table if row and row[0].strip() == name]
        return [" ".join(cell.split()) for cell in found[1:]]


def results_of(model):
    """Numbers as `unweave evaluate` writes them, each of its own."""
    rng = np.random.default_rng(3)

    def scores():
        return {name: float(rng.random()) for name in PUBLISHED} | {
            "importance": rng.dirichlet(np.ones(3), 2).T.tolist(),
            "accuracy_per_factor": rng.random(2).tolist(),
            "notes": [f"unit 1 is {HOSTILE}"],
        }

    others = [name for name in DESCRIPTIONS if name not in (*PUBLISHED, "tad", "downstream", "udr")]
    return {
        "scores": scores(),
        "untrained": scores(),
        "other_scores": {way: {name: float(rng.random()) for name in others} for way in ("official", "robust")},
        "downstream": {"labels": [10_000, 1_000, 100], "efficiency": [1.0, *rng.random(2).tolist()]},
        "data": {"factor_names": ["object_hue", "shape"], "factor_sizes": [10, 4]},
        "history": model.history,
        "versions": {"unweave": "0.0.7", "torch": "9.9", "python": "3.99"},
    }


@pytest.fixture(scope="module")
def scored(tiny_run, tmp_path_factory):
    """A run in a folder with a hostile name, its results, and a hostile name of a unit."""
    run = tmp_path_factory.mktemp("page") / HOSTILE.replace("/", "_")
    shutil.copytree(tiny_run, run)
    results = results_of(unweave.load(run))
    results["other_scores"]["robust"]["mig"] = None
    (run / "results.json").write_text(json.dumps(results))
    assert main(["name", str(run), "2", "<i>bold & tall</i>"]) == 0
    config = json.loads((run / "config.json").read_text())
    config["data"]["labels"] = HOSTILE
    (run / "config.json").write_text(json.dumps(config))
    return run, results


@pytest.fixture(scope="module")
def page(scored):
    run, _ = scored
    assert main(["report", str(run), "--steps", "2", "--device", "cpu"]) == 0
    return (run / "report" / "report.html").read_text(encoding="utf-8")


def test_all_sections_are_there_and_every_link_leads_to_one(page):
    read = Page(page)
    assert read.sections == SECTIONS
    assert read.links == [f"#{name}" for name in SECTIONS]
    assert "No scores" not in read.text


def test_nothing_is_asked_for_from_elsewhere_and_nothing_runs(page):
    read = Page(page)
    for tag, given in read.tags:
        assert tag not in ("script", "link", "iframe", "object", "form", "base", "video")
        assert not any(name.startswith("on") for name in given)
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert given.get(name, "#").startswith(("#", "data:image/png;base64,"))
    styles = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in styles
    assert "@import" not in styles
    policy = [given["content"] for tag, given in read.tags if given.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_image_is_whole_and_told_in_words(page):
    images = Page(page).images
    assert len(images) == 6
    for given in images:
        assert len(given["alt"]) > 30
        data = given["src"].removeprefix("data:image/png;base64,")
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            assert (str(picture.width), str(picture.height)) == (given["width"], given["height"])
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
    assert page.count("<figcaption>") == 6


def test_numbers_are_those_of_the_results(page, scored):
    _, results = scored
    read = Page(page)
    chance = {"FactorVAE": "0.500", "DCI informativeness": f"{(1 / 10 + 1 / 4) / 2:.3f}"}
    for name in PUBLISHED:
        title = DESCRIPTIONS[name].title
        expected = [f"{results[which][name]:.3f}" for which in ("scores", "untrained")]
        cells = read.row(title)
        assert cells[:3] == [*expected, chance.get(title, "0.000")]
        assert cells[3].startswith(DESCRIPTIONS[name].asks)
    for name, value in results["other_scores"]["robust"].items():
        if value is not None:
            assert read.row(DESCRIPTIONS[name].title)[0] == f"{value:.3f}"
    assert not any(row[0].strip() == "MIG" for table in read.tables for row in table)
    assert read.row("downstream efficiency, 100 labels")[0] == f"{results['downstream']['efficiency'][2]:.3f}"
    importance = results["scores"]["importance"]
    labels = ["unit 0", "unit 1", "unit 2: <i>bold & tall</i>"]
    (matrix,) = [table for table in read.tables if table[0] == ["unit", "object hue", "shape"]]
    assert [row[0].split(":")[0] for row in matrix[1:4]] == ["unit 0", "unit 1", "unit 2"]
    assert matrix[3][0] == labels[2]
    assert [row[1:] for row in matrix[1:4]] == [[f"{share:.2f}" for share in row] for row in importance]
    assert matrix[4][1:] == [f"{100 * part:.0f} %" for part in results["scores"]["accuracy_per_factor"]]


def test_the_record_is_the_run_s(page, scored):
    run, _ = scored
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    cells = Page(page).row(f"{last['images']:,}")
    assert cells[:3] == [f"{last['loss']:.4g}", f"{last['held_out_loss']:.4g}", f"{last['lambda']:.4f}"]
    assert cells[3] == str(sum(last["anchors_alive"]))


def test_what_is_hostile_is_text(page, scored):
    run, _ = scored
    read = Page(page)
    assert HOSTILE.replace("/", "_") in read.text
    assert f"data.labels {json.dumps(HOSTILE)}" in read.text
    assert f"unit 1 is {HOSTILE}" in read.text
    assert "<i>" not in page
    assert "<b>" not in page
    assert run.name not in page


def test_two_runs_side_by_side_and_one_without_scores(scored, tmp_path):
    run, results = scored
    words = ["report", str(run), "rooms-cpu", "--out", str(tmp_path), "--steps", "1", "--device", "cpu"]
    assert main(words) == 0
    read = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert read.sections == SECTIONS
    assert len(read.images) == 6 + 5  # the bundled model has no record
    assert read.row("FactorVAE")[:3] == [f"{results[which]['factor_vae']:.3f}" for which in ("scores", "untrained")] + [
        "-"
    ]
    assert "No scores of this model as it stands yet: unweave evaluate rooms-cpu" in read.text
    assert "No training record beside this model." in read.text
    assert "model.denoiser: 'unet' -> 'transformer'" in read.text


def test_pictures_without_labels_have_a_page(tiny_run, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "mine.npy", rng.integers(256, size=(50, 32, 32, 3), dtype=np.uint8))
    words = ["--data", str(tmp_path / "mine.npy"), "--out", str(tmp_path), "--steps", "1", "--device", "cpu"]
    assert main(["report", str(tiny_run), *words]) == 0
    read = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "There are no labels to score with" in read.text
    assert len(read.images) == 6


def test_curves_are_the_record(monkeypatch, tmp_path):
    from unweave.report import curves

    kept = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: kept.append(figure))
    record = [
        {
            "images": 1000 * step,
            "loss": 1 / step,
            "held_out_loss": 2 / step,
            "lambda": 0.01 * step,
            "anchors_alive": [1, step],
        }
        for step in (1, 2, 4)
    ]
    longer = [{"images": 9000, "loss": 0.01, "held_out_loss": None, "lambda": 0.09, "anchors_alive": [12, 1]}]
    curves_figure(record, tmp_path / "x.png", [longer])
    loss, pull, alive = kept[0].axes
    training, held_out = (line.get_xydata() for line in loss.lines)
    assert np.allclose(training, [[1, 1], [2, 0.5], [4, 0.25]])
    assert np.allclose(held_out[:, 1], [2, 1, 0.5])
    assert np.allclose(pull.lines[0].get_ydata(), [0.01, 0.02, 0.04])
    assert np.allclose(alive.lines[-1].get_ydata(), [1, 1.5, 2.5])
    assert loss.get_ylim()[0] < 0.01
    assert pull.get_ylim()[1] > 0.09
    assert alive.get_ylim()[1] > 12
    assert loss.get_xlim() == (0, 9)


def test_descriptions_are_those_of_the_handbook():
    from tests.test_readme import ROOT

    lines = (ROOT / "docs" / "metrics.md").read_text().splitlines()
    for text in DESCRIPTIONS.values():
        row = f"| {text.title} ({text.source}) | {text.asks} | {text.chance} |"
        assert sum(line.startswith(row) for line in lines) == 1, row
