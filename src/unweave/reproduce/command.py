"""`unweave reproduce`: what it costs, the pieces, the table."""

from dataclasses import replace
from pathlib import Path

from unweave.config import DataConfig
from unweave.data import open_dataset
from unweave.data.base import ImageSet
from unweave.data.faces import draw_faces
from unweave.data.sets import SETS
from unweave.files import write_text
from unweave.presets.published import SCHEDULES
from unweave.record import clock, log
from unweave.reproduce.costs import show_costs
from unweave.reproduce.piece import do, finished
from unweave.reproduce.plan import Piece, Request, check_data, find, make_plan, missing_data
from unweave.reproduce.pool import places, run_side_by_side, unweave
from unweave.reproduce.recipes import ATTRIBUTES, FACES
from unweave.reproduce.table import as_json, as_markdown, collect

NUM_FACES = {"small": 2_000, "tiny": 120}


def reproduce(request: Request, dry_run: bool = False, piece: str = "") -> None:
    """Makes a table, or says what that would take, or does one piece of it.

    Finished pieces are only read, and a training that was cut resumes: the same command again ends with the same
    table. Raises `UserError` for files that are missing and folders of other options.
    """
    pieces = make_plan(request)
    if not dry_run:
        _prepare(request)
    if piece:
        chosen = find(pieces, piece)
        check_data([chosen])
        do(chosen, request)
        return
    done = [one for one in pieces if finished(one, request) is not None]
    log(f"{request.table} in {request.out}: {len(pieces)} pieces, {len(done)} of them finished")
    if not dry_run:
        check_data(pieces)
    if len(done) < len(pieces):
        seconds = show_costs(pieces, done, request, _num_images(pieces, request))
        where = places(pieces)
        many = f", {len(where)} pieces at a time" if len(where) > 1 else ""
        log(f"about {clock(seconds / len(where))} of training{many}; scores and drawing come on top")
        if dry_run:
            _list(pieces, done)
        elif len(where) > 1:
            run_side_by_side(pieces, done, where, lambda one: unweave(request.words(one.name)), request.out, log)
    if dry_run:
        return
    results = {one.name: do(one, request) for one in pieces}
    table = collect(request, pieces, results)
    write_text(request.out / request.table / "table.json", as_json(table))
    text = as_markdown(table)
    write_text(request.out / request.table / "TABLE.md", text)
    print(text, end="")
    log(f"wrote {request.out / request.table / 'TABLE.md'} and table.json beside it")


def _list(pieces: list[Piece], done: list[Piece]) -> None:
    for one in pieces:
        log(f"  {one.name}{': finished' if one in done else ''}")
    if lacking := missing_data(pieces):
        log(f"before it can begin: {lacking}")


def _prepare(request: Request) -> None:
    if "faces" in request.sets:
        folder = request.out / "faces"
        draw_faces(folder / FACES, folder / ATTRIBUTES, NUM_FACES[request.scale])


def _num_images(pieces: list[Piece], request: Request) -> dict[str, int]:
    """Images of each set, without opening files that may not be there yet."""
    if request.scale == "full":
        return {name: SETS[Path(SCHEDULES[name].place).parent.name].num_images for name in request.sets}
    sizes = {}
    for piece in pieces:
        name, config = piece.name.split("/")[0], piece.config
        sizes[name] = NUM_FACES[request.scale] if name == "faces" else len(_drawn(config.data, config.model.image_size))
    return sizes


def _drawn(data: DataConfig, image_size: int) -> ImageSet:
    """A set that is drawn, without storing it."""
    return open_dataset(replace(data, cache_gb=0.0), image_size, lambda _: None)
