"""A user's mistakes end in one line and exit code 2; the commands of the README do what they say."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import unweave
from unweave.cli import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "tiny", "--run", "RUN", "--train.lr", "-1"], "train.lr is -1.0: must be positive"),
        (["train", "tiny"], "name a folder for the run"),
        (["evaluate", "no-such-model"], "no model 'no-such-model'"),
        (["encode", "MODEL", "--out", "codes.csv"], "choose .parquet or .npz"),
        (["encode", "MODEL", "--out", "codes.npz", "--device", "abacus"], "device is 'abacus'"),
        (["swap", "MODEL", "--solver", "ddim", "--steps", "30"], "30 sampling steps"),
        (["convert", "RUN/none.ckpt", "RUN/out"], "none.ckpt"),
        (["train", "tiny", "--run", "RUN", "--data.fixed", "colour=1"], "no factor 'colour'"),
    ],
)
def test_mistakes_are_one_line(arguments, words, tiny_run, tmp_path, capsys):
    filled = [text.replace("RUN", str(tmp_path)).replace("MODEL", str(tiny_run)) for text in arguments]
    assert main(filled) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert words in said


@pytest.mark.parametrize("arguments", [["train", "none"], ["train", "tiny", "--train.imges", "3"], ["nonsense"]])
def test_unknown_names_exit_with_two(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_dry_run_prints_the_options(capsys):
    assert main(["train", "tiny", "--train.images", "77", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["images"] == 77


def test_encoded_file_holds_what_the_model_says(tiny_run, tmp_path):
    assert main(["encode", str(tiny_run), "--out", str(tmp_path / "codes.parquet")]) == 0
    assert main(["encode", str(tiny_run), "--out", str(tmp_path / "codes.npz")]) == 0
    table = pq.read_table(tmp_path / "codes.parquet")
    arrays = np.load(tmp_path / "codes.npz", allow_pickle=False)
    assert np.array_equal(table["scalar_1"].to_numpy(), arrays["scalars"][:, 1])
    assert np.array_equal(np.stack(table["aligned_2"].to_pylist()).astype(np.float32), arrays["aligned"][:, 2])
    names = list(arrays["factor_names"])
    assert np.array_equal(table[names[0]].to_numpy(), arrays["factors"][:, 0])
    assert unweave.load(tiny_run).config.encoder.num_units == arrays["anchors"].shape[1]


def test_scoring_may_take_more_disk_than_training_did(tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run / "model", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["trained_on"] |= {"cache_gb": 1e-6, "cache": str(tmp_path / "cache"), "fixed": []}
    path.write_text(json.dumps(config))
    np.save(tmp_path / "photos.npy", np.random.default_rng(0).integers(256, size=(4, 32, 32, 3), dtype=np.uint8))
    arguments = ["encode", str(tmp_path / "model"), "--data", str(tmp_path / "photos.npy")]
    arguments += ["--out", str(tmp_path / "codes.npz"), "--device", "cpu"]
    assert main(arguments) == 2
    assert "--cache-gb" in capsys.readouterr().err
    assert main([*arguments, "--cache-gb", "1"]) == 0
    assert len(np.load(tmp_path / "codes.npz", allow_pickle=False)["scalars"]) == 4


def test_results_go_into_the_run_or_here(tiny_run, tmp_path):
    from unweave.models.folder import home

    assert home(tiny_run) == tiny_run
    assert home(tiny_run / "model") == tiny_run
    assert home("rooms-cpu") == Path("runs") / "rooms-cpu"
    assert home(tmp_path) == Path("runs") / tmp_path.name
