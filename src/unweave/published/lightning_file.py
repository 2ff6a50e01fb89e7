"""Reads the tensors of a PyTorch Lightning checkpoint without running anything that is in it.

A checkpoint is an uncompressed zip archive: `data.pkl` describes its objects, `data/KEY` holds a storage's numbers. A
pickle is a program for a small stack machine, and the usual machine imports and calls whatever the program names. The
machine here never imports and never calls: it keeps numbers, texts, lists, tuples, dicts and descriptions of
tensors, and puts `UNKNOWN` in the place of all else. Tensors are made afterwards, from what was asked for, their sizes
checked against the bytes that are there.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
VALUES = frozenset(  # the instructions that push a number or a text of their own
    code.name
    for code in pickletools.opcodes
    if code.arg and not code.stack_before and code.stack_after not in ([], [pickletools.anyobject])
)
IGNORED = frozenset({"PROTO", "FRAME", "READONLY_BUFFER"})
MAX_PICKLE_BYTES = 2**24  # that of a real checkpoint has some 2**20; in memory its objects are many times as large


@dataclass(frozen=True)
class Name:
    """What the pickle calls `module.name`."""

    module: str
    name: str


@dataclass(frozen=True)
class Storage:
    """The storage `data/key` of the archive, as the pickle describes it."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class View:
    """A tensor on a storage, as the pickle describes it; nothing of it has been checked."""

    storage: Storage
    offset: int
    size: tuple[Any, ...]
    stride: tuple[Any, ...]


class _Unknown:
    """Stands for any object that this reader does not know."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors under `state_dict` in a Lightning checkpoint, by name; entries that are no tensors are left out.

    Raises `UserError` when the file is missing, cut off, damaged, of another kind, or has no `state_dict`.
    """
    with _explained(path), zipfile.ZipFile(path) as archive:
        root = _checked_root(archive, path)
        content = unpickle(archive.read(f"{root}/data.pkl"))
        state = content.get("state_dict") if isinstance(content, dict) else None
        if isinstance(state, dict):
            return _tensors({name: view for name, view in state.items() if isinstance(view, View)}, archive, root)
    raise UserError(f"{path} has no state_dict: give a Lightning checkpoint of a whole model")


def unpickle(data: bytes) -> Any:
    """What a pickle describes, with `UNKNOWN` for all that is not plain data or a tensor. Calls and imports nothing.

    Raises `ValueError` for a malformed pickle.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
            machine.step(opcode.name, argument)
        return machine.pop()
    except (IndexError, KeyError):
        raise ValueError("its pickle takes what was never put") from None


class _Machine:
    """The pickle machine: a stack, the stacks below each open mark, and a memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carries out one instruction."""
        if name in VALUES:
            self.push(argument)
        elif name in CONSTANTS:
            self.push(CONSTANTS[name])
        elif name not in IGNORED and not self._arranges(name, argument) and not self._collects(name):
            self._describes(name, argument)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """All that lies above the last mark."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def _arranges(self, name: str, argument: Any) -> bool:
        """Instructions about the stack and the memo; whether this was one."""
        match name:
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "POP":
                if self.stack:
                    self.pop()
                else:
                    self.pop_mark()
            case "POP_MARK":
                self.pop_mark()
            case "DUP":
                self.push(self.stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self.push(self.memo[argument])
            case _:
                return name == "STOP"
        return True

    def _collects(self, name: str) -> bool:
        """Instructions that make and fill lists, tuples and dicts; whether this was one."""
        match name:
            case "EMPTY_LIST":
                self.push([])
            case "LIST":
                self.push(self.pop_mark())
            case "APPEND":
                self._extend([self.pop()])
            case "APPENDS":
                self._extend(self.pop_mark())
            case "TUPLE":
                self.push(tuple(self.pop_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.push(tuple(reversed([self.pop() for _ in range(int(name[-1]))])))
            case "EMPTY_DICT":
                self.push({})
            case "DICT":
                items = self.pop_mark()
                self.push({})
                self._update(items)
            case "SETITEM":
                value, key = self.pop(), self.pop()
                self._update([key, value])
            case "SETITEMS":
                self._update(self.pop_mark())
            case _:
                return False
        return True

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        """Keys other than texts are left out: the hash of a nested tuple can take for ever."""
        if isinstance(self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=False)
            self.stack[-1].update((key, value) for key, value in pairs if isinstance(key, str))

    def _describes(self, name: str, argument: Any) -> None:
        """Instructions that would import, call or restore objects: here they describe a tensor, or are `UNKNOWN`."""
        match name:
            case "GLOBAL":
                self.push(Name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                self.push(Name(module, attribute))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                self.push(_described(function, arguments))
            case "BINPERSID":
                self.push(_storage(self.pop()))
            case "BUILD":
                self.pop()  # the state of the object below, which keeps none
            case "ADDITEMS":
                self.pop_mark()
            case "FROZENSET" | "INST" | "OBJ":
                self.pop_mark()
                self.push(UNKNOWN)
            case "NEWOBJ" | "NEWOBJ_EX":
                del self.stack[-(2 if name == "NEWOBJ" else 3) :]
                self.push(UNKNOWN)
            case _:  # EMPTY_SET, PERSID, EXT1, EXT2, EXT4, NEXT_BUFFER
                self.push(UNKNOWN)


def _described(function: Any, arguments: Any) -> Any:
    """What `function(*arguments)` would have made, if it is a tensor or an empty ordered dict."""
    match function, arguments:
        case (
            Name("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2"),
            (Storage() as storage, int(offset), tuple(size), tuple(stride), *_),
        ):
            return View(storage, offset, size, stride)
        case Name("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"), (View() as view, *_):
            return view
        case Name("collections", "OrderedDict"), ():
            return {}
    return UNKNOWN


def _storage(persistent_id: Any) -> Any:
    match persistent_id:
        case ("storage", Name("torch", str(kind)), str(key), _, int(numel)) if kind in DTYPES:
            return Storage(key, DTYPES[kind], numel)
    return UNKNOWN


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what a file of another kind or a damaged one raises into a `UserError` that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is not a checkpoint as torch.save writes them, or is cut off: {error}") from None
    except (ValueError, EOFError, NotImplementedError, KeyError) as error:
        raise UserError(f"{path} is damaged: {error}. Download it again") from None


def _checked_root(archive: zipfile.ZipFile, path: Path) -> str:
    """The folder in the archive that holds all; only of an archive in which nothing is larger than the file says."""
    entries = archive.infolist()
    plain = all(entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1 for entry in entries)
    if not plain or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("its parts are compressed, encrypted or larger than the file, which torch.save never does")
    roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError(f"it has {len(roots)} data.pkl, where torch.save writes one")
    order = f"{roots[0]}/byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("its numbers are not little-endian")
    if archive.getinfo(f"{roots[0]}/data.pkl").file_size > MAX_PICKLE_BYTES:
        raise ValueError(f"its data.pkl has more than {MAX_PICKLE_BYTES:,} bytes")
    return roots[0]


def _tensors(views: dict[str, View], archive: zipfile.ZipFile, root: str) -> dict[str, Tensor]:
    """Tensors on storages, each of which is read once; tensors without entries are left out."""
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
    """Whether a view has a legal shape and stays in its storage, and the storage in its bytes.

    A view may not have more entries than its storage either, as one with stride 0 could: a copy of it would be larger
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
