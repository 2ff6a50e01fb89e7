"""smallNORB: small files in its layout, in another order than that of the factors, and what goes wrong with them."""

import gzip
import itertools
import struct

import numpy as np
import pytest

from tests.data.test_published import opened
from unweave.data.sets.binary_matrix import read_matrix
from unweave.errors import UserError

TRAINING, TESTING = "smallnorb-2x46x2x3x2x2x12x12-training", "smallnorb-2x01x2x3x2x2x12x12-testing"
MAGIC = {"uint8": 507333717, "int32": 507333716, "int16": 507333718, "float32": 507333713, "float64": 507333715}


def matrix(array):
    """The bytes of a binary matrix, as its publishers describe them."""
    shape = [*array.shape, *[1] * (3 - array.ndim)]
    header = struct.pack(f"<II{len(shape)}I", MAGIC[array.dtype.name], array.ndim, *shape)
    return header + array.tobytes()


def write_part(folder, stem, instances, seed, packed=True):
    """Writes a part whose images are noise, in no order; returns the labels and the images of the first camera."""
    rng = np.random.default_rng(seed)
    labels = np.array(list(itertools.product((0, 1), instances, (0, 1), (0, 2, 4), (0, 1))), np.int32)
    labels = rng.permutation(labels)
    pairs = rng.integers(0, 256, (len(labels), 2, 12, 12), dtype=np.uint8)
    for kind, array in (("dat", pairs), ("cat", labels[:, 0]), ("info", labels[:, 1:])):
        content = matrix(np.ascontiguousarray(array))
        path = folder / f"{stem}-{kind}.mat{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
    return labels, pairs[:, 0]


@pytest.mark.parametrize("packed", [True, False])
def test_both_parts_are_one_grid(tmp_path, packed):
    parts = [write_part(tmp_path, TRAINING, (4, 6), 0, packed), write_part(tmp_path, TESTING, (0, 1), 1, packed)]
    dataset = opened(tmp_path, tmp_path / "cache", 12)
    assert dataset.name == "smallnorb"
    assert dataset.factor_names == ("category", "instance", "elevation", "azimuth", "lighting")
    assert dataset.factor_sizes == (2, 4, 2, 3, 2)
    for labels, images in parts:
        factors = labels.copy()
        factors[:, 1] = np.searchsorted([0, 1, 4, 6], labels[:, 1])
        factors[:, 3] //= 2
        found = dataset.images(dataset.index(factors))
        np.testing.assert_array_equal(found, np.repeat(images[..., None], 3, axis=3))


def test_one_part_is_a_grid_of_its_own_toys(tmp_path):
    labels, images = write_part(tmp_path, TRAINING, (4, 6), 0)
    (tmp_path / f"{TRAINING}-dat.mat.gz.part").write_bytes(b"of a download that was cut")
    dataset = opened(tmp_path, tmp_path / "cache", 12, fixed=("instance=1",))
    assert dataset.factor_sizes == (2, 2, 3, 2)
    row = np.flatnonzero((labels == [1, 6, 0, 4, 1]).all(axis=1))[0]
    found = dataset.images(dataset.index([[1, 0, 2, 1]]))[0]
    np.testing.assert_array_equal(found[..., 1], images[row])


def test_numbers_of_every_type(tmp_path):
    rng = np.random.default_rng(0)
    for name in MAGIC:
        array = (rng.normal(size=(700, 3)) * 50).astype(name)
        (tmp_path / "a.mat").write_bytes(matrix(array))
        np.testing.assert_array_equal(read_matrix(tmp_path / "a.mat"), array)
        assert read_matrix(tmp_path / "a.mat").dtype == array.dtype


def damaged(folder, name):
    """Damages one file of a part as its name says."""
    dat, cat, info = (folder / f"{TRAINING}-{kind}.mat.gz" for kind in ("dat", "cat", "info"))
    content = gzip.decompress(dat.read_bytes())
    if name == "missing":
        info.unlink()
    if name == "cut":
        dat.write_bytes(dat.read_bytes()[:-400])
    if name == "short":
        dat.write_bytes(gzip.compress(content[:-5]))
    if name == "long":
        dat.write_bytes(gzip.compress(content + b"x"))
    if name == "header":
        dat.write_bytes(gzip.compress(content[:6]))
    if name == "magic":
        dat.write_bytes(gzip.compress(b"MATLAB 5.0 MAT-file"))
    if name == "big-endian":
        cat.write_bytes(gzip.compress(struct.pack(">II3I", MAGIC["int32"], 1, 48, 1, 1)))
    if name == "page":
        dat.write_bytes(b"<html>403 Forbidden</html>")
    if name == "bytes":
        cat.write_bytes(gzip.compress(matrix(np.zeros(48, np.uint8))))
    if name == "rows":
        info.write_bytes(gzip.compress(matrix(np.zeros((47, 4), np.int32))))
    if name == "grid":
        info.write_bytes(gzip.compress(matrix(np.zeros((48, 4), np.int32))))
    if name == "one camera":
        dat.write_bytes(gzip.compress(matrix(np.zeros((48, 1, 12, 12), np.uint8))))
    if name == "huge":
        dat.write_bytes(gzip.compress(struct.pack("<II4I", MAGIC["uint8"], 4, 48, 2, 2**30, 2**30)))
    if name == "negative":
        dat.write_bytes(gzip.compress(struct.pack("<II4i", MAGIC["uint8"], 4, -1, 2, 12, 12)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", r"has no smallnorb-.*-training-info\.mat\.gz, which belongs to the other files"),
        ("cut", r"-dat\.mat\.gz cannot be read \(Compressed file ended"),
        ("short", r"-dat\.mat\.gz cannot be read \(it ends too early\): get it again"),
        ("long", r"-dat\.mat\.gz cannot be read \(it has data after its last row\)"),
        ("header", r"-dat\.mat\.gz cannot be read \(it ends in its header\)"),
        ("magic", r"-dat\.mat\.gz is no binary matrix \(it begins with 0x4c54414d\)"),
        ("big-endian", r"-cat\.mat\.gz is no binary matrix \(it begins with 0x544c3d1e\)"),
        ("page", r"-dat\.mat\.gz cannot be read \(Not a gzipped file"),
        ("bytes", r"-cat\.mat\.gz has uint8 \(48,\): should be int32 \(48,\)"),
        ("rows", r"-info\.mat\.gz has int32 \(47, 4\): should be int32 \(48, 4\)"),
        ("grid", r"48 labels, which are not the grid 2 x 1 x 1 x 1 x 1"),
        ("one camera", r"-dat\.mat\.gz has uint8 \(48, 1, 12, 12\): should be uint8 \(images, 2 cameras"),
        ("huge", r"-dat\.mat\.gz has uint8 \(48, 2, 1073741824, 1073741824\): should be"),
        ("negative", r"-dat\.mat\.gz has a matrix of shape \(-1, 2, 12, 12\)"),
    ],
)
def test_bad_files_are_named(tmp_path, name, words):
    write_part(tmp_path, TRAINING, (4, 6), 0)
    damaged(tmp_path, name)
    with pytest.raises(UserError, match=words):
        opened(tmp_path, tmp_path / "cache", 12)
    assert not list((tmp_path / "cache").glob("*.npy"))
