"""Jobs side by side: each at a place of its own, none before what it needs, and all stop when one fails."""

import itertools
import json
import sys
import time

import pytest
import torch

from unweave.errors import UserError
from unweave.reproduce import pool
from unweave.reproduce.plan import Request, make_plan
from unweave.reproduce.pool import devices, run_side_by_side

NOTE = """
import json, os, sys, time
start = time.time()
time.sleep(0.4)
json.dump([os.environ["PLACE"], start, time.time()], open(sys.argv[1], "w"))
"""


WHERE = {"a": {"PLACE": "0"}, "b": {"PLACE": "1"}}


@pytest.fixture
def jobs(tmp_path):
    return make_plan(Request("table1", ("shapes3d",), (0,), out=tmp_path))


def test_places_are_used_side_by_side_and_needs_come_first(jobs, tmp_path):
    def command(job):
        return [sys.executable, "-c", NOTE, str(tmp_path / f"{jobs.index(job)}.json")]

    run_side_by_side(jobs, [], WHERE, command, tmp_path / "logs", [].append)
    (_, _, first_ended), *others = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(len(jobs))]
    assert {place for place, *_ in others} == {"0", "1"}
    assert all(begun >= first_ended for _, begun, _ in others)
    for place in ("0", "1"):
        spans = sorted((begun, ended) for where, begun, ended in others if where == place)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert max(begun for _, begun, _ in others[:2]) < min(ended for *_, ended in others[:2])


def test_finished_pieces_are_not_begun(jobs, tmp_path):
    begun = []

    def command(job):
        begun.append(job.name)
        return [sys.executable, "-c", ""]

    run_side_by_side(jobs, jobs[:3], {"a": {}}, command, tmp_path, [].append)
    assert begun == [jobs[3].name]


def test_one_failure_stops_the_others_and_is_told(jobs, tmp_path):
    def command(job):
        fails = job.name.startswith("shapes3d/dyga/")
        return [sys.executable, "-c", "print('no room'); exit(2)" if fails else "import time; time.sleep(60)"]

    start = time.monotonic()
    with pytest.raises(UserError, match=r"shapes3d/dyga/seed0 ended with code 2: no room \(see .*log.txt\)"):
        run_side_by_side(jobs, jobs[:1], WHERE, command, tmp_path, [].append)
    assert time.monotonic() - start < 30


def test_each_gpu_is_a_place_and_without_one_each_core_of_small_models(monkeypatch, tmp_path):
    full, small = (make_plan(Request("table1", seeds=(0,), scale=scale, out=tmp_path)) for scale in ("full", "small"))
    monkeypatch.setattr(pool, "all_cores", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in devices(full).values()] == ["0", "1"]
    assert list(devices(small).values()) == [{"OMP_NUM_THREADS": "1"}] * 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert list(devices(full).values()) == [{"OMP_NUM_THREADS": "3"}]
