"""Tar shards in the WebDataset convention: consecutive members `key.jpg`, `key.cls` and `key.json` are a sample.

The headers of all shards are read once, into an index beside the store, so that the number of samples and their labels
are known; then `webdataset` streams each shard from beginning to end, and every picture goes into the store. Nothing is
unpacked to disk, so paths and links in an archive are harmless.
"""

import io
import itertools
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unweave.data.cache import store_path
from unweave.data.pictures import MOST_BYTES, Crop, Pictures, is_picture, read_picture, walk
from unweave.data.store import REMEDY, file_identity, only_one
from unweave.errors import UserError, require
from unweave.files import write_atomically
from unweave.record import Display, Log

TARS = (".tar", ".tar.gz", ".tgz")
LABEL = "label "  # prefix of the columns of the index that hold labels
MOST_LABEL_BYTES = 2**20
OF_WEBDATASET = re.compile(r"__[^/]*__($|/)")  # members that are no samples by the convention
NOTHING = ("", b"")
DAMAGE = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)


def find_shards(place: str) -> list[Path]:
    """The shards of `place`: a pattern such as `train-{0000..0099}.tar`, one tar, or a folder of tars; else none.

    A folder that has pictures is no folder of shards. Raises `UserError` for a pattern with missing files.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        shards = sorted(child for child in path.iterdir() if _is_shard(child))
        return shards if shards and not any(walk(path, {})) else []
    if path.exists():
        return [path] if _is_shard(path) else []
    return _expanded(place) if "{" in place else []


def _is_shard(path: Path) -> bool:
    return path.name.endswith(TARS) and not path.name.startswith(".") and path.is_file()


def _expanded(pattern: str) -> list[Path]:
    from webdataset.shardlists import expand_urls  # here and below: importing webdataset imports torch

    try:
        shards = [Path(name).expanduser() for name in expand_urls(pattern)]
    except (AssertionError, ValueError) as error:
        raise UserError(f"data.folder is {pattern}: no pattern as in 'train-{{0000..0099}}.tar' ({error})") from None
    missing = [shard for shard in shards if not shard.is_file()]
    require(
        not missing,
        f"data.folder is {pattern}: {len(missing):,} of {len(shards):,} shards are no files on this machine, the first "
        f"is {missing[0] if missing else ''}",
    )
    return shards


class ShardSource(Pictures):
    """The pictures of tar shards, shard by shard in their order; `.cls` and the numbers in `.json` are labels."""

    def __init__(self, shards: Sequence[Path], name: str, size: int, crop: Crop, folder: Path, log: Log):
        super().__init__(name, size, crop, [file_identity(shard) for shard in shards])
        index = _open_index(shards, name, store_path(folder, name, size, self.version), log)
        self.shards = shards
        self.shard_of = index["shard"].to_numpy()
        self.names = index["name"].to_pylist()
        self.reasons = index["reason"].to_pylist()
        labels = [column for column in index.column_names if column.startswith(LABEL)]
        self.columns = index.select(labels).rename_columns([column.removeprefix(LABEL) for column in labels])
        self._next, self._stream = 0, self._stream_from(0)

    def __len__(self) -> int:
        return len(self.names)

    def title(self, index: int) -> str:
        shard, name = self.shards[self.shard_of[index]].name, self.names[index]
        return f"{shard}: {name}" if name else shard

    def readers(self, start: int, stop: int) -> Iterator[Callable[[], np.ndarray]]:
        if start != self._next:
            self._stream = self._stream_from(start)
        self._next = stop
        return itertools.islice(self._stream, stop - start)

    def _stream_from(self, start: int) -> Iterator[Callable[[], np.ndarray]]:
        """A function for each picture from number `start` on, as in `readers`."""
        while start < len(self):
            stop = int(np.searchsorted(self.shard_of, self.shard_of[start], side="right"))
            rows = list(zip(self.names[start:stop], self.reasons[start:stop]))
            contents = _contents(self.shards[self.shard_of[start]], {name for name, reason in rows if not reason})
            member, content = next(contents, NOTHING)
            for name, reason in rows:
                if reason or name != member:
                    yield partial(_refuse, reason or "damaged in the archive")
                else:
                    yield partial(read_picture, io.BytesIO(content), self.image_shape[0], self.crop)
                    member, content = next(contents, NOTHING)
            start = stop


def _refuse(reason: str) -> np.ndarray:
    raise ValueError(reason)


def _contents(shard: Path, names: set[str]) -> Iterator[tuple[str, bytes]]:
    """The members of a shard with these names, in its order; ends early if the shard is damaged."""
    from webdataset.handlers import ignore_and_continue
    from webdataset.tariterators import tar_file_expander

    if not names:
        return
    with shard.open("rb") as file:  # not by name, because webdataset runs a name that begins with `pipe:`
        opened = [{"url": str(shard), "stream": file}]
        for member in tar_file_expander(opened, ignore_and_continue, names.__contains__, _plain, eof_value=None):
            names.remove(member["fname"])  # a second member of that name is ignored, as in the index
            yield member["fname"], member["data"]


class _Member(NamedTuple):
    """A file in a shard."""

    name: str
    num_bytes: int
    content: bytes
    """Empty if it is no label."""


def _open_index(shards: Sequence[Path], name: str, store: Path, log: Log) -> pa.Table:
    """The index of the shards, a row per sample, from the file beside their store, which is written if missing."""
    path = store.with_suffix(".index.parquet")
    if not path.is_file():
        with only_one(store, log):
            if not path.is_file():
                write_atomically(path, lambda fresh: pq.write_table(_index(shards, name), fresh), REMEDY)
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, it will be made again") from None


def _index(shards: Sequence[Path], name: str) -> pa.Table:
    tables = []
    with Display(f"looking through {name}", len(shards), "shards") as display:
        for number, shard in enumerate(shards):
            tables.append(_table(number, shard))
            display.update(number + 1)
    return pa.concat_tables(tables, promote_options="permissive")


def _table(number: int, shard: Path) -> pa.Table:
    """A row per sample of a shard: the name of its picture, the reason if there is none, and its labels.

    A row without a name has the reason why the shard itself is damaged.
    """
    from webdataset.handlers import ignore_and_continue
    from webdataset.tariterators import group_by_keys

    troubles: list[str] = []
    grouped = group_by_keys(_members(shard, troubles), handler=ignore_and_continue)
    samples = [_sample(sample) for sample in grouped]
    rows = [*samples, *(("", trouble, {}) for trouble in troubles)]
    columns = {
        "shard": pa.array([number] * len(rows), pa.int32()),
        "name": pa.array([name for name, _, _ in rows], pa.string()),
        "reason": pa.array([reason for _, reason, _ in rows], pa.string()),
    }
    for label in dict.fromkeys(itertools.chain.from_iterable(labels for _, _, labels in rows)):
        columns[LABEL + label] = pa.array([labels.get(label) for _, _, labels in rows])
    return pa.table(columns)


def _members(shard: Path, troubles: list[str]) -> Iterator[dict[str, Any]]:
    """The files of a shard without the contents of pictures, in the form that webdataset groups; ends at damage.

    Reads from header to header, which is little of an uncompressed tar.
    """
    seen = set()
    try:
        with tarfile.open(shard) as archive:
            assert archive.fileobj is not None
            while member := archive.next():
                if archive.offset <= member.offset:
                    raise tarfile.ReadError("a header leads backwards")
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # it would keep millions
                name = _plain(member.name)
                if member.isreg() and not OF_WEBDATASET.match(member.name) and name not in seen:
                    seen.add(name)
                    content = _label(archive, member)
                    yield {"fname": name, "data": _Member(name, member.size, content), "__url__": str(shard)}
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no mark of its end")
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        troubles.append(f"damaged or cut short, the rest of it is lost ({reason})")


def _plain(name: str) -> str:
    """A name as valid text: names in a tar are bytes, which need not be text."""
    return name.encode("utf-8", "backslashreplace").decode()


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.name.lower().endswith((".cls", ".json")) or member.size > MOST_LABEL_BYTES:
        return b""
    file = archive.extractfile(member)
    return file.read() if file else b""


def _sample(members: dict[str, Any]) -> tuple[str, str | None, dict[str, float]]:
    """Name, reason and labels of a sample, from its members by ending.

    Its picture is the first, where `jpg` is before `mask.jpg`.
    """
    files = {ending: member for ending, member in members.items() if isinstance(member, _Member)}
    pictures = [ending for ending, member in files.items() if is_picture(member.name)]
    labels = _labels(files)
    if not pictures:
        return members["__key__"], f"no picture among {', '.join(files)}", labels
    picture = files[min(pictures, key=lambda ending: "." in ending)]
    large = picture.num_bytes > MOST_BYTES
    return picture.name, f"{picture.num_bytes:,} bytes, more than {MOST_BYTES:,}" if large else None, labels


def _labels(files: dict[str, _Member]) -> dict[str, float]:
    """The numbers in `json`, truth values as 0 and 1, and the one in `cls`."""
    labels: dict[str, Any] = {}
    if "json" in files:
        try:
            parsed = json.loads(files["json"].content)
            labels = parsed if isinstance(parsed, dict) else {}
        except (ValueError, RecursionError):
            pass
    if "cls" in files and re.fullmatch(rb"\s*-?\d{1,18}\s*", files["cls"].content):
        labels["cls"] = int(files["cls"].content)
    numbers = {name: value for name, value in labels.items() if isinstance(value, int | float) and abs(value) < 2**63}
    return {_plain(name): int(value) if isinstance(value, bool) else value for name, value in numbers.items()}
