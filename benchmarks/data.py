"""Measures the store of images: random batches against decoding PNG files, and the memory that a large set takes while
it is converted and while a model trains on it.

    python benchmarks/data.py --folder FOLDER

FOLDER gets a file in the layout of MPI3D (`--images` of 64 px, the real set's number unless told; 12.7 GB, not
compressed) and its store (as much again), and is emptied again; the script refuses to start without the space. Memory
is RssAnon of /proc: what the page cache holds does not count. For training it is summed over its process and those that
read images, which counts the pages that they share in each; once with those shared out as well. Warm is from the page
cache, cold after the store was dropped from it.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import record
from unweave.config import DataConfig
from unweave.data import Rooms, open_dataset
from unweave.data.sets.mpi3d import SIZES
from unweave.data.store import Store
from unweave.presets import PRESETS

NUM_PNG, BATCH, NUM_BATCHES = 4_096, 512, 40
BLOCK = 10_368
TRAIN_STEPS, TRAIN_WORKERS = 200, 2


def processes(first: int) -> list[int]:
    """A process and those that it started, at this moment."""
    try:
        tasks = list(Path(f"/proc/{first}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has just ended
        return []
    return [first, *(process for child in children for process in processes(child))]


def field_bytes(process: int, file: str, field: str) -> int:
    """A size in a file of /proc; 0 once the process has ended."""
    try:
        lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def anonymous_bytes(first: int) -> int:
    """RssAnon of a process and of those that it started, summed."""
    return sum(field_bytes(process, "status", "RssAnon") for process in processes(first))


class Watch:
    """Keeps the highest `anonymous_bytes` of the time it is entered, looking twenty times a second.

    `shared_once` is Pss_Anon at that moment: as much, but a page that several processes share is shared out among them.
    """

    def __init__(self, process: int) -> None:
        self.process = process
        self.peak = self.shared_once = self.num_processes = 0
        self._done = threading.Event()

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.05):
            found = anonymous_bytes(self.process)
            if found > self.peak:
                together = processes(self.process)
                self.peak, self.num_processes = found, len(together)
                self.shared_once = sum(field_bytes(process, "smaps_rollup", "Pss_Anon") for process in together)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def write_mpi3d(path: Path, num: int) -> None:
    """An .npz of `num` images: rooms, over and over."""
    images = Rooms(64).images(np.random.default_rng(0).integers(480_000, size=BLOCK))
    header = io.BytesIO()
    shape = (num, *images.shape[1:])
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive, archive.open("images.npy", "w", force_zip64=True) as file:
        file.write(header.getvalue())
        for start in range(0, num, BLOCK):
            file.write(images[: min(BLOCK, num - start)].tobytes())


def forget(path: Path) -> None:
    """Drops a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(read: Callable[[np.ndarray], Any], num: int, batches: int) -> float:
    """Images per second in random batches."""
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(batches):
        read(rng.integers(num, size=BATCH))
    return batches * BATCH / (time.perf_counter() - start)


def train(folder: Path) -> Watch:
    """Trains for some steps on the file in a folder, from its store there, and tells the memory."""
    options = {
        "--data.folder": folder / "mpi3d.npz",
        "--data.cache": folder,
        "--model.image-size": 64,
        "--train.images": TRAIN_STEPS * PRESETS["tiny"].config.train.batch_size,
        "--train.workers": TRAIN_WORKERS,
    }
    command = [sys.executable, "-m", "unweave", "train", "tiny", "--run", str(folder / "run"), "--data.fixed"]
    command += [str(word) for option in options.items() for word in option]
    command += ["--model.unet.attention-widths", "8", "4", "--model.unet.skip-dropout-widths", "8"]
    with subprocess.Popen(command) as process, Watch(process.pid) as watch:
        process.wait()
    if process.returncode:
        sys.exit(f"training ended with {process.returncode}")
    return watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the files go, and are removed again")
    parser.add_argument("--images", type=int, default=1_036_800, choices=sorted(SIZES))
    arguments = parser.parse_args()
    num_bytes = arguments.images * 64 * 64 * 3
    free = shutil.disk_usage(arguments.folder).free
    if free < 2.2 * num_bytes:
        parser.error(f"{arguments.folder} has {free / 1e9:.1f} GB free, {2.2 * num_bytes / 1e9:.1f} GB are needed")

    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch)
        write_mpi3d(folder / "mpi3d.npz", arguments.images)
        before = anonymous_bytes(os.getpid())
        config = DataConfig(folder=str(folder / "mpi3d.npz"), cache=str(folder), cache_gb=20.0)
        with Watch(os.getpid()) as watch:
            start = time.perf_counter()
            dataset = open_dataset(config, 64, print)
            convert_s = time.perf_counter() - start
            forget(next(folder.glob("mpi3d*.npy")))
            cold = rate(dataset.images, len(dataset), 4)
            rate(dataset.images, NUM_PNG, 20)
            warm = rate(dataset.images, NUM_PNG, NUM_BATCHES)

        pixels = Store(next(folder.glob("mpi3d*.npy"))).pixels
        for row in range(NUM_PNG):
            Image.fromarray(pixels[row]).save(folder / f"{row}.png")

        def decode(rows: np.ndarray) -> np.ndarray:
            return np.stack([np.asarray(Image.open(folder / f"{row}.png")) for row in rows])

        rate(decode, NUM_PNG, 8)
        png = rate(decode, NUM_PNG, NUM_BATCHES)
        trained = train(folder)
    numbers = {
        "images": arguments.images,
        "store_warm_images_per_s": warm,
        "store_cold_images_per_s": cold,
        "png_warm_images_per_s": png,
        "times_faster": warm / png,
        "convert_s": convert_s,
        "convert_images_per_s": arguments.images / convert_s,
        "rss_anon_before_mb": before / 1e6,
        "rss_anon_peak_mb": watch.peak / 1e6,
        "train_steps": TRAIN_STEPS,
        "train_processes": trained.num_processes,
        "train_rss_anon_peak_mb": trained.peak / 1e6,
        "train_rss_anon_peak_shared_once_mb": trained.shared_once / 1e6,
    }
    print(record.write("data", numbers).read_text())


if __name__ == "__main__":
    main()
