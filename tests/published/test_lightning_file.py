import collections
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from unweave.errors import UserError
from unweave.published.lightning_file import Unknown, read_state_dict, unpickle

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


class Hostile:
    """Makes a folder when it is unpickled in the usual way."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class HostileState:
    """Runs its `__setstate__` when it is unpickled in the usual way."""

    def __init__(self, marker):
        self.marker = marker

    def __setstate__(self, state):
        os.mkdir(state["marker"])


class HostileItems(dict):
    """Runs at each item that is put back into it."""

    def __setitem__(self, name, value):
        os.mkdir(value)


class Rebuilt:
    """Pickles as a call of torch's tensor maker on a tensor's storage, with any shape."""

    def __init__(self, tensor, offset, size, stride):
        self.arguments = tensor._typed_storage(), offset, size, stride, False, collections.OrderedDict()

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.ckpt"


def saved(path, **state):
    torch.save({"epoch": 3, "state_dict": state}, path)
    return path


def rewritten(path, change):
    """The checkpoint with each part of its archive put through `change(name, data) -> data`."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, change(name, data))
    return path


def check(path, expected):
    found = read_state_dict(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach()), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(path, dtype):
    tensors = {"a": (100 * numbers(3, 4)).to(dtype), "b": torch.ones((), dtype=dtype)}
    check(saved(path, **tensors), tensors)


def test_views_and_shared_storages(path):
    base = numbers(6, 8)
    tensors = {"whole": base, "slice": base[2:4, 1:5], "steps": base[::2, ::3], "turned": base.T, "number": base[3, 3]}
    check(saved(path, **tensors, expanded=torch.nn.Parameter(base[0])), tensors | {"expanded": base[0]})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol(path, protocol):
    module = torch.nn.BatchNorm2d(3)
    content = {"state_dict": module.state_dict(), "numbers": [1, 2**40, -(2**70), 0.5, None, True], "text": "ä" * 300}
    torch.save(content, path, pickle_protocol=protocol)
    check(path, module.state_dict())


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_what_pickle_makes_of_it(protocol):
    shared = ["x", b"y", bytearray(b"z")]
    data = {"a": [1, -5, 2**100, 1.5, True, None], "b": (), "c": (shared, shared), "d": {"e": {"f": (1, 2, 3, 4)}}}
    if protocol < 5:
        shared.pop()  # a bytearray is a call before protocol 5
    if protocol < 3:
        shared.pop()  # and so are bytes before protocol 3
    found = unpickle(pickle.dumps(data, protocol))
    assert found == data
    assert found["c"][0] is found["c"][1]


def test_a_list_may_contain_itself():
    data: list = [1]
    data.append(data)
    found = unpickle(pickle.dumps(data))
    assert found[1] is found


@pytest.mark.parametrize("protocol", range(6))
def test_objects_are_left_unknown(protocol):
    data = [1, np.float64(0.5), {1, 2}, frozenset({3}), complex(1, 2), print, types.SimpleNamespace(a=[1, 2]), "end"]
    first, *objects, last = unpickle(pickle.dumps(data, protocol))
    assert (first, last, len(objects)) == (1, "end", 6)
    assert all(type(found) is Unknown or found is Unknown for found in objects)


def test_nothing_runs(path, tmp_path):
    markers = [tmp_path / f"it ran {i}" for i in range(6)]
    items = HostileItems()
    dict.__setitem__(items, "a", str(markers[0]))
    weight = numbers(2, 3)
    state = collections.OrderedDict(weight=weight, hostile=Hostile(markers[1]), text="not a tensor")
    state._hook = Hostile(markers[2])  # type: ignore[attr-defined]
    content = {"callbacks": [items, HostileState(markers[3]), Hostile(markers[4])], "state_dict": state}
    torch.save(content | {"hyper_parameters": {"nested": (Hostile(markers[5]),)}}, path)
    check(path, {"weight": weight})
    assert not any(marker.exists() for marker in markers)
    torch.load(path, weights_only=False)  # the usual reader runs them all
    assert all(marker.exists() for marker in markers)


def test_modules_that_are_gone_are_not_missed(path):
    module = types.ModuleType("gone")
    module.Callback = type("Callback", (), {"__module__": "gone"})  # type: ignore[attr-defined]
    sys.modules["gone"] = module
    callback = module.Callback()
    callback.state = {"best": torch.ones(3)}
    weight = numbers(4)
    torch.save({"callbacks": {module.Callback: callback}, "state_dict": {"weight": weight}}, path)
    del sys.modules["gone"]
    check(path, {"weight": weight})


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (13,), (1,)),
        (1, (12,), (1,)),
        (0, (4, 4), (3, 1)),
        (-1, (2,), (1,)),
        (0, (-2,), (1,)),
        (5, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (2**40, 2**40), (0, 0)),
        (0, (2**63,), (0,)),
        (0, (1,), (2**70,)),
        (0, (1,) * 200, (1,) * 200),
        (0, ("2",), (1,)),
        (0, (2.0,), (1,)),
    ],
)
def test_shapes_that_leave_the_storage_are_refused(path, offset, size, stride):
    saved(path, weight=Rebuilt(numbers(12), offset, size, stride))
    with pytest.raises(UserError, match="tensor 'weight' has no legal shape or reaches beyond its storage"):
        read_state_dict(path)


def test_a_storage_that_says_it_is_larger_than_its_bytes_is_refused(path):
    saved(path, weight=numbers(10))
    rewritten(path, lambda name, data: data[:-4] if name.endswith("data/0") else data)
    with pytest.raises(UserError, match="reaches beyond its storage"):
        read_state_dict(path)


def test_an_archive_larger_than_its_file_is_refused(path):
    saved(path, weight=torch.zeros(1000))
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match="compressed, encrypted or larger than the file"):
        read_state_dict(path)


def test_a_pickle_that_would_not_fit_in_memory_is_refused(path):
    saved(path, weight=numbers(2))
    rewritten(path, lambda name, data: b"}" * (2**24 + 1) if name.endswith("data.pkl") else data)
    with pytest.raises(UserError, match="its data.pkl has more than 16,777,216 bytes"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "attack",
    [
        b"",
        b".",
        b"0.",
        b"(.",
        b"t.",
        b"R.",
        b"h\x05.",
        b"}s.",
        b"\x93.",
        b"cos\nsystem\n",
        b"cos\nsystem\n(S'true'\ntR",
        b"\x8e" + b"\xff" * 8,
        b"\x8b\xff\xff\xff\x7f",
        b"I" + b"9" * 10_000 + b"\n.",
        b"\xff.",
        b"(" * 100_000,
        b"\x96" + (2**46).to_bytes(8, "little") + b".",
    ],
)
def test_malformed_pickles_are_refused(path, attack):
    saved(path, weight=numbers(2))
    rewritten(path, lambda name, data: attack if name.endswith("data.pkl") else data)
    with pytest.raises(UserError) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_deep_nesting_is_read():
    depth = 200_000
    found = unpickle(b"(" * depth + b"t" * depth + b".")
    for _ in range(depth - 1):
        (found,) = found
    assert found == ()


def test_doubling_by_reference_takes_no_memory():
    """Each list holds the one before it twice: 2^200 entries, were they copied."""
    found = unpickle(b"]q\x00" + b"]q\x01(h\x00h\x00eq\x00" * 200 + b".")
    for _ in range(200):
        found = found[1]
    assert found == []


@pytest.mark.parametrize(
    "key",
    [b"(" * 200_000 + b"t" * 200_000, b")q\x000" + b"h\x00h\x00\x86q\x000" * 200 + b"h\x00"],
    ids=["deep", "doubled"],
)
@pytest.mark.parametrize("pickled", [b"}(%bNu.", b"}%bNs.", b"(%bNd.", b"\x8f(%b\x90.", b"(%b\x91."])
def test_keys_whose_hash_takes_for_ever_are_left_out(key, pickled):
    found = unpickle(pickled % key)
    assert found == {} or type(found) is Unknown


def test_a_large_number_of_an_object_takes_no_memory():
    assert unpickle(b"}r\xff\xff\xff\xff.") == {}


def test_a_cut_file_is_refused(path):
    saved(path, weight=numbers(50))
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a checkpoint as torch.save writes them, or is cut off"):
            read_state_dict(path)


def test_flipped_bytes_are_an_error_or_do_no_harm(path):
    """Each flip is found by a checksum, or it was in what is not read."""
    weight = numbers(20)
    whole = saved(path, weight=weight).read_bytes()
    num_refused = 0
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
        try:
            found = read_state_dict(path)
        except UserError:
            num_refused += 1
        else:
            assert torch.equal(found["weight"], weight)
    assert num_refused > 100


def test_a_tampered_pickle_is_an_error_or_gives_tensors(path):
    """Flips that the checksums agree with: whatever they make of the pickle, nothing but `UserError` comes of it."""
    saved(path, weight=numbers(4, 5), bias=numbers(5), rest=[1, "two", np.float64(3)])
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        pickled = archive.read(name)
    rng, num_refused = np.random.default_rng(0), 0
    for _ in range(600):
        tampered = bytearray(pickled)
        for position in rng.integers(len(pickled), size=rng.integers(1, 4)):
            tampered[position] = rng.integers(256)
        rewritten(path, lambda part, data, changed=bytes(tampered): changed if part == name else data)
        try:
            found = read_state_dict(path)
        except UserError:
            num_refused += 1
        else:
            assert all(isinstance(tensor, torch.Tensor) and tensor.numel() <= 20 for tensor in found.values())
    assert 50 < num_refused < 550


def test_what_is_no_checkpoint_is_refused(path, tmp_path):
    with pytest.raises(UserError, match="x.ckpt cannot be read: No such file"):
        read_state_dict(path)
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_state_dict(tmp_path)
    torch.save({"state_dict": {"weight": numbers(2)}}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="not a checkpoint as torch.save writes them"):
        read_state_dict(path)
    for content in ({"model": {}}, [1, 2], {"state_dict": [numbers(2)]}):
        torch.save(content, path)
        with pytest.raises(UserError, match="x.ckpt has no state_dict"):
            read_state_dict(path)
