"""Reads the tensors of a PyTorch Lightning checkpoint without running any code in it.

A checkpoint is an uncompressed zip archive: `data.pkl` describes its objects, `data/KEY` has the numbers of a storage.
A pickle names functions and classes to call. The reader here imports none of them: it describes the results of the few
that make tensors, and replaces all others by `Unknown`. Tensors are made afterwards, only those that are needed, and
their sizes are checked against the bytes in the file. (`torch.load(weights_only=True)` refuses a whole file for one
unknown class, and a checkpoint names many classes of the training code.)
"""

import io
import math
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unweave.errors import UserError

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
MAX_PICKLE_BYTES = 2**24  # a real checkpoint has about 2**20; in memory its objects are many times larger


class Storage(NamedTuple):
    """The storage `data/key` of the archive, as the pickle describes it."""

    key: str
    dtype: torch.dtype
    numel: int


class View(NamedTuple):
    """A tensor on a storage, as the pickle describes it; its numbers have not been checked."""

    storage: Storage
    offset: int
    size: tuple[Any, ...]
    stride: tuple[Any, ...]


class Unknown:
    """Placeholder of a class or function that this reader does not know, and of its results. Stores nothing.

    It has the methods by which an unpickler makes and fills objects.
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "Unknown":
        return super().__new__(cls)

    def _ignore(self, *_: Any) -> None:
        pass

    __call__ = append = extend = add = update = _ignore


def _tensor(*arguments: Any) -> View | Unknown:
    match arguments:
        case (Storage() as storage, int(offset), tuple(size), tuple(stride), *_):
            return View(storage, offset, size, stride)
    return Unknown()


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


KNOWN = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("collections", "OrderedDict"): lambda *_: {},
    **{("torch", name): dtype for name, dtype in DTYPES.items()},
}


def _entries(items: list[Any]) -> dict[str, Any]:
    """The entries with text keys from alternating keys and values: the hash of a tuple of tuples can take for ever."""
    return {key: value for key, value in zip(items[::2], items[1::2], strict=True) if isinstance(key, str)}


class _Unpickler(pickle._Unpickler):
    """The unpickler in Python, with some instructions replaced, which the one in C does not allow."""

    def find_class(self, module: str, name: str) -> Any:
        return KNOWN.get((module, name), Unknown)

    def persistent_load(self, pid: Any) -> Storage | Unknown:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), _, int(numel)):
                return Storage(key, dtype, numel)
        return Unknown()

    def _dict(self: Any) -> None:
        entries = _entries(self.pop_mark())
        self.append(entries)

    def _set_items(self: Any) -> None:
        entries = _entries(self.pop_mark())
        self.stack[-1].update(entries)

    def _frozenset(self: Any) -> None:
        self.pop_mark()
        self.append(Unknown())

    dispatch = pickle._Unpickler.dispatch | {
        pickle.DICT[0]: _dict,
        pickle.SETITEM[0]: lambda self: self.stack[-3].update(_entries([self.stack.pop(-2), self.stack.pop()])),
        pickle.SETITEMS[0]: _set_items,
        pickle.EMPTY_SET[0]: lambda self: self.append(Unknown()),
        pickle.FROZENSET[0]: _frozenset,
        pickle.BUILD[0]: lambda self: self.stack.pop(),  # the state of an object: objects here have none
        # a bytearray would be allocated before its bytes are known to exist
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
    }


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors under `state_dict` in a Lightning checkpoint, by name; entries that are no tensors are left out.
    Raises `UserError` if the file is missing, cut off, damaged, of another kind, or has no `state_dict`."""
    with _explained(path), zipfile.ZipFile(path) as archive:
        root = _checked_root(archive, path)
        content = unpickle(archive.read(f"{root}/data.pkl"))
        state = content.get("state_dict") if isinstance(content, dict) else None
        if isinstance(state, dict):
            return _tensors({name: view for name, view in state.items() if isinstance(view, View)}, archive, root)
    raise UserError(f"{path} has no state_dict: give a Lightning checkpoint of a whole model")


def unpickle(data: bytes) -> Any:
    """The objects of a pickle, with `Unknown` for all that is not plain data or a tensor. Imports nothing. Raises
    `ValueError` for a malformed pickle."""
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except Exception as error:  # noqa: BLE001  # a malformed pickle can raise anything
        raise ValueError(f"its pickle is malformed ({type(error).__name__})") from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns the errors of a damaged file, or one of another kind, into a `UserError` with its name."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is not a checkpoint as torch.save writes them, or is cut off: {error}") from None
    except (ValueError, EOFError, NotImplementedError, KeyError) as error:
        raise UserError(f"{path} is damaged: {error}. Download it again") from None


def _checked_root(archive: zipfile.ZipFile, path: Path) -> str:
    """The root folder of the archive. Raises `ValueError` for an archive that torch.save would not write."""
    entries = archive.infolist()
    plain = all(entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1 for entry in entries)
    if not plain or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("its parts are compressed, encrypted or larger than the file, which torch.save never does")
    roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError(f"it has {len(roots)} data.pkl, but torch.save writes one")
    order = f"{roots[0]}/byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("its numbers are not little-endian")
    if archive.getinfo(f"{roots[0]}/data.pkl").file_size > MAX_PICKLE_BYTES:
        raise ValueError(f"its data.pkl has more than {MAX_PICKLE_BYTES:,} bytes")
    return roots[0]


def _tensors(views: dict[str, View], archive: zipfile.ZipFile, root: str) -> dict[str, Tensor]:
    """Tensors on their storages, each of which is read once; empty tensors are left out."""
    buffers: dict[str, bytearray] = {}
    tensors = {}
    for name, view in views.items():
        key = view.storage.key
        if key not in buffers:
            buffers[key] = bytearray(archive.read(f"{root}/data/{key}"))
        if not _fits(view, len(buffers[key])):
            raise ValueError(f"tensor {name!r:.200} has no legal shape or reaches beyond its storage")
        if 0 not in view.size:
            storage = torch.frombuffer(buffers[key], dtype=view.storage.dtype, count=view.storage.numel)
            tensors[name] = storage.as_strided(view.size, view.stride, view.offset)
    return tensors


def _fits(view: View, num_bytes: int) -> bool:
    """Whether a view has a legal shape and fits into its storage, and the storage into its bytes.

    A view must not have more entries than its storage, which is possible with stride 0: a copy of it could be larger
    than the file.
    """
    numbers = (view.offset, *view.size, *view.stride)
    legal = all(isinstance(n, int) and 0 <= n < 2**62 for n in numbers)
    if not legal or not len(view.size) == len(view.stride) <= 8:
        return False
    numel = view.storage.numel
    if 0 in view.size:
        return numel >= 0
    last = view.offset + sum((n - 1) * step for n, step in zip(view.size, view.stride, strict=True))
    return last < numel and math.prod(view.size) <= numel and numel * view.storage.dtype.itemsize <= num_bytes
