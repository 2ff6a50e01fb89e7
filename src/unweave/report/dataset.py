"""What a data set is: a table, and a sheet of some of its images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from unweave.config import DataConfig
from unweave.data import DATASETS, is_place, open_dataset
from unweave.data.base import Grid, ImageSet, StateSpace
from unweave.data.published import LAYOUTS
from unweave.errors import require
from unweave.record import console, say
from unweave.report.figures import image_grid

SHEET_ROWS, SHEET_COLUMNS = 6, 10


def list_datasets() -> None:
    """Prints the sets that are drawn, and the published files that can be opened."""
    table = Table(title="data sets", title_justify="left")
    for column in ("name", "from", "factors", "licence"):
        table.add_column(column, overflow="fold")
    for name, kind in DATASETS.items():
        table.add_row(name, "drawn here: --data.name", ", ".join(kind().factor_names), "Apache-2.0")
    for name, layout in LAYOUTS.items():
        table.add_row(
            name, f"{layout.file}: --data.folder ({layout.source})", ", ".join(layout.factors), layout.licence
        )
    table.add_row("your own", "folder, .zip, .npy, .npz: --data.folder", "--data.labels, for scores", "yours")
    table.add_row(
        "tar shards", "'train-{0000..0099}.tar', a folder of them: --data.folder", ".cls, .json, for scores", "yours"
    )
    table.add_row("Hugging Face", "hf://OWNER/NAME, saved, .parquet: --data.folder", "columns, for scores", "its own")
    console.print(table)


def describe(what: str, size: int, sheet: Path | None, cache: str) -> None:
    """Opens a data set by name or path, reading all of it, says what it is, and draws some of its images in `sheet`.

    Raises `UserError` as `open_dataset` does, which is what a damaged file leads to.
    """
    require(
        what in DATASETS or is_place(what),
        f"{what!r} is no data set and no path: choose {', '.join(DATASETS)}, or a folder or file of images",
    )
    config = DataConfig(name=what, cache=cache) if what in DATASETS else DataConfig(folder=what, cache=cache)  # pyright: ignore[reportArgumentType]
    dataset = open_dataset(config, size, say)
    say(f"{dataset.name}: {len(dataset):,} images of {size} px")
    table = Table()
    table.add_column("factor")
    table.add_column("values", justify="right")
    for name, values in zip(dataset.factor_names, _sizes(dataset)):
        table.add_row(name, str(values))
    if not dataset.factor_names:
        table.add_row("none known", "")
    console.print(table)
    if sheet is not None:
        say(f"wrote {draw_sheet(dataset, sheet)}")


def _sizes(dataset: ImageSet) -> tuple[int, ...]:
    if isinstance(dataset, Grid):
        return dataset.factor_sizes
    labels = dataset.factors(np.arange(len(dataset)))
    return tuple(len(np.unique(column)) for column in labels.T)


def draw_sheet(dataset: ImageSet, path: Path, seed: int = 0) -> Path:
    """Some images of a data set, drawn under the seed; below them, for a grid, each factor over its values."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(dataset), size=(SHEET_ROWS, SHEET_COLUMNS))
    titles = [""] * SHEET_ROWS
    if isinstance(dataset, Grid):
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
