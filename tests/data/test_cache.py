"""The file of rendered images: the same pixels, said beforehand, bounded, whole or not at all."""

import pickle
import subprocess
import sys

import filelock
import numpy as np
import pytest

from tests.data.test_base import Toy
from tests.data.test_store import Numbers
from unweave.cli import main
from unweave.config import DataConfig
from unweave.data.base import Fixed
from unweave.data.cache import StoredGrid, cached, store_path, stores
from unweave.data.store import converted
from unweave.errors import UserError


def test_cached_images_are_the_drawn_ones(tmp_path):
    said = []
    toy = Toy()
    kept = cached(toy, tmp_path, 1.0, said.append)
    assert isinstance(kept, StoredGrid)
    assert str(tmp_path) in said[0]
    assert "the limit is 1 GB" in said[0]
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
    for dataset in (Toy(), Fixed(Toy(), {"a": 0}), Fixed(Toy(), {"a": 1})):
        cached(dataset, tmp_path, 1.0, say)
    assert len(list(tmp_path.iterdir())) == 3


def test_larger_sets_are_drawn_as_needed(tmp_path):
    said = []
    toy = Toy()
    assert cached(toy, tmp_path, 1e-9, said.append) is toy
    assert not list(tmp_path.iterdir())
    assert "generated when needed" in said[0]


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


@pytest.fixture
def folder(tmp_path):
    """A cache folder with the stored images of a drawn set, of two of pictures, one of them cut, and other files."""
    cached(Toy(), tmp_path, 1.0, [].append)
    for key in ("0" * 12, "1" * 12):
        converted(Numbers(), store_path(tmp_path, "my photos", 64, key), DataConfig(), [].append)
    with pytest.raises(KeyboardInterrupt):
        converted(Numbers(fail_at=600), store_path(tmp_path, "cut", 32, "2" * 12), DataConfig(), [].append)
    (tmp_path / f".drawn-64px-{'3' * 12}.npy.4711").write_bytes(b"left by a process that was killed")
    for name in ("mine.npy", "photos-64px.npy", "photos-64px-000000000000.jpg"):
        (tmp_path / name).write_bytes(b"no store")
    return tmp_path


def test_stored_images_are_listed_with_all_their_files(folder, capsys):
    found = {store.source: store for store in stores(folder)}
    assert sorted(found) == ["cut", "drawn", "my-photos", "toy"]
    assert [path.suffix for path in found["cut"].files] == [".lock", ".part", ".json"]
    assert found["toy"].num_bytes == 128 + Toy().images(range(60)).nbytes
    assert main(["data", "list", "--cache", str(folder)]) == 0
    listed = capsys.readouterr().err
    assert f"my-photos-64px-{'1' * 12}" in listed
    assert "mine" not in listed


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("my-photos", ["cut", "drawn", "toy"]),
        (f"my-photos-64px-{'0' * 12}", ["cut", "drawn", "my-photos", "toy"]),
        ("", []),
    ],
)
def test_stored_images_are_removed_and_nothing_else(folder, name, left, capsys):
    assert main(["data", "clear", *([name] if name else []), "--cache", str(folder)]) == 0
    assert [store.source for store in stores(folder)] == left
    foreign = {path.name for path in folder.iterdir() if "px-" not in path.name or path.suffix == ".jpg"}
    assert foreign == {"mine.npy", "photos-64px.npy", "photos-64px-000000000000.jpg"}
    assert left or {path.name for path in folder.iterdir()} == foreign
    assert "removed my-photos-64px-" in capsys.readouterr().err


def test_what_cannot_be_removed(folder, tmp_path, capsys):
    assert main(["data", "clear", "photos", "--cache", str(folder)]) == 2
    assert "has no stored images called 'photos': cut-32px-222222222222, " in capsys.readouterr().err
    with filelock.FileLock(folder / f"cut-32px-{'2' * 12}.lock"):
        assert main(["data", "clear", "cut", "--cache", str(folder)]) == 2
    assert "cut-32px-222222222222 is being converted by another process" in capsys.readouterr().err
    assert main(["data", "clear", "--cache", str(tmp_path / "nowhere")]) == 0
    assert "has no stored images" in capsys.readouterr().err
