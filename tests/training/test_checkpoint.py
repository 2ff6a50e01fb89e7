"""A run folder survives kills, full disks and flipped bits, and is never taken for another run's."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from unweave.errors import UserError
from unweave.presets import PRESETS
from unweave.record import Record, read_record
from unweave.training import checkpoint
from unweave.training.checkpoint import Checkpoint

CONFIG = PRESETS["tiny"].config


def saved(images):
    return Checkpoint(images, {"a": torch.full((3,), float(images)), "n": torch.tensor(images)}, {"step": images // 2})


def test_round_trip_keeps_the_last_two(tmp_path):
    for images in (10, 20, 30):
        checkpoint.save(tmp_path, saved(images))
    assert [folder.name for folder in sorted((tmp_path / "state").iterdir())] == ["000000000020", "000000000030"]
    loaded = checkpoint.load(tmp_path, print)
    assert loaded is not None
    assert loaded.images == 30
    assert loaded.values == {"step": 15}
    assert torch.equal(loaded.tensors["a"], torch.full((3,), 30.0))
    assert loaded.tensors["n"].dtype == torch.int64


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "no manifest"])
def test_damaged_checkpoint_is_said_and_passed_over(tmp_path, damage):
    checkpoint.save(tmp_path, saved(10))
    checkpoint.save(tmp_path, saved(20))
    folder = tmp_path / "state" / "000000000020"
    tensors = folder / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        tensors.write_bytes(content)
    elif damage == "cut":
        tensors.write_bytes(content[:-3])
    elif damage == "remove":
        tensors.unlink()
    else:
        (folder / "manifest.json").write_text("{")
    told = []
    loaded = checkpoint.load(tmp_path, told.append)
    assert loaded is not None
    assert loaded.images == 10
    assert "000000000020 is damaged" in told[0]


def test_all_damaged_is_an_error_and_none_is_none(tmp_path):
    assert checkpoint.load(tmp_path, print) is None
    checkpoint.save(tmp_path, saved(10))
    (tmp_path / "state" / "000000000010" / "manifest.json").unlink()
    with pytest.raises(UserError, match="delete that folder to start again"):
        checkpoint.load(tmp_path, [].append)


def test_full_disk_keeps_the_checkpoint_before(tmp_path):
    checkpoint.save(tmp_path, saved(10))
    code = f"""
import pathlib, resource, signal, torch
from unweave.training import checkpoint
from unweave.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))  # after the imports, which may write compiled code
try:
    checkpoint.save(pathlib.Path({str(tmp_path)!r}), checkpoint.Checkpoint(20, {{"a": torch.zeros(5000)}}, {{}}))
except UserError as error:
    print("said:", error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "said: cannot write" in ended.stdout
    assert "Nothing is lost" in ended.stdout
    assert [folder.name for folder in (tmp_path / "state").iterdir()] == ["000000000010"]


def test_folder_of_another_run_is_refused_and_the_options_are_named(tmp_path):
    checkpoint.open_run(tmp_path, CONFIG)
    longer = replace(CONFIG, train=replace(CONFIG.train, images=99, workers=1))
    checkpoint.open_run(tmp_path, longer)
    other = replace(CONFIG, train=replace(CONFIG.train, seed=5))
    with pytest.raises(UserError, match="train.seed: 0 -> 5"):
        checkpoint.open_run(tmp_path, other)


def test_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(UserError, match="not empty and holds no run .found holiday.jpg"):
        checkpoint.open_run(tmp_path, CONFIG)
    with pytest.raises(UserError, match="is a file"):
        checkpoint.open_run(tmp_path / "holiday.jpg", CONFIG)


def test_record_drops_what_a_resumed_run_writes_again(tmp_path):
    record = Record(tmp_path / "metrics.jsonl")
    for images in (10, 20, 30):
        record.write({"images": images, "loss": images / 7})
    with record.path.open("a") as file:
        file.write('{"images": 40, "lo')  # killed while writing
    record.rewind(20)
    record.write({"images": 30, "loss": 0.5})
    assert [line["images"] for line in read_record(record.path)] == [10, 20, 30]
    assert read_record(record.path)[1]["loss"] == 20 / 7
