"""Images per second of the drawn data sets, as drawn and from the cache: `python benchmarks/images.py`."""

import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from record import write
from unweave.data import DSprites, Rooms
from unweave.data.base import FactorDataset, Fixed
from unweave.data.cache import cached

NUM = 8192
BATCH = 512
BARS = {"rooms": 5_000, "dsprites": 10_000}


def seconds(dataset: FactorDataset, seed: int, num: int = NUM) -> float:
    """Time to read `num` random images in batches, once everything that is kept in memory is there."""
    rows = np.random.default_rng(seed).integers(len(dataset), size=(num // BATCH, BATCH))
    for batch in rows:
        dataset.images(batch)
    start = time.perf_counter()
    for batch in rows:
        dataset.images(batch)
    return time.perf_counter() - start


def rate(dataset: FactorDataset) -> dict[str, float]:
    """Images per second in one process (median of three) and in two at once, as two loader workers would read."""
    alone = NUM / float(np.median([seconds(dataset, seed) for seed in range(3)]))
    with ProcessPoolExecutor(2) as pool:
        both = list(pool.map(seconds, [dataset] * 2, range(2)))
    return {"one_process": round(alone), "two_processes": round(sum(NUM / one for one in both))}


def main() -> None:
    numbers = {}
    for kind in (Rooms, DSprites):
        for size in (64, 32):
            start = time.perf_counter()
            dataset = kind(size)
            dataset.images([0])
            first = time.perf_counter() - start
            seconds(dataset, 0)
            numbers[f"{dataset.name}, {size} px, drawn"] = {
                "first_image_seconds": round(first, 2),
                "first_8192_images_twice_seconds": round(time.perf_counter() - start, 2),
                **rate(dataset),
            }
    with tempfile.TemporaryDirectory() as folder:
        part = Fixed(Rooms(64), {"floor_hue": 0, "scale": 4})
        numbers[f"rooms ({len(part):,} of them), 64 px, cached"] = rate(cached(part, Path(folder), 2.0, print))
    print(write("images", {"bars_at_64_px": BARS, "images_per_second": numbers}))


if __name__ == "__main__":
    main()
