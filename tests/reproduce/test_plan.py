"""Printed numbers are those of the other pages, plans are the presets, and what is missing is named."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unweave.cli import main
from unweave.data import Fixed, Rooms, open_dataset
from unweave.data.faces import draw_faces
from unweave.errors import UserError
from unweave.presets import FIRST_STAGES, PRESETS
from unweave.reproduce.plan import Request, check_data, find, make_plan
from unweave.reproduce.printed import DCI, ENCDIFF, FACTOR_VAE, FID, OURS, TABLE1, TABLE2, TAD
from unweave.reproduce.recipes import first_stage, methods

CONVERT = (Path(__file__).parents[2] / "docs" / "convert.md").read_text()


@pytest.mark.parametrize("method", [OURS, ENCDIFF])
def test_printed_numbers_are_those_that_converted_models_are_compared_with(method):
    """That page and this table were copied from the paper apart from each other."""
    (row,) = re.findall(rf"\| {method} \| (.*) \|", CONVERT)
    cells = [float(number) for number in re.findall(r"[\d.]+", row)]
    ours = [TABLE1[method][name][score].mean for name in ("cars3d", "shapes3d", "mpi3d") for score in (FACTOR_VAE, DCI)]
    assert cells == [*ours, TABLE2[method]["celeba"][TAD].mean, TABLE2[method]["celeba"][FID].mean]


def test_a_full_plan_is_the_presets_and_in_order():
    request = Request("table1", ("shapes3d",), (0, 4))
    jobs = make_plan(request)
    assert [job.name for job in jobs] == [
        "shapes3d/first_stage",
        *(f"shapes3d/{row}/seed{seed}" for row in ("dyga", "dyga-published", "encdiff") for seed in (0, 4)),
    ]
    assert jobs[0].config == FIRST_STAGES["vq-shapes3d"].config
    for job in jobs[1:]:
        row, seed = job.name.split("/")[1:]
        method, *published = row.split("-")
        preset = PRESETS["-".join([method, "shapes3d", *published])].config
        assert job.needs == jobs[0].name
        tokenizer = replace(job.config.model.tokenizer, folder="")
        assert replace(job.config.model, tokenizer=tokenizer) == preset.model
        assert f"seed{job.config.train.seed}" == seed
        assert job.config.train.images == preset.train.images
        assert job.config.model.tokenizer.folder == str(request.out.absolute() / "shapes3d/first_stage/run/model")


def test_tables_share_the_trainings_that_they_have_in_common():
    plans = {
        table: {job.name: job.config for job in make_plan(Request(table, ("mpi3d",)))}
        for table in ("table1", "ablation", "downstream")
    }
    assert plans["table1"] == plans["downstream"]
    shared = set(plans["table1"]) & set(plans["ablation"])
    assert {name.split("/")[1] for name in shared} == {"first_stage", "dyga", "dyga-published"}
    assert all(plans["table1"][name] == plans["ablation"][name] for name in shared)


def test_the_ablation_turns_two_knobs_and_no_other():
    for scale in ("full", "small"):
        request = Request("ablation", scale=scale)
        rows = methods(request.size, "ablation", request.sets[0], request.out)
        base = next(method.config for key, method in rows.items() if key.removeprefix("unet-") == "dyga")
        knobs = set()
        for method in rows.values():
            model = method.config.model
            knobs.add((model.anchors.mode, model.unet.skip_dropout))
            same = replace(model, unet=base.model.unet, anchors=base.model.anchors)
            assert replace(method.config, model=same) == base
            assert replace(model.unet, skip_dropout=0.2) == base.model.unet
            assert base.model.denoiser == "unet"
        assert {("off", 0.0), ("off", 0.2), ("corrected", 0.0), ("corrected", 0.2)} <= knobs
        assert len(knobs) == len(rows)


def test_perceptual_weights_reach_the_first_stage(tmp_path):
    for name in ("vgg16.pth", "vgg.pth"):
        (tmp_path / name).touch()
    files = tmp_path / "vgg16.pth", tmp_path / "vgg.pth"
    request = Request("table2", vgg16=files[0], lpips=files[1])
    found = make_plan(request)[0].config.model.perceptual
    assert (found.backbone, found.heads) == tuple(map(str, files))
    assert first_stage(request.size, "celeba", tmp_path, ("", "")).model.perceptual.backbone == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table1", "--data", "celeba"], "data is 'celeba': table1 at scale full has shapes3d, cars3d, mpi3d"),
        (["table1", "--data", "shapes3d", "--scale", "small"], "table1 at scale small has rooms"),
        (["table1", "--seeds", "1", "1"], "name each once"),
        (["table2", "--inception", "none.pth"], "none.pth does not exist"),
        (["table2", "--vgg16", "pyproject.toml"], "belong together"),
        (
            ["table1", "--scale", "tiny", "--piece", "rooms/vae/seed0"],
            "choose from rooms/first_stage, rooms/dyga/seed0",
        ),
        (
            ["table1", "--data", "shapes3d", "--piece", "shapes3d/first_stage"],
            "data/shapes3d/3dshapes.h5 does not exist: unweave data get shapes3d",
        ),
    ],
)
def test_mistakes_are_one_line(words, said, tmp_path, capsys):
    assert main(["reproduce", *words, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_files_that_a_person_has_to_get_are_explained():
    with pytest.raises(UserError, match=r"data/celeba/img_align_celeba.zip does not exist: open https://.* into data"):
        check_data([find(make_plan(Request("table2")), "celeba/dyga/seed0")])


def test_a_piece_alone_is_asked_for_in_the_same_words(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "unweave.reproduce.command.reproduce", lambda request, dry_run, job: asked.append((request, job))
    )
    request = Request("downstream", ("cars3d", "mpi3d"), (3, 5), out=Path("some/where"))
    assert main(request.words("cars3d/dyga/seed3")) == 0
    assert asked == [(request, "cars3d/dyga/seed3")]


def test_faces_open_as_celeba_does_and_show_rooms(tmp_path):
    """Each picture is the room that it resembles most, and its attributes are told from that room's factors."""
    data = make_plan(Request("table2", scale="tiny", out=tmp_path))[1].config.data
    draw_faces(Path(data.folder), Path(data.labels), 8)
    faces = open_dataset(replace(data, cache=str(tmp_path)), 64, [].append)
    assert faces.factor_names == ("Floor_Warm", "Wall_Warm", "Object_Warm", "Large")
    rooms = Fixed(Rooms(64), {"shape": 0, "orientation": 7})
    known = rooms.factors(np.arange(len(rooms)))
    drawn = rooms.images(np.arange(len(rooms)))[:, ::4, ::4].astype(np.int16)
    for image, label in zip(faces.images(np.arange(8)), faces.factors(np.arange(8))):
        distance = np.abs(drawn - image[::4, ::4]).mean((1, 2, 3))
        assert distance.min() < 2
        *hues, scale = known[distance.argmin()]
        assert label.tolist() == [1 if said else -1 for said in (*(hue in (9, 0, 1, 2) for hue in hues), scale >= 4)]
