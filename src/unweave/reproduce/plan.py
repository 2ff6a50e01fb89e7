"""Which pieces a table is made of: each is a folder, and needs the pieces before it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from unweave.config import DiffusionConfig, RunConfig, VQRunConfig
from unweave.data import is_place
from unweave.data.sets import SETS
from unweave.errors import UserError, require
from unweave.reproduce.recipes import SCALES, Method, Scale, ScaleName, Table, first_stage, methods

FIRST = "first_stage"


@dataclass(frozen=True)
class Request:
    """What a table is asked to be."""

    table: Table
    data: tuple[str, ...] = ()
    """Sets; empty: those of the table."""
    seeds: tuple[int, ...] = (0, 1, 2)
    scale: ScaleName = "full"
    out: Path = Path("runs/reproduce/full")
    inception: Path | None = None
    vgg16: Path | None = None
    lpips: Path | None = None

    def __post_init__(self) -> None:
        known = self.size.sets[self.table]
        for name in self.data:
            require(name in known, f"data is {name!r}: at scale {self.scale} {self.table} is of {', '.join(known)}")
        require(len(self.seeds) > 0, "seeds is empty: name at least one")
        require(len(set(self.seeds)) == len(self.seeds), f"seeds is {list(self.seeds)}: name each once")
        require(min(self.seeds) >= 0, f"seeds is {list(self.seeds)}: none may be negative")
        for path in (self.inception, self.vgg16, self.lpips):
            require(path is None or path.is_file(), f"{path} does not exist: name a file of weights")

    @property
    def size(self) -> Scale:
        return SCALES[self.scale]

    @property
    def sets(self) -> tuple[str, ...]:
        return self.data or self.size.sets[self.table][: self.size.defaults[self.table]]

    def words(self, piece: str) -> list[str]:
        """The arguments of `unweave` that do one piece of it."""
        found = ["reproduce", self.table, "--scale", self.scale, "--out", str(self.out), "--piece", piece]
        found += ["--data", *self.sets, "--seeds", *map(str, self.seeds)]
        for name in ("inception", "vgg16", "lpips"):
            if getattr(self, name):
                found += [f"--{name}", str(getattr(self, name))]
        return found


class Piece(NamedTuple):
    """One training and, of a second stage, its scores; finished when its folder has `result.json`."""

    name: str
    """Its folder below that of the request."""
    config: VQRunConfig | RunConfig
    method: Method | None = None
    """None for a first stage."""
    needs: str = ""
    """The piece that must be finished before."""

    @property
    def row(self) -> str:
        """The name without the seed: pieces of one row cost the same."""
        return self.name.rpartition("/")[0] if self.method else self.name


def make_plan(request: Request) -> list[Piece]:
    """The pieces in an order in which they can be done. Raises `UserError` as options do."""
    pieces: list[Piece] = []
    for name in request.sets:
        perceptual = str(request.vgg16 or ""), str(request.lpips or "")
        first = Piece(f"{name}/{FIRST}", first_stage(request.size, name, request.out, perceptual))
        rows = methods(request.size, request.table, name, request.out)
        if any(_needs_first_stage(method.config) for method in rows.values()):
            pieces.append(first)
        for key, method in rows.items():
            needs = first.name if _needs_first_stage(method.config) else ""
            pieces += [
                Piece(f"{name}/{key}/seed{seed}", _on(method.config, request.out / first.name, seed), method, needs)
                for seed in request.seeds
            ]
    return [_snapshots(piece, request.size) for piece in pieces]


def _on(config: RunConfig, first: Path, seed: int) -> RunConfig:
    """A training under a seed, on a first stage where the model needs one."""
    config = replace(config, train=replace(config.train, seed=seed))
    if not _needs_first_stage(config):
        return config
    assert isinstance(config.model, DiffusionConfig)
    tokenizer = replace(config.model.tokenizer, folder=str((first / "run" / "model").absolute()))
    return replace(config, model=replace(config.model, tokenizer=tokenizer))


def _needs_first_stage(config: RunConfig) -> bool:
    return isinstance(config.model, DiffusionConfig) and config.model.tokenizer.kind == "vq"


def _snapshots(piece: Piece, scale: Scale) -> Piece:
    if piece.method is None:
        return piece
    train = piece.config.train
    every = max(train.images // (scale.snapshots * scale.saves_per_snapshot), train.batch_size)
    return piece._replace(config=replace(piece.config, train=replace(train, save_every_images=every)))


def find(pieces: list[Piece], name: str) -> Piece:
    """A piece by name. Raises `UserError`, with the names there are, for another."""
    for piece in pieces:
        if piece.name == name:
            return piece
    raise UserError(f"piece is {name!r}: choose from {', '.join(piece.name for piece in pieces)}")


def check_data(pieces: Sequence[Piece]) -> None:
    """Raises `UserError` where files of a published set are missing, with the way to them."""
    lacking = missing_data(pieces)
    require(not lacking, lacking)


def missing_data(pieces: Sequence[Piece]) -> str:
    """The first file of a published set that is not there, and the way to it; empty where all are."""
    for piece in pieces:
        data = piece.config.data
        for path in filter(None, (data.folder, data.labels)):
            if not is_place(path):
                name = Path(path).parent.name
                entry = SETS[name]
                by_hand = f"{entry.by_hand}, into {Path(path).parent}; then " if entry.by_hand else ""
                return f"{path} does not exist: {by_hand}unweave data get {name}"
    return ""
