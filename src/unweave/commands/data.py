"""What a data set is: a table, and a sheet of some of its images."""

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
    """Prints the data sets that are known, and the stored images in the cache folder."""
    table = Table(title="data sets", title_justify="left")
    for column in ("name", "what", "images", "values of its factors", "licence"):
        table.add_column(column, justify="right" if column == "images" else "left", no_wrap=column == "name")
    for name, card in SETS.items():
        values = " x ".join(map(str, card.factors.values())) or card.labels
        table.add_row(name, card.title, f"{card.num_images:,}", values, card.licence)
    table.add_row("your own", "folder, .zip, .npy, .npz, .tar, .parquet", "any", "--data.labels, for scores", "yours")
    table.add_row("hf://OWNER/NAME", "Hugging Face", "any", "its columns, for scores", "its own")
    console.print(table)
    log("unweave data info NAME says more of one, unweave data get NAME fetches it")
    folder = cache_folder(cache)
    kept = stores(folder)
    table = Table(title=f"stored images in {folder}", title_justify="left")
    for column in ("name", "MB", "last used"):
        table.add_column(column, justify="right" if column == "MB" else "left", overflow="fold")
    for store in kept:
        table.add_row(
            store.name, f"{store.num_bytes / 1e6:,.0f}", f"{datetime.fromtimestamp(store.last_used):%Y-%m-%d}"
        )
    table.add_row("all of them", f"{sum(store.num_bytes for store in kept) / 1e6:,.0f}", "")
    console.print(table)


def clear_stores(name: str, cache: str) -> None:
    """Removes stored images from the cache folder: those called `name`, or all. They are made again where needed."""
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
    """What is known of a data set, as pairs of a heading and its text."""
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
    drawn = f"--data.name {card.name} draws it, nothing is downloaded" if card.draw else ""
    fetch = f"unweave data get {card.name}" if card.files else ""
    return f"{card.by_hand}; {fetch} checks the files" if card.by_hand else "; or ".join(filter(None, (drawn, fetch)))


def inform(name: str) -> None:
    """Prints what is known of a data set; lines are not wrapped, so that hashes and commands can be copied."""
    card = find(name)
    log(f"{card.title}: {card.about}")
    for heading, text in facts(name):
        log(f"{heading:9}{text}")


def get(name: str, to: Path | None) -> None:
    """Downloads the files of a data set into `to`, else data/NAME here, and says how to train on them.

    Raises `UserError` as `download` does, for a set that is drawn, and, after saying what to do, for missing files that
    have to be downloaded by hand.
    """
    card, folder = find(name), to or Path("data") / name
    require(bool(card.files), f"{name} is drawn on this machine, there is nothing to get: use --data.name {name}")
    missing = [file for file in card.files if not file.urls and not (folder / file.name).is_file()]
    for file in card.files:
        if file.urls:
            download(file, folder, log)
        elif file not in missing:
            check(file, folder / file.name, log)
    if missing:
        log(f"{card.title} has to be downloaded by hand: {card.by_hand}")
        for file in missing:
            log(f"{folder / file.name}: put it there ({file.expected})")
        raise UserError(
            f"{len(missing)} files of {name} are missing: download them by hand, then the same command checks them"
        )
    log(f"{card.title}, {card.licence}. To cite: {card.citation}")
    log(f"next: {card.use.replace(f'data/{name}', str(folder))}")


def describe(place: str, size: int, sheet: Path | None, cache: str, cache_gb: float) -> None:
    """Opens a data set by name or path, reading all of it, says what it is, and draws some of its images in `sheet`.

    Raises `UserError` as `open_dataset` does, which is what a damaged file leads to.
    """
    known = f"; unweave data get {place} fetches it" if place in SETS else ""
    require(
        place in DRAWN or is_place(place),
        f"{place!r} is no drawn data set and no path: choose {', '.join(DRAWN)}, a folder or a file of images{known}",
    )
    config = DataConfig(name=place) if place in DRAWN else DataConfig(folder=place)
    dataset = open_dataset(replace(config, cache=cache, cache_gb=cache_gb), size, log)
    log(f"{dataset.name}: {len(dataset):,} images of {size} px")
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
    """Some images of a data set, drawn under the seed; below them, for a grid, each factor over its values."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(dataset), size=(SHEET_ROWS, SHEET_COLUMNS))
    titles = [""] * SHEET_ROWS
    if isinstance(dataset, FactorDataset):
        space = StateSpace(dataset.factor_names, dataset.factor_sizes)
        held = space.factors([int(rng.integers(len(space)))])[0]
        walks = [_walk(space, held, factor) for factor in range(len(space.sizes))]
        rows = np.concatenate([rows[: SHEET_ROWS // 2], np.stack(walks)])
        titles = [*titles[: SHEET_ROWS // 2], *space.names]
    images = dataset.images(rows.ravel()).reshape(*rows.shape, *dataset.image_shape)
    what = "Images at random" + (", and each factor over its values, the others held." if any(titles) else ".")
    return image_grid(images, path, f"{dataset.name}, {len(dataset):,} images", what, rows=titles)


def _walk(space: StateSpace, held: Sequence[int] | np.ndarray, factor: int) -> np.ndarray:
    """Indices of images in which one factor goes over its values, the others held."""
    cells = np.tile(held, (SHEET_COLUMNS, 1))
    cells[:, factor] = np.linspace(0, space.sizes[factor] - 1, SHEET_COLUMNS).round()
    return space.index(cells)
