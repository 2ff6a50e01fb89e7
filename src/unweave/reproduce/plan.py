"""The jobs of a table, each with its own folder; a job may need an earlier one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from unweave.config import DiffusionConfig, RunConfig, VQRunConfig
from unweave.data import is_place
from unweave.data.sets import SETS
from unweave.errors import UserError, require
from unweave.reproduce.recipes import SIZES, Method, ScaleName, Size, Table, first_stage, methods

FIRST = "first_stage"


@dataclass(frozen=True)
class Request:
    """Options of `unweave reproduce`. Raises `UserError` for unknown sets, wrong seeds and missing files."""

    table: Table
    data: tuple[str, ...] = ()
    """Data sets; empty: those of the table."""
    seeds: tuple[int, ...] = (0, 1, 2)
    scale: ScaleName = "full"
    out: Path = Path("runs/reproduce/full")
    inception: Path | None = None
    vgg16: Path | None = None
    lpips: Path | None = None

    def __post_init__(self) -> None:
        known = self.size.sets[self.table]
        for name in self.data:
            require(name in known, f"data is {name!r}: {self.table} at scale {self.scale} has {', '.join(known)}")
        require(len(self.seeds) > 0, "seeds is empty: name at least one")
        require(len(set(self.seeds)) == len(self.seeds), f"seeds is {list(self.seeds)}: name each once")
        require(min(self.seeds) >= 0, f"seeds is {list(self.seeds)}: none may be negative")
        for path in (self.inception, self.vgg16, self.lpips):
            require(path is None or path.is_file(), f"{path} does not exist: name a file of weights")

    @property
    def size(self) -> Size:
        return SIZES[self.scale]

    @property
    def sets(self) -> tuple[str, ...]:
        return self.data or self.size.sets[self.table][: self.size.defaults[self.table]]

    def words(self, job: str) -> list[str]:
        """The arguments of `unweave` that run one job of the request."""
        words = ["reproduce", self.table, "--scale", self.scale, "--out", str(self.out), "--piece", job]
        words += ["--data", *self.sets, "--seeds", *map(str, self.seeds)]
        for name in ("inception", "vgg16", "lpips"):
            if getattr(self, name):
                words += [f"--{name}", str(getattr(self, name))]
        return words


class Job(NamedTuple):
    """One training and, for a second stage, its scores; finished when its folder has `result.json`."""

    name: str
    """Its folder, below that of the request."""
    config: VQRunConfig | RunConfig
    method: Method | None = None
    """None for a first stage."""
    needs: str = ""
    """The name of the job that must be finished before."""

    @property
    def row(self) -> str:
        """The name without the seed: jobs of one row take the same time."""
        return self.name.rpartition("/")[0] if self.method else self.name


def make_plan(request: Request) -> list[Job]:
    """The jobs in an order in which they can run. Raises `UserError` for options that do not fit together."""
    jobs: list[Job] = []
    for name in request.sets:
        perceptual = str(request.vgg16 or ""), str(request.lpips or "")
        first = Job(f"{name}/{FIRST}", first_stage(request.size, name, request.out, perceptual))
        rows = methods(request.size, request.table, name, request.out)
        if any(_needs_first_stage(method.config) for method in rows.values()):
            jobs.append(first)
        for key, method in rows.items():
            needs = first.name if _needs_first_stage(method.config) else ""
            jobs += [
                Job(f"{name}/{key}/seed{seed}", _on(method.config, request.out / first.name, seed), method, needs)
                for seed in request.seeds
            ]
    return [_snapshots(job, request.size) for job in jobs]


def _on(config: RunConfig, first: Path, seed: int) -> RunConfig:
    """The options of a training with a seed, and with the folder of the first stage if the model needs one."""
    config = replace(config, train=replace(config.train, seed=seed))
    if not _needs_first_stage(config):
        return config
    assert isinstance(config.model, DiffusionConfig)
    tokenizer = replace(config.model.tokenizer, folder=str((first / "run" / "model").absolute()))
    return replace(config, model=replace(config.model, tokenizer=tokenizer))


def _needs_first_stage(config: RunConfig) -> bool:
    return isinstance(config.model, DiffusionConfig) and config.model.tokenizer.kind == "vq"


def _snapshots(job: Job, size: Size) -> Job:
    if job.method is None:
        return job
    train = job.config.train
    every = max(train.images // (size.snapshots * size.saves_per_snapshot), train.batch_size)
    return job._replace(config=replace(job.config, train=replace(train, save_every_images=every)))


def find(jobs: list[Job], name: str) -> Job:
    """A job by name. Raises `UserError` with the known names for another."""
    for job in jobs:
        if job.name == name:
            return job
    raise UserError(f"piece is {name!r}: choose from {', '.join(job.name for job in jobs)}")


def check_data(jobs: Sequence[Job]) -> None:
    """Raises `UserError` if files of a published set are missing, with the command that downloads them."""
    missing = missing_data(jobs)
    require(not missing, missing)


def missing_data(jobs: Sequence[Job]) -> str:
    """The first missing file of a published set and the command that downloads it; empty if none is missing."""
    for job in jobs:
        data = job.config.data
        for path in filter(None, (data.folder, data.labels)):
            if not is_place(path):
                name = Path(path).parent.name
                card = SETS[name]
                by_hand = f"{card.by_hand}, into {Path(path).parent}; then " if card.by_hand else ""
                return f"{path} does not exist: {by_hand}unweave data get {name}"
    return ""
