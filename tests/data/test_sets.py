"""The table of data sets: right where it can be checked here, and what the commands make of it without a network."""

import dataclasses
import hashlib
import json
import re
import runpy
import shlex
import socket
from pathlib import Path

import pytest

from unweave.cli import main
from unweave.config import DataConfig
from unweave.data import DSprites, Rooms, open_dataset
from unweave.data.sets import DRAWN, SETS
from unweave.data.sets.card import Remote
from unweave.errors import UserError

IMAGES = {  # as their publishers count them
    "rooms": 480_000,
    "dsprites": 737_280,
    "shapes3d": 480_000,
    "cars3d": 17_568,
    "mpi3d_toy": 1_036_800,
    "mpi3d_realistic": 1_036_800,
    "mpi3d_real": 1_036_800,
    "mpi3d_complex": 460_800,
    "smallnorb": 48_600,
    "celeba": 202_599,
}


ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_numbers_are_the_published_ones():
    assert {name: card.num_images for name, card in SETS.items()} == IMAGES
    for name, drawn in (("rooms", Rooms()), ("shapes3d", Rooms()), ("dsprites", DSprites())):
        assert tuple(SETS[name].factors.items()) == tuple(zip(drawn.factor_names, drawn.factor_sizes))


def test_hashes_are_hashes():
    files = [file for card in SETS.values() for file in card.files]
    for file in files:
        assert re.fullmatch(r"|sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", file.digest)
        assert file.size is None or file.size > 0
        assert file.digest or len(file.urls) <= 1
        assert all(url.startswith("https://" if not file.digest else ("https://", "http://")) for url in file.urls)
    digests = [file.digest for file in files if file.digest]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("name", SETS)
def test_the_command_that_uses_a_set_is_understood(name, capsys):
    card = SETS[name]
    assert main([*shlex.split(card.use)[1:], "--dry-run"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    drawn = name in DRAWN
    assert data["name"] == (name if drawn else "rooms")
    opened = {f"data/{name}", *(f"data/{name}/{file.name}" for file in card.files)}
    assert drawn or data["folder"] in opened
    assert drawn or data["fixed"] == []
    assert data["cache_gb"] * 1e9 >= card.num_images * 32 * 32 * 3


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_told_of_without_a_network(name, no_network, capsys):
    card = SETS[name]
    assert main(["data", "info", name]) == 0
    said = capsys.readouterr().err
    facts = [card.title, card.licence, card.source, card.citation, f"{card.num_images:,}", card.use]
    facts += [word for file in card.files for word in (file.name, file.digest)]
    facts += [f"{factor} {size}" for factor, size in card.factors.items()]
    assert all(fact in said for fact in facts)


def test_files_that_need_a_manual_download(no_network, monkeypatch, tmp_path, capsys):
    """The command says what to download from where; the files are compared."""
    content = b"pictures"
    files = (
        Remote("faces.zip", (), len(content), f"sha256:{hashlib.sha256(content).hexdigest()}"),
        Remote("faces.txt", ()),
    )
    monkeypatch.setitem(SETS, "celeba", dataclasses.replace(SETS["celeba"], files=files))
    arguments = ["data", "get", "celeba", "--to", str(tmp_path)]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert SETS["celeba"].by_hand in said
    assert f"put a file at {tmp_path / 'faces.zip'} (8 bytes, sha256:" in said
    assert "2 files of celeba are missing: download them by hand" in said
    (tmp_path / "faces.zip").write_bytes(content)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "faces.zip exists and is intact" in said
    assert "1 files of celeba" in said
    (tmp_path / "faces.txt").write_bytes(b"labels")
    assert main(arguments) == 0
    assert f"Next: {SETS['celeba'].use.replace('data/celeba', str(tmp_path))}" in capsys.readouterr().err
    (tmp_path / "faces.zip").write_bytes(b"<html>..")
    assert main(arguments) == 2
    assert "is not the published file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["get", "rooms"], "rooms is generated, there is nothing to download: use --data.name rooms"),
        (["get"], "name a data set: unweave data get shapes3d"),
        (["info"], "name a data set: unweave data info shapes3d"),
        (["get", "shapes4d"], "'shapes4d' is no known data set: choose rooms, dsprites, shapes3d"),
    ],
)
def test_mistakes_are_named(arguments, words, no_network, capsys):
    assert main(["data", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("roms", "data.name is 'roms': choose rooms or dsprites"),
        (
            "shapes3d",
            "choose rooms or dsprites, or download shapes3d and name its files in data.folder: unweave data get",
        ),
    ],
)
def test_a_wrong_name_is_told_before_anything_is_made(name, words, tmp_path, capsys):
    for more in (["--run", str(tmp_path / "run")], ["--dry-run"]):
        assert main(["train", "tiny", "--data.name", name, *more]) == 2
        assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=f"data.name is '{name}'"):
        open_dataset(DataConfig(name), 32, [].append)


def test_a_set_of_several_files_comes_into_one_folder(monkeypatch, tmp_path, capsys):
    """`data get` asks for each file and says how to train on them."""
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr("unweave.commands.data.download", lambda file, folder, say: asked.append((folder, file.name)))
    assert main(["data", "get", "smallnorb"]) == 0
    assert asked == [(Path("data/smallnorb"), file.name) for file in SETS["smallnorb"].files]
    assert "--data.folder data/smallnorb" in capsys.readouterr().err


def test_the_pages_are_those_of_the_table():
    """`python benchmarks/data_pages.py` was run after the table changed."""
    pages = runpy.run_path(str(ROOT / "benchmarks" / "data_pages.py"))
    folder = ROOT / "docs" / "data"
    assert {path.stem for path in folder.iterdir()} == set(SETS)
    index = (ROOT / "docs" / "data.md").read_text()
    for name, card in SETS.items():
        assert (folder / f"{name}.md").read_text() == pages["page"](card)
        assert f"(data/{name}.md)" in index
        assert not card.picture or (ROOT / "docs" / "images" / f"{name}.png").is_file()
    assert index == pages["index"](index)


@pytest.mark.parametrize("name", SETS)
def test_commands_of_the_pages_are_understood(name, monkeypatch):
    """Parsed by the real command line, with the work itself left out."""
    lines = re.findall("^    unweave (.*)$", (ROOT / "docs" / "data" / f"{name}.md").read_text(), re.MULTILINE)
    called = []
    for stand_in in ("describe", "get"):
        monkeypatch.setattr(f"unweave.commands.data.{stand_in}", lambda *words: called.append(words))
    monkeypatch.setattr("unweave.train.train", lambda *words: called.append(words) or Path("model"))
    for line in lines:
        assert main(shlex.split(line)) == 0
    assert len(called) == len(lines) >= 2
