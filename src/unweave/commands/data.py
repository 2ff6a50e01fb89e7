"""`unweave data`: lists data sets, describes, downloads and checks them, and removes stored images."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
from rich.table import Table

from unweave.config import DataConfig
from unweave.data import is_place, open_dataset
from unweave.data.base import FactorDataset, ImageSet, StateSpace
from unweave.data.cache import cache_folder, stores
from unweave.data.download import check, download
from unweave.data.sets import DRAWN, SETS, find
from unweave.data.sets.card import Card
from unweave.errors import UserError, require
from unweave.record import console, log
from unweave.report.figures import image_grid

SHEET_ROWS, SHEET_COLUMNS = 6, 10


def list_datasets(cache: str) -> None:
    """Prints the known data sets, and the stored images in the cache folder."""
    # the known sets
    table = Table(title="data sets", title_justify="left")
    for column in ("name", "what", "images", "values of its factors", "licence"):
        table.add_column(column, justify="right" if column == "images" else "left", no_wrap=column == "name")
    for name, card in SETS.items():
        values = " x ".join(map(str, card.factors.values())) or card.labels
        table.add_row(name, card.title, f"{card.num_images:,}", values, card.licence)
    table.add_row("your own", "folder, .zip, .npy, .npz, .tar, .parquet", "any", "--data.labels, for scores", "yours")
    table.add_row("hf://OWNER/NAME", "Hugging Face", "any", "its columns, for scores", "its own")
    console.print(table)
    log("unweave data info NAME describes one, unweave data get NAME downloads it")

    # the stored images
    folder = cache_folder(cache)
    kept = stores(folder)
    table = Table(title=f"stored images in {folder}", title_justify="left")
    for column in ("name", "MB", "last used"):
        table.add_column(column, justify="right" if column == "MB" else "left", overflow="fold")
    for store in kept:
        table.add_row(
            store.name, f"{store.num_bytes / 1e6:,.0f}", f"{datetime.fromtimestamp(store.last_used):%Y-%m-%d}"
        )
    table.add_row("total", f"{sum(store.num_bytes for store in kept) / 1e6:,.0f}", "")
    console.print(table)


def clear_stores(name: str, cache: str) -> None:
    """Removes the stored images called `name` from the cache folder, or all. They are made again when needed. Raises
    `UserError` for an unknown name."""
    folder = cache_folder(cache)
    kept = stores(folder)
    chosen = [store for store in kept if name in ("", store.name, store.source)]
    names = ", ".join(store.name for store in kept) or "it has none"
    require(bool(chosen) or not name, f"{folder} has no stored images called {name!r}: {names}")
    for store in chosen:
        store.remove()
        log(f"removed {store.name}, {store.num_bytes / 1e6:,.0f} MB")
    if not chosen:
        log(f"{folder} has no stored images")


def facts(name: str) -> list[tuple[str, str]]:
    """The facts about a data set, as pairs of a heading and its text."""
    card = find(name)
    sizes = ", ".join(f"{factor} {size}" for factor, size in card.factors.items())
    rows = [
        ("images", f"{card.num_images:,}, {card.pixels}"),
        ("factors", f"{sizes}; the last varies fastest" if sizes else ""),
        ("labels", card.labels),
        ("licence", card.licence),
        ("source", card.source),
        ("cite", card.citation),
        *(("file", f"{file.name}: {file.expected}") for file in card.files),
        ("layout", card.layout),
        ("get", _how_to_get(card)),
        ("use", card.use),
    ]
    return [(heading, text) for heading, text in rows if text]


def _how_to_get(card: Card) -> str:
    generated = f"--data.name {card.name} generates it, nothing is downloaded" if card.draw else ""
    get = f"unweave data get {card.name}" if card.files else ""
    return f"{card.by_hand}; {get} checks the files" if card.by_hand else "; or ".join(filter(None, (generated, get)))


def inform(name: str) -> None:
    """Prints the facts about a data set; lines are not wrapped, so that hashes and commands can be copied."""
    card = find(name)
    log(f"{card.title}: {card.about}")
    for heading, text in facts(name):
        log(f"{heading:9}{text}")


def get(name: str, to: Path | None) -> None:
    """Downloads the files of a data set into `to`, by default data/NAME here, and prints how to train on them.

    Raises `UserError` as `download` does, for a generated set, and for missing files that need a manual download, after
    printing where to put them.
    """
    card, folder = find(name), to or Path("data") / name
    require(bool(card.files), f"{name} is generated, there is nothing to download: use --data.name {name}")
    missing = [file for file in card.files if not file.urls and not (folder / file.name).is_file()]
    for file in card.files:
        if file.urls:
            download(file, folder, log)
        elif file not in missing:
            check(file, folder / file.name, log)
    if missing:
        log(f"{card.title} needs a manual download: {card.by_hand}")
        for file in missing:
            log(f"put a file at {folder / file.name} ({file.expected})")
        raise UserError(
            f"{len(missing)} files of {name} are missing: download them by hand, then the same command checks them"
        )
    log(f"{card.title}, {card.licence}. To cite: {card.citation}")
    log(f"Next: {card.use.replace(f'data/{name}', str(folder))}")


def describe(place: str, size: int, sheet: Path | None, cache: str, cache_gb: float) -> None:
    """Reads a whole data set, given by name or path, prints its size and factors, and draws some images to `sheet`.
    Raises `UserError` as `open_dataset` does, for instance for a damaged file."""
    # read all of it
    known = f"; unweave data get {place} downloads it" if place in SETS else ""
    require(
        place in DRAWN or is_place(place),
        f"{place!r} is no generated set and no path: choose {', '.join(DRAWN)}, a folder or a file of images{known}",
    )
    config = DataConfig(name=place) if place in DRAWN else DataConfig(folder=place)
    dataset = open_dataset(replace(config, cache=cache, cache_gb=cache_gb), size, log)
    log(f"{dataset.name}: {len(dataset):,} images of {size} px")

    # its factors
    table = Table()
    table.add_column("factor")
    table.add_column("values", justify="right")
    for name, values in zip(dataset.factor_names, _sizes(dataset)):
        table.add_row(name, str(values))
    if not dataset.factor_names:
        table.add_row("none known", "")
    console.print(table)
    if sheet is not None:
        log(f"wrote {draw_sheet(dataset, sheet)}")


def _sizes(dataset: ImageSet) -> tuple[int, ...]:
    if isinstance(dataset, FactorDataset):
        return dataset.factor_sizes
    labels = dataset.factors(np.arange(len(dataset)))
    return tuple(len(np.unique(column)) for column in labels.T)


def draw_sheet(dataset: ImageSet, path: Path, seed: int = 0) -> Path:
    """Draws random images of a data set to `path`; below them, for a grid of factors, each factor over its values."""
    # random images
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(dataset), size=(SHEET_ROWS, SHEET_COLUMNS))
    titles = [""] * SHEET_ROWS

    # a row per factor, over its values
    if isinstance(dataset, FactorDataset):
        space = StateSpace(dataset.factor_names, dataset.factor_sizes)
        held = space.factors([int(rng.integers(len(space)))])[0]
        walks = [_walk(space, held, factor) for factor in range(len(space.sizes))]
        rows = np.concatenate([rows[: SHEET_ROWS // 2], np.stack(walks)])
        titles = [*titles[: SHEET_ROWS // 2], *space.names]
    images = dataset.images(rows.ravel()).reshape(*rows.shape, *dataset.image_shape)
    what = "Random images" + (", and each factor over its values with the others fixed." if any(titles) else ".")
    return image_grid(images, path, f"{dataset.name}, {len(dataset):,} images", what, rows=titles)


def _walk(space: StateSpace, held: Sequence[int] | np.ndarray, factor: int) -> np.ndarray:
    """Indices of images in which one factor takes its values in order and the others are fixed."""
    cells = np.tile(held, (SHEET_COLUMNS, 1))
    cells[:, factor] = np.linspace(0, space.sizes[factor] - 1, SHEET_COLUMNS).round()
    return space.index(cells)
