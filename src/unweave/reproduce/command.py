"""`unweave reproduce`: the estimate, the jobs, the table."""

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
from unweave.reproduce.job import do, finished
from unweave.reproduce.plan import Job, Request, check_data, find, make_plan, missing_data
from unweave.reproduce.pool import devices, run_side_by_side, unweave
from unweave.reproduce.recipes import ATTRIBUTES, FACES
from unweave.reproduce.table import as_json, as_markdown, collect

NUM_FACES = {"small": 2_000, "tiny": 120}


def reproduce(request: Request, dry_run: bool = False, job: str = "") -> None:
    """Makes a table; with `dry_run` prints an estimate instead, with the name of a `job` runs that job only.

    Finished jobs are read from disk and interrupted trainings are resumed: repeating the command gives the same table.
    Raises `UserError` for missing files and for folders of jobs with other options.
    """
    # one job only
    jobs = make_plan(request)
    if not dry_run:
        _prepare(request)
    if job:
        chosen = find(jobs, job)
        check_data([chosen])
        do(chosen, request)
        return

    # what is left to do, and an estimate of its time
    done = [one for one in jobs if finished(one, request) is not None]
    log(f"{request.table} in {request.out}: {len(jobs)} jobs, {len(done)} of them finished")
    if not dry_run:
        check_data(jobs)
    if len(done) < len(jobs):
        seconds = show_costs(jobs, done, request, _num_images(jobs, request))
        where = devices(jobs)
        many = f", {len(where)} jobs at a time" if len(where) > 1 else ""
        log(f"about {clock(seconds / len(where))} of training{many}; scoring and sampling take extra time")
        if dry_run:
            _list(jobs, done)
        elif len(where) > 1:
            run_side_by_side(jobs, done, where, lambda one: unweave(request.words(one.name)), request.out, log)
    if dry_run:
        return

    # all other jobs one after the other, then the table
    results = {one.name: do(one, request) for one in jobs}
    table = collect(request, jobs, results)
    write_text(request.out / request.table / "table.json", as_json(table))
    text = as_markdown(table)
    write_text(request.out / request.table / "TABLE.md", text)
    print(text, end="")
    log(f"wrote {request.out / request.table / 'TABLE.md'} and table.json beside it")


def _list(jobs: list[Job], done: list[Job]) -> None:
    for one in jobs:
        log(f"  {one.name}{': finished' if one in done else ''}")
    if missing := missing_data(jobs):
        log(f"needed before training: {missing}")


def _prepare(request: Request) -> None:
    if "faces" in request.sets:
        folder = request.out / "faces"
        draw_faces(folder / FACES, folder / ATTRIBUTES, NUM_FACES[request.scale])


def _num_images(jobs: list[Job], request: Request) -> dict[str, int]:
    """The number of images of each set, without opening files that may not exist yet."""
    if request.scale == "full":
        return {name: SETS[Path(SCHEDULES[name].place).parent.name].num_images for name in request.sets}
    sizes = {}
    for job in jobs:
        name, config = job.name.split("/")[0], job.config
        sizes[name] = NUM_FACES[request.scale] if name == "faces" else len(_drawn(config.data, config.model.image_size))
    return sizes


def _drawn(data: DataConfig, image_size: int) -> ImageSet:
    """A generated set, without storing it."""
    return open_dataset(replace(data, cache_gb=0.0), image_size, lambda _: None)
