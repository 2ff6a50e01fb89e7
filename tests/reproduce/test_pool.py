"""Pieces side by side: each on a device of its own, none before what it needs, and all stop when one fails."""

import itertools
import json
import sys
import time

import pytest

from unweave.errors import UserError
from unweave.reproduce.plan import Request, make_plan
from unweave.reproduce.pool import run_side_by_side

NOTE = """
import json, os, sys, time
start = time.time()
time.sleep(0.4)
json.dump([os.environ["CUDA_VISIBLE_DEVICES"], start, time.time()], open(sys.argv[1], "w"))
"""


@pytest.fixture
def pieces(tmp_path):
    return make_plan(Request("table1", ("shapes3d",), (0,), out=tmp_path))


def test_devices_are_used_side_by_side_and_needs_come_first(pieces, tmp_path):
    def command(piece):
        return [sys.executable, "-c", NOTE, str(tmp_path / f"{pieces.index(piece)}.json")]

    run_side_by_side(pieces, [], ["0", "1"], command, tmp_path / "logs", [].append)
    (_, _, first_ended), *others = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(len(pieces))]
    assert {device for device, *_ in others} == {"0", "1"}
    assert all(begun >= first_ended for _, begun, _ in others)
    for device in ("0", "1"):
        spans = sorted((begun, ended) for where, begun, ended in others if where == device)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert max(begun for _, begun, _ in others[:2]) < min(ended for *_, ended in others[:2])


def test_finished_pieces_are_not_begun(pieces, tmp_path):
    begun = []

    def command(piece):
        begun.append(piece.name)
        return [sys.executable, "-c", ""]

    run_side_by_side(pieces, pieces[:3], ["0"], command, tmp_path, [].append)
    assert begun == [pieces[3].name]


def test_one_failure_stops_the_others_and_is_told(pieces, tmp_path):
    def command(piece):
        fails = piece.name.startswith("shapes3d/dyga/")
        return [sys.executable, "-c", "print('no room'); exit(2)" if fails else "import time; time.sleep(60)"]

    start = time.monotonic()
    with pytest.raises(UserError, match=r"shapes3d/dyga/seed0 ended with code 2: no room \(see .*log.txt\)"):
        run_side_by_side(pieces, pieces[:1], ["0", "1"], command, tmp_path, [].append)
    assert time.monotonic() - start < 30
