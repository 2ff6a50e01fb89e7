"""`unweave score` reads every kind of file alike, and says what is wrong with one."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.metrics.metric_cases import grid_factors
from unweave.cli import main
from unweave.metrics import udr
from unweave.metrics.suite import score_rows

METRICS = "factor_vae,mig,sap"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same codes and factors in every format."""
    folder = tmp_path_factory.mktemp("files")
    factors = np.tile(grid_factors((4, 3)), (20, 1))
    codes = factors + 0.2 * np.random.default_rng(0).normal(size=factors.shape)
    units = pa.table({f"scalar_{i}": codes[:, i] for i in range(2)})
    labels = pa.table({"hue": factors[:, 0], "shape": factors[:, 1]})
    np.save(folder / "codes.npy", codes)
    np.save(folder / "factors.npy", factors)
    np.savez(folder / "both.npz", scalars=codes, tokens=codes, factors=factors, factor_names=["hue", "shape"])
    pa_csv.write_csv(units, folder / "codes.csv")
    pa_csv.write_csv(labels, folder / "factors.csv")
    whole = units.append_column("hue", labels["hue"]).append_column("shape", labels["shape"])
    pq.write_table(whole.append_column("index", pa.array(np.arange(240))), folder / "both.parquet")
    words = pa.table({"hue": np.array(["red", "green", "blue", "grey"])[factors[:, 0]], "shape": factors[:, 1]})
    pa_csv.write_csv(words, folder / "words.csv")
    np.save(folder / "grid.npy", codes[:12])
    return folder, codes, factors


def scored(files, *names, options=()):
    folder = files[0]
    out = folder / "out.json"
    arguments = ["score", *(str(folder / name) for name in names), "--metrics", METRICS, "--json", str(out)]
    assert main([*arguments, *options]) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    "names",
    [
        ("codes.npy", "factors.npy"),
        ("codes.csv", "factors.csv"),
        ("codes.npy", "words.csv"),
        ("both.npz",),
        ("both.parquet",),
    ],
)
def test_every_format_gives_the_same_numbers(files, names):
    _, codes, factors = files
    expected = score_rows(codes, factors, metrics=METRICS.split(","))
    found = scored(files, *names)
    for ours, theirs in zip(found["summary"], expected.scores, strict=True):
        assert ours["metric"] == theirs.metric
        # words sort otherwise than numbers, which linear machines feel
        assert ours["value"] == pytest.approx(theirs.value, abs=0.03 if "words.csv" in names else 1e-9)


def test_numbers_are_printed_by_the_names_that_results_have(files, capsys):
    folder, codes, factors = files
    words = ["--metrics", "mig,infomec"]
    assert main(["score", str(folder / "codes.npy"), str(folder / "factors.npy"), *words]) == 0
    shown = "".join(capsys.readouterr())
    for name, value in score_rows(codes, factors, metrics=("mig", "infomec")).by_name().items():
        (line,) = [line for line in shown.splitlines() if name in line.split()]
        assert f"{value:.3f}" in line


@pytest.mark.parametrize("names", [("late.npy", "late_factors.npy"), ("late.npz",)])
def test_a_held_out_split_comes_from_its_own_files(files, names):
    folder, codes, factors = files
    for name, table in (("early", codes[:180]), ("early_factors", factors[:180])):
        np.save(folder / f"{name}.npy", table)
    for name, table in (("late", codes[180:]), ("late_factors", factors[180:])):
        np.save(folder / f"{name}.npy", table)
    np.savez(folder / "late.npz", codes=codes[180:], factors=factors[180:])
    held_out = [str(folder / name) for name in names]
    found = scored(files, "early.npy", "early_factors.npy", options=("--test", *held_out))
    expected = score_rows(codes, factors, metrics=METRICS.split(","), test=np.arange(240) >= 180)
    assert [line["value"] for line in found["summary"]] == [score.value for score in expected.scores]


def test_grid_seeds_and_pictures(files):
    folder = files[0]
    options = ("--sizes", "4", "3", "--seeds", "2", "--protocol", "official", "--figures", str(folder / "figures"))
    found = scored(files, "grid.npy", options=options)
    assert found["protocol"] == "official"
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    for name in ("factor_vae", "mig", "sap"):
        pixels = np.asarray(Image.open(folder / "figures" / f"{name}.png").convert("L"))
        assert pixels.std() > 5


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("none.npy", "factors.npy"), "none.npy does not exist"),
        (("codes.txt", "factors.npy"), "codes.txt ends in '.txt'"),
        (("codes.npy", "grid.npy"), "factors has 12 rows, the codes 240"),
        (("broken.npy", "factors.npy"), "broken.npy cannot be read"),
        (("broken.parquet",), "broken.parquet cannot be read"),
        (("words.csv", "factors.csv"), "words.csv column 'hue' has no numbers"),
        (("codes.csv",), "codes.csv has no factors"),
        (
            ("codes.npy", "factors.npy", "--test", "one.npy", "factors.npy"),
            "codes of shape (240, 1), but those to train on",
        ),
        (("gap.csv", "factors.csv"), "gap.csv column 'b' is empty in 1 of 2 rows"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(files, names, words, capsys):
    folder = files[0]
    (folder / "broken.npy").write_bytes(b"no array")
    (folder / "broken.parquet").write_bytes(b"no table")
    (folder / "gap.csv").write_text("a,b\n1,2\n3,\n")
    np.save(folder / "one.npy", files[1][:, :1])
    assert main(["score", *(name if name.startswith("--") else str(folder / name) for name in names)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert words in said


def test_an_unknown_score_is_named(files, capsys):
    folder = files[0]
    assert main(["score", str(folder / "codes.npy"), str(folder / "factors.npy"), "--metrics", "dci,fid"]) == 2
    assert "metrics has ['fid']" in capsys.readouterr().err


def test_intervals_hold_the_value(files):
    found = scored(files, "codes.npy", "factors.npy", options=("--bootstrap", "12"))
    for line in found["summary"]:
        low, high = line["interval"]
        assert low <= high
        assert low - 0.1 <= line["value"] <= high + 0.1
    assert found["factors"] == ["factor 0", "factor 1"]


def test_models_that_agree_are_found_without_labels(files, capsys):
    folder, codes, _ = files
    rng = np.random.default_rng(0)
    turned = codes @ np.array([[0.8, 0.6], [-0.6, 0.8]])
    np.save(folder / "flipped.npy", -codes[:, ::-1] + 0.01 * rng.normal(size=codes.shape))
    np.save(folder / "turned.npy", turned)
    paths = [str(folder / name) for name in ("turned.npy", "codes.npy", "flipped.npy")]
    assert main(["udr", *paths, "--json", str(folder / "udr.json")]) == 0
    found = json.loads((folder / "udr.json").read_text())
    expected = udr([turned, codes, np.load(folder / "flipped.npy")])
    assert found["scores"] == expected.scores.tolist()
    assert found["pairs"][0][0] is None
    assert np.argmin(found["scores"]) == 0
    assert found["models"] == paths
    said = capsys.readouterr()
    shown = said.out + said.err
    assert shown.index(" 1: ") < shown.index(" 0: ")  # the best first


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("codes.npy",), "1 files of codes: give those of at least two models"),
        (("codes.npy", "grid.npy"), "codes of [240, 12] images"),
        (("codes.npy", "none.npy"), "none.npy does not exist"),
    ],
)
def test_models_that_cannot_be_compared(files, names, words, capsys):
    assert main(["udr", *(str(files[0] / name) for name in names)]) == 2
    assert words in capsys.readouterr().err


def test_binary_attributes_are_named_where_they_are_not(files, capsys):
    folder = files[0]
    assert main(["score", str(folder / "codes.npy"), str(folder / "factors.npy"), "--metrics", "tad"]) == 2
    assert "attributes column 0 is not binary" in capsys.readouterr().err
