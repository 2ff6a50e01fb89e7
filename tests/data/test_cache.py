"""The file of rendered images: the same pixels, said beforehand, bounded, whole or not at all."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from tests.data.test_base import Toy
from unweave.data.base import Frozen
from unweave.data.cache import StoredGrid, cached
from unweave.errors import UserError


def test_cached_images_are_the_drawn_ones(tmp_path):
    said = []
    toy = Toy()
    kept = cached(toy, tmp_path, 1.0, said.append)
    assert isinstance(kept, StoredGrid)
    assert str(tmp_path) in said[0]
    assert "at most 1 GB" in said[0]
    rows = np.array([59, 0, 7, 7])
    assert np.array_equal(kept.images(rows), toy.images(rows))
    assert np.array_equal(pickle.loads(pickle.dumps(kept)).images(rows), toy.images(rows))


def test_file_is_used_again_and_a_damaged_one_is_not(tmp_path):
    said = []
    cached(Toy(), tmp_path, 1.0, said.append)
    cached(Toy(), tmp_path, 1.0, said.append)
    assert len(said) == 1
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    assert np.array_equal(cached(Toy(), tmp_path, 1.0, said.append).images([59]), Toy().images([59]))
    assert len(said) == 2


def test_what_determines_the_pixels_is_in_the_name(tmp_path):
    say = [].append
    for dataset in (Toy(), Frozen(Toy(), {"a": 0}), Frozen(Toy(), {"a": 1})):
        cached(dataset, tmp_path, 1.0, say)
    assert len(list(tmp_path.iterdir())) == 3


def test_larger_sets_are_drawn_as_needed(tmp_path):
    said = []
    toy = Toy()
    assert cached(toy, tmp_path, 1e-9, said.append) is toy
    assert not list(tmp_path.iterdir())
    assert "drawn as needed" in said[0]


def test_failure_while_drawing_leaves_nothing(tmp_path):
    class Failing(Toy):
        def images(self, indices):
            raise RuntimeError("no ink")

    with pytest.raises(RuntimeError, match="no ink"):
        cached(Failing(), tmp_path, 1.0, [].append)
    assert not list(tmp_path.iterdir())


def test_full_disk_is_an_error_that_names_the_folder_and_the_remedy(tmp_path):
    code = f"""
import pathlib, resource, signal
from tests.data.test_base import Toy
from unweave.data.cache import cached
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))  # after the imports, which may write compiled code
cached(Toy(), pathlib.Path({str(tmp_path)!r}), 1.0, print)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode != 0
    assert f"cannot write {tmp_path}" in ended.stderr
    assert "--data.cache-gb 0" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file"):
        cached(Toy(), tmp_path / "file" / "folder", 1.0, [].append)
