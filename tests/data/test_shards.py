"""Tar shards, written by webdataset's own writer: the pixels of a folder, the odd members said, each image once."""

import io
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
import webdataset
from PIL import Image

from unweave.cli import main
from unweave.config import DataConfig
from unweave.data import open_dataset
from unweave.data import store as store_module
from unweave.data.cache import stores
from unweave.errors import UserError
from unweave.training.batches import Order, batches
from unweave.training.stages import Reader

SIZE, NUM = 16, 10


def opened(what, cache, said=None, **options):
    config = DataConfig(folder=str(what), cache=str(cache), **options)
    return open_dataset(config, SIZE, (said if said is not None else []).append)


def png(number, size=24):
    """A picture as a file: a grey that is its number, with a corner that shows which way is up."""
    pixels = np.full((size, size, 3), number, np.uint8)
    pixels[: size // 2, : size // 2] = 255 - number
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write_shards(folder, num=NUM, per_shard=4):
    """Shards of numbered pictures, and the same pictures in a folder `pictures` beside them."""
    (folder / "pictures").mkdir()
    (folder / "shards").mkdir()
    with webdataset.ShardWriter(f"{folder}/shards/train-%04d.tar", maxcount=per_shard, verbose=0) as writer:
        for number in range(num):
            (folder / "pictures" / f"{number:03}.png").write_bytes(png(number))
            told = {"index": 10 * number, "age": number / 2, "smiles": number % 2 == 0, "name": "x"}
            told |= {"rare": 1} if number == 3 else {}
            sample = {"png": png(number), "cls": number % 3, "json": told, "txt": "a caption"}
            writer.write({"__key__": f"{number:03}", **sample})
    return folder / "shards"


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path)


def put(path, members, mode="w"):
    """A tar of (name or TarInfo, content)."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def listed(cache):
    lines = next(cache.glob("*.skipped.csv")).read_text().splitlines()
    return [line.split(",", 1)[1] for line in lines[1:]]


def test_pixels_are_those_of_a_folder_of_the_same_pictures(shards, tmp_path):
    expected = opened(tmp_path / "pictures", tmp_path / "cache").images(range(NUM))
    said = []
    for what in (f"{shards}/train-{{0000..0002}}.tar", shards):
        np.testing.assert_array_equal(opened(what, tmp_path / "cache", said).images(range(NUM)), expected)
    one = opened(shards / "train-0001.tar", tmp_path / "cache")
    np.testing.assert_array_equal(one.images(range(4)), expected[4:8])
    packed = tmp_path / "packed.tar.gz"
    put(packed, [(f"in/{number}.png", png(number)) for number in range(NUM)], "w:gz")
    np.testing.assert_array_equal(opened(packed, tmp_path / "cache").images(range(NUM)), expected)


def test_numbers_beside_the_pictures_are_labels(shards, tmp_path):
    said = []
    dataset = opened(shards, tmp_path / "cache", said)
    assert dataset.factor_names == ("index", "age", "smiles", "cls")
    expected = [[10 * number, number / 2, number % 2 == 0, number % 3] for number in range(NUM)]
    np.testing.assert_array_equal(dataset.factors(range(NUM)), expected)
    assert any("not every image has a number there: rare" in line for line in said)


def test_the_index_is_removed_with_the_stored_images(shards, tmp_path):
    opened(shards, tmp_path / "cache")
    (kept,) = stores(tmp_path / "cache")
    assert sum(file.name.endswith(".index.parquet") for file in kept.files) == 1
    kept.remove()
    assert not list((tmp_path / "cache").iterdir())
    assert len(opened(shards, tmp_path / "cache")) == NUM


def test_a_table_of_labels_goes_before_them(shards, tmp_path):
    rows = [f"{number:03}.png,{number * number}" for number in reversed(range(NUM))]
    (tmp_path / "labels.csv").write_text("\n".join(["file,square", *rows]))
    dataset = opened(shards, tmp_path / "cache", labels=str(tmp_path / "labels.csv"))
    assert dataset.factor_names == ("square",)
    assert dataset.factors([3, 9])[:, 0].tolist() == [9, 81]


def test_units_and_labels_of_shards_are_written(shards, tiny_run, tmp_path):
    out = tmp_path / "codes.parquet"
    assert main(["encode", str(tiny_run), "--data", f"{shards}/train-{{0000..0001}}.tar", "--out", str(out)]) == 0
    table = pq.read_table(out)
    assert table["index"].to_pylist() == list(range(8))
    assert table["label_index"].to_pylist() == [10 * number for number in range(8)]
    assert table["cls"].to_pylist() == [number % 3 for number in range(8)]
    assert table["age"].to_pylist() == [number / 2 for number in range(8)]


def test_odd_members_are_skipped_and_listed(tmp_path):
    good = png(7)
    shard = put(
        tmp_path / "odd.tar",
        [
            ("__meta__/info.png", png(1)),  # the convention's own
            ("a.png", good),
            ("a.mask.png", png(2)),  # belongs to a, whose picture is png
            ("a.cls", b"3"),
            ("a.png", png(9)),  # the name a second time
            ("b.png", good[: len(good) // 2]),
            ("b.cls", b"4"),
            ("c.txt", b"no picture"),
            ("README", b"no sample"),
            ("d.JPG", b"<html>moved</html>"),
            ("e.json", b"{" * 100_000),
            ("e.png", png(8)),
            ("e.cls", b"5"),
        ],
    )
    said = []
    dataset = opened(shard, tmp_path / "cache", said)
    assert dataset.images([0, 1])[:, -1, -1, 0].tolist() == [7, 8]
    assert dataset.factors(range(2)).tolist() == [[3], [5]]
    reasons = listed(tmp_path / "cache")
    assert [reason.split(",")[0] for reason in reasons] == ["odd.tar: b.png", "odd.tar: c", "odd.tar: d.JPG"]
    assert reasons[1:] == ["odd.tar: c,no picture among txt", "odd.tar: d.JPG,not a picture"]
    assert any("skipped 3 of 5" in line for line in said)
    with pytest.raises(UserError, match=r"odd\.tar: b\.png: .*Repair or remove it"):
        opened(shard, tmp_path / "cache", strict=True)


def place_of(path, name):
    """Where the headers and the content of a member begin."""
    with tarfile.open(path) as archive:
        member = archive.getmember(name)
        return member.offset, member.offset_data


@pytest.mark.parametrize(
    ("damage", "lost", "listed_as"),
    [
        ("cut in a picture", [6, 7], ["train-0001.tar: 006.png,damaged in the archive", "end of data"]),
        ("cut between members", [6, 7], ['train-0001.tar: 006,"no picture among cls, json"', "no mark of its end"]),
        ("no header", [6, 7], ['train-0001.tar: 006,"no picture among cls, json"', "no mark of its end"]),
        ("no tar", [4, 5, 6, 7], ["could not be opened"]),
        ("empty", [4, 5, 6, 7], [""]),
    ],
)
def test_what_a_damaged_shard_still_has_is_read_and_the_rest_said(shards, tmp_path, damage, lost, listed_as):
    path = shards / "train-0001.tar"
    whole, (header, start) = path.read_bytes(), place_of(path, "006.png")
    path.write_bytes(
        {
            "cut in a picture": whole[: start + 60],
            "cut between members": whole[:header],
            "no header": whole[:header] + b"\xff" * (start - header) + whole[start:],
            "no tar": b"<b>moved</b>" * 99,
            "empty": b"",
        }[damage]
    )
    said = []
    dataset = opened(shards, tmp_path / "cache", said)
    expected = [number for number in range(NUM) if number not in lost]
    assert dataset.images(range(len(dataset)))[:, -1, -1, 0].tolist() == expected
    assert dataset.factors(range(len(dataset)))[:, -1].tolist() == [number % 3 for number in expected]
    *samples, shard = listed(tmp_path / "cache")
    assert samples == listed_as[:-1]
    assert shard.startswith('train-0001.tar,"damaged or cut short, the rest of it is lost (')
    assert listed_as[-1] in shard
    assert any(f"skipped {len(listed_as)} of" in line for line in said)


def test_a_packed_shard_that_is_cut_short(tmp_path):
    noise = np.random.default_rng(0).bytes(40_000)
    path = put(tmp_path / "a.tar.gz", [("a.png", png(1)), ("b.bin", noise), ("c.png", png(2))], "w:gz")
    path.write_bytes(path.read_bytes()[:20_000])
    assert len(opened(path, tmp_path / "cache")) == 1
    assert "the rest of it is lost (Compressed file ended" in listed(tmp_path / "cache")[-1]


def test_nothing_of_a_hostile_archive_leaves_it(tmp_path):
    link, hard, device = tarfile.TarInfo("link.png"), tarfile.TarInfo("hard.png"), tarfile.TarInfo("null.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard.type, hard.linkname = tarfile.LNKTYPE, "../../outside.png"
    device.type = tarfile.CHRTYPE
    sparse = tarfile.TarInfo("sparse.png")
    members = [("../../outside.png", png(1)), (f"{tmp_path}/absolute.png", png(2)), (link, b""), (hard, b"")]
    shard = put(tmp_path / "hostile.tar", [*members, (device, b""), ("na\udcffme.png", png(3)), (sparse, png(4))])
    cache = tmp_path / "cache"
    dataset = opened(shard, cache)
    assert dataset.images(range(4))[:, -1, -1, 0].tolist() == [1, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "hostile.tar"]
    assert not (tmp_path.parent / "outside.png").exists()
    assert {path.suffix for path in cache.iterdir()} == {".npy", ".csv", ".parquet", ".lock"}


def test_a_header_that_leads_backwards_ends_the_shard(tmp_path):
    """Its size is negative, which sends a reader round and round."""
    shard = put(tmp_path / "round.tar", [("a.png", png(1)), ("b.png", png(2))])
    content, (offset, _) = bytearray(shard.read_bytes()), place_of(shard, "b.png")
    content[offset + 124 : offset + 136] = (-1024 & (2**96 - 1)).to_bytes(12, "big")
    block = content[offset : offset + 148] + b" " * 8 + content[offset + 156 : offset + 512]
    content[offset + 148 : offset + 156] = f"{sum(block):06o}\0 ".encode()
    shard.write_bytes(content)
    assert len(opened(shard, tmp_path / "cache")) == 1
    assert "leads backwards" in listed(tmp_path / "cache")[0]


def test_a_large_member_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("unweave.data.shards.MOST_BYTES", 500)
    shard = put(tmp_path / "large.tar", [("a.png", png(1)), ("b.png", b"x" * 501), ("c.png", png(3))])
    assert opened(shard, tmp_path / "cache").images([0, 1])[:, -1, -1, 0].tolist() == [1, 3]
    assert listed(tmp_path / "cache") == ['large.tar: b.png,"501 bytes, more than 500"']


def test_a_conversion_of_shards_that_was_cut_goes_on(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "BLOCK", 3)  # ends within shards
    whole = opened(shards, tmp_path / "whole").images(range(NUM))
    real, calls = store_module.write_text, []

    def stop_at_the_second(path, text):
        real(path, text)
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_text", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            opened(shards, tmp_path / "cut")
    assert json.loads(next((tmp_path / "cut").glob("*.part.json")).read_text())["done"] == 6
    np.testing.assert_array_equal(opened(shards, tmp_path / "cut").images(range(NUM)), whole)


def take_an_epoch(rank, num_processes, pattern, folder):
    """One process's part of an epoch, read by two workers, as in training."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=num_processes)
    dataset = opened(pattern, folder / "cache")
    order = Order(np.arange(len(dataset)), seed=0)
    feed = batches(Reader(dataset), order, 0, 16, dist.get_rank(), dist.get_world_size(), workers=2)
    np.save(folder / f"{rank}.npy", [next(feed)["images"][:, -1, -1, 0].numpy() for _ in range(len(dataset) // 16)])
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_two_workers_each_see_every_image_once(tmp_path):
    shards = write_shards(tmp_path, num=64, per_shard=10)
    torch.multiprocessing.spawn(take_an_epoch, (2, f"{shards}/train-{{0000..0006}}.tar", tmp_path), nprocs=2)
    first, second = (np.load(tmp_path / f"{rank}.npy").ravel() for rank in range(2))
    assert len(first) == len(second) == 32
    assert sorted([*first, *second]) == list(range(64))
    assert first.tolist() != sorted(first)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("train-{0000..0004}.tar", r"2 of 5 shards are no files on this machine, the first is .*train-0003\.tar"),
        ("pipe:touch hacked #{0..1}.tar", "2 of 2 shards are no files on this machine"),
        ("https://host/train-{0..1}.tar", "2 of 2 shards are no files on this machine"),
        ("train-${HOME}.tar", "no pattern as in 'train-{0000..0099}.tar'"),
        ("train-{0000..", "no pattern|no files on this machine"),
    ],
)
def test_patterns_that_name_no_shards(shards, tmp_path, pattern, words, monkeypatch):
    monkeypatch.chdir(shards)
    before = sorted(shards.iterdir())
    with pytest.raises(UserError, match=words):
        opened(pattern, tmp_path / "cache")
    assert sorted(shards.iterdir()) == before


def test_a_folder_with_pictures_is_no_folder_of_shards(shards, tmp_path):
    (shards / "deep").mkdir()
    (shards / "deep" / "one.png").write_bytes(png(5))
    assert len(opened(shards, tmp_path / "cache")) == 1
