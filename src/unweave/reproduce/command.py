"""`unweave reproduce`: what it costs, the pieces, the table."""

import torch

from unweave.config import RunConfig
from unweave.data import open_dataset
from unweave.data.catalogue import CATALOGUE
from unweave.files import write_text
from unweave.record import clock, say
from unweave.reproduce.costs import show_costs
from unweave.reproduce.faces import draw_faces
from unweave.reproduce.piece import do, finished
from unweave.reproduce.plan import Piece, Request, check_data, find, make_plan
from unweave.reproduce.pool import run_side_by_side, unweave
from unweave.reproduce.recipes import ATTRIBUTES, FACES
from unweave.reproduce.table import as_json, as_markdown, collect

NUM_FACES = {"small": 2_000, "tiny": 120}


def reproduce(request: Request, dry_run: bool = False, piece: str = "") -> None:
    """Makes a table, or says what that would take, or does one piece of it.

    Finished pieces are only read, and a training that was cut goes on: the same command again ends with the same
    table. Raises `UserError` for files that are missing and folders of other options.
    """
    pieces = make_plan(request)
    _prepare(request)
    if piece:
        chosen = find(pieces, piece)
        check_data([chosen])
        do(chosen, request)
        return
    done = [one for one in pieces if finished(one, request) is not None]
    say(f"{request.table} in {request.out}: {len(pieces)} pieces, {len(done)} of them finished")
    if len(done) < len(pieces):
        seconds = show_costs(pieces, done, request, _num_images(pieces, request))
        devices = [str(number) for number in range(torch.cuda.device_count())]
        many = f", {len(devices)} pieces at a time" if len(devices) > 1 else ""
        say(f"about {clock(seconds / max(len(devices), 1))} of training{many}; scores and drawing come on top")
        if dry_run:
            for one in pieces:
                say(f"  {one.name}{': finished' if one in done else ''}")
        check_data(pieces)
        if dry_run:
            return
        if len(devices) > 1:
            run_side_by_side(pieces, done, devices, lambda one: unweave(request.words(one.name)), request.out, say)
    results = {one.name: do(one, request) for one in pieces}
    table = collect(request, pieces, results)
    write_text(request.out / request.table / "table.json", as_json(table))
    text = as_markdown(table)
    write_text(request.out / request.table / "TABLE.md", text)
    print(text, end="")
    say(f"wrote {request.out / request.table / 'TABLE.md'} and table.json beside it")


def _prepare(request: Request) -> None:
    if "faces" in request.sets:
        folder = request.out / "faces"
        draw_faces(folder / FACES, folder / ATTRIBUTES, NUM_FACES[request.scale])


def _num_images(pieces: list[Piece], request: Request) -> dict[str, int]:
    """Images of each set: published numbers, as their files may not be here yet; counted where they are generated."""
    if request.scale == "full":
        names = {"mpi3d": "mpi3d_toy"}
        return {name: CATALOGUE[names.get(name, name)].num_images for name in request.sets}
    first = {piece.name.split("/")[0]: piece.config for piece in pieces if isinstance(piece.config, RunConfig)}
    return {
        name: len(open_dataset(config.data, config.model.image_size, lambda _: None)) for name, config in first.items()
    }
