"""The store: resumed where it was cut, converted once by several processes, whole or not there."""

import multiprocessing
import shutil
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest

from unweave.config import DataConfig
from unweave.data.store import BLOCK, Skipped, converted
from unweave.errors import UserError

SHAPE = (4, 4, 3)
NUM = 3 * BLOCK + 40


class Numbers:
    """Images that show their number; every hundredth cannot be read. Remembers what was asked for."""

    name, version, image_shape = "numbers", "1", SHAPE

    def __init__(self, fail_at=NUM + 1):
        self.fail_at, self.asked = fail_at, []

    def __len__(self):
        return NUM

    def read(self, start, stop):
        self.asked.append((start, stop))
        if stop > self.fail_at:
            raise KeyboardInterrupt
        good = [row for row in range(start, stop) if row % 100]
        return picture(good), [Skipped(row, f"{row}.png", "bad") for row in range(start, stop) if row % 100 == 0]


def picture(rows):
    values = np.array(rows)
    return np.broadcast_to((values % 251)[:, None, None, None], (len(values), *SHAPE)).astype(np.uint8)


GOOD = [row for row in range(NUM) if row % 100]


def test_a_conversion_that_was_cut_goes_on(tmp_path):
    path = tmp_path / "numbers.npy"
    with pytest.raises(KeyboardInterrupt):
        converted(Numbers(fail_at=2 * BLOCK), path, DataConfig(), [].append)
    assert not path.exists()
    with (tmp_path / "numbers.part").open("ab") as file:
        file.write(b"half a block that no note tells of")
    second = Numbers()
    store = converted(second, path, DataConfig(), [].append)
    assert second.asked[0][0] == 2 * BLOCK
    np.testing.assert_array_equal(store.pixels, picture(GOOD))
    assert store.kept(NUM) == GOOD
    assert sorted(item.name for item in tmp_path.iterdir()) == ["numbers.lock", "numbers.npy", "numbers.skipped.csv"]


def test_a_part_shorter_than_its_note_starts_anew(tmp_path):
    path = tmp_path / "numbers.npy"
    with pytest.raises(KeyboardInterrupt):
        converted(Numbers(fail_at=2 * BLOCK), path, DataConfig(), [].append)
    part = tmp_path / "numbers.part"
    part.write_bytes(part.read_bytes()[:1000])
    source = Numbers()
    np.testing.assert_array_equal(converted(source, path, DataConfig(), [].append).pixels, picture(GOOD))
    assert source.asked[0][0] == 0


def _convert(path, queue):
    source = Numbers()
    store = converted(source, path, DataConfig(), [].append)
    queue.put((len(source.asked), int(store.pixels.astype(np.int64).sum())))


def test_of_several_processes_one_converts(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_convert, args=(tmp_path / "numbers.npy", queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(calls > 0 for calls, _ in found) == [False, False, True]
    assert {total for _, total in found} == {int(picture(GOOD).astype(np.int64).sum())}


def test_disk_use_is_bounded_and_told(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"data\.cache_gb is 1e-06: give --data\.cache-gb 1"):
        converted(Numbers(), tmp_path / "numbers.npy", DataConfig(cache_gb=1e-6), [].append)
    assert not list(tmp_path.iterdir())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(UserError, match="free space or choose another"):
        converted(Numbers(), tmp_path / "numbers.npy", DataConfig(), [].append)


def test_damaged_store_is_named(tmp_path):
    path = tmp_path / "numbers.npy"
    converted(Numbers(), path, DataConfig(), [].append)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"numbers\.npy is damaged .*delete it"):
        converted(Numbers(), path, DataConfig(), [].append)


def test_full_disk_is_said_and_the_next_call_goes_on(tmp_path):
    path = tmp_path / "numbers.npy"
    limit = 128 + BLOCK * 48 + 4_000  # bytes of one file: the first block fits
    code = f"""
import pathlib, resource, signal
from tests.data.test_store import Numbers, converted, DataConfig
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
converted(Numbers(), pathlib.Path({str(path)!r}), DataConfig(), print)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode != 0
    assert f"cannot write {path}" in ended.stderr
    assert "the same command again resumes from there" in ended.stderr
    assert not path.exists()
    source = Numbers()
    np.testing.assert_array_equal(converted(source, path, DataConfig(), [].append).pixels, picture(GOOD))
    assert source.asked[0][0] == BLOCK
