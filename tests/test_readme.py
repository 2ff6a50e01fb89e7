"""What pages and help promise: Python of the README runs, commands exist, and no option disappears unnoticed."""

import functools
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from unweave import cli
from unweave.data import Rooms

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
LOOK = (ROOT / "docs" / "look.md").read_text()
HOWTO = (ROOT / "docs" / "howto.md").read_text()
OTHERS = [(ROOT / "docs" / name).read_text() for name in ("convert.md", "metrics.md", "reproduce.md")]
OPTIONS = Path(__file__).parent / "fixtures" / "options.json"


def test_python_of_the_readme_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.strip().splitlines()) <= 11
    names = {}
    exec(code, names)
    assert names["pictures"].shape == (1, 32, 32, 3)
    assert names["pictures"].dtype == np.uint8
    assert np.isfinite(names["codes"].scalars).all()


def test_python_of_the_looking_page_runs():
    (code,) = re.findall(r"```python\n(.*?)```", LOOK, re.DOTALL)
    names = {"images": Rooms(32).images(np.arange(0, 480_000, 60_000))}
    exec(code, names)
    assert names["maps"].shape == (8, 10, 4, 4)
    assert names["grid"].shape == (4, 12, 32, 32, 3)
    assert names["walls"].shape[1] == names["model"].anchors.num_alive[5]
    assert names["more"].shape[:2] == (8, 3)
    assert names["noise"].shape == (8, *names["model"].latent_shape)


def test_python_of_the_page_of_how_to_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", HOWTO, re.DOTALL):
        exec(code, names)
    rooms, model, images = names["rooms"], names["model"], names["images"]
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["mig", "sap", "irs", *rooms.factor_names]
    scalars, factors = model.scalars(images), rooms.factors(np.arange(len(rooms)))
    expected = max(abs(spearmanr(unit, factors[:, 0]).statistic) for unit in scalars.T)
    assert float(said[3].split()[1].rstrip(",")) == pytest.approx(expected, abs=0.006)
    assert model.history["images"] == 640


def commands_of(text):
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if re.match(r"(\.venv/bin/)?unweave [a-z]", line)]


@pytest.mark.parametrize("line", [line for page in (README, LOOK, HOWTO, *OTHERS) for line in commands_of(page)])
def test_commands_of_the_pages_are_understood(line, monkeypatch):
    """Parsed by the real command line, with the work itself left out."""
    words = shlex.split(line)[1:]
    if "--help" in words:
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 0
        return
    called = []

    def stand_in(function):
        @functools.wraps(function)
        def record(*_, **__):
            called.append(function.__name__)

        return record

    monkeypatch.setattr(cli, "COMMANDS", {name: stand_in(function) for name, function in cli.COMMANDS.items()})
    assert cli.main(words) == 0
    assert called == [words[0]]


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"`?make ([a-z]+)", README))
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_scores_of_the_readme_are_the_measured_ones():
    measured = json.loads((ROOT / "benchmarks" / "results" / "rooms-cpu.json").read_text())
    names = {"FactorVAE": "factor_vae"} | {
        f"DCI {kind}": f"dci_{kind}" for kind in ("disentanglement", "completeness", "informativeness")
    }
    for title, name in names.items():
        row = f"| {title} | {measured['scores'][name]:.3f} | {measured['untrained'][name]:.3f} |"
        assert row in README


def options_of(words, capsys):
    with pytest.raises(SystemExit):
        cli.main([*words, "--help"])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*", shown)))


def test_no_option_appears_or_disappears_unnoticed(capsys, monkeypatch):
    """Options are an interface: a change here breaks scripts. Write the new list only if you mean it."""
    monkeypatch.setenv("COLUMNS", "200")
    commands = {name: [name] for name in cli.COMMANDS if name != "train"}
    commands |= {"train": ["train", "rooms-cpu"], "train vq-rooms": ["train", "vq-rooms"]}
    found = {name: options_of(words, capsys) for name, words in commands.items()}
    assert found == json.loads(OPTIONS.read_text())
