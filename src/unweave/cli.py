"""The commands; the only file that imports tyro. Torch is imported only where a command needs it: help is instant."""

import os
import sys
from dataclasses import dataclass
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from unweave.config import Sampling, VQRunConfig
from unweave.configfile import to_json
from unweave.errors import UserError, require
from unweave.presets import FIRST_STAGES, PRESETS

if TYPE_CHECKING:
    from unweave.report.pictures import Explorer

Model = Annotated[
    tyro.conf.Positional[str],
    tyro.conf.arg(metavar="RUN", help="a run folder, a model folder, or the name of a bundled model such as rooms-cpu"),
]

TRAINED = {**PRESETS, **FIRST_STAGES}
PresetArgument = tyro.extras.subcommand_type_from_defaults(
    {name: preset.config for name, preset in TRAINED.items()},
    {name: preset.about for name, preset in TRAINED.items()},
)


def train(
    config: Annotated[PresetArgument, tyro.conf.arg(name="")],  # pyright: ignore[reportInvalidTypeForm]
    run: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Train a preset; the same command again resumes where training stopped.

    `unweave train rooms-cpu --run runs/first`. Every option of the preset can be changed: `unweave train rooms-cpu
    --help` lists them. Ctrl-C saves a checkpoint first.

    Args:
        config: the preset to start from
        run: folder of the run: options, record, checkpoints, model
        dry_run: print the resolved options and stop
    """
    from unweave.data import check_name

    check_name(config.data)
    if dry_run:
        print(to_json(config), end="")
        return
    require(run is not None, "name a folder for the run: --run runs/first")
    assert run is not None
    from unweave.train import train as run_training

    model = run_training(config, run)
    if isinstance(config, VQRunConfig):
        from unweave.report.first_stage import draw_reconstructions, next_command

        _log(f"trained; reconstructions are in {draw_reconstructions(config, run)}")
        _log(f"Next: {next_command(config.model, model)}")
        return
    _log(f"trained; the model is in {model}. Next: unweave evaluate {run}")


def data(
    action: tyro.conf.Positional[Literal["list", "info", "get", "check", "clear"]],
    what: tyro.conf.Positional[str] = "",
    size: int = 64,
    sheet: Path | None = None,
    cache: str = "",
    cache_gb: float = 2.0,
    to: Path | None = None,
) -> None:
    """List, describe, download and check data sets, and remove stored images.

    `unweave data list`; `unweave data info shapes3d`; `unweave data get shapes3d`, which resumes where it stopped.
    `unweave data check 3dshapes.h5` or `unweave data check ~/photos --sheet sheet.png` reads the whole set and prints
    how many images and factors it has, what was skipped, and what is wrong with it. `unweave data clear photos` removes
    the stored images of a set, `unweave data clear` those of all sets; they are made again when they are needed.

    Args:
        action: list all sets, describe one (info), download it (get), check it, or remove stored images (clear)
        what: the name of a set; for check also your own pictures or a published file, as for data.folder of train
        size: for check: pixels per side to which the images are resized
        sheet: for check: file for a picture of some of the images, and of each factor over its values
        cache: folder of the stored images (default: the user's cache folder)
        cache_gb: for check: maximum disk space to use there, in GB
        to: for get: folder to download to (default: data/NAME here)
    """
    from unweave.commands import data as commands

    if action == "list":
        commands.list_datasets(cache)
    elif action == "clear":
        commands.clear_stores(what, cache)
    elif action == "check":
        require(bool(what), "name what to check: unweave data check 3dshapes.h5")
        commands.describe(what, size, sheet, cache, cache_gb)
    else:
        require(bool(what), f"name a data set: unweave data {action} shapes3d")
        commands.inform(what) if action == "info" else commands.get(what, to)


def evaluate(
    run: Model,
    out: Path | None = None,
    data: str = "",
    seed: int = 0,
    device: str = "auto",
    cache_gb: float = 0.0,
) -> None:
    """Score a run, a model folder or a bundled model on its training data, beside an untrained extractor.

    A full grid of factors gets all scores; images with binary attributes, such as CelebA, get TAD.

    Args:
        out: folder for results.json (attributes.json) and a picture (default: the run folder, or runs/NAME)
        data: rooms, dsprites or a published file such as 3dshapes.h5, in place of the training data
        seed: seed of the scores
        device: cpu, cuda, mps or auto
        cache_gb: maximum disk space of stored images in GB, to raise that of training (2 by default)
    """
    from unweave.commands.evaluate import evaluate_run

    evaluate_run(run, _output(run, out), seed, device, data, cache_gb)


def frechet(
    run: Model,
    inception: Path | None = None,
    images: int = 50_000,
    real: int = 0,
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = Sampling(steps=100, solver="ddim"),
    out: Path | None = None,
    data: str = "",
    device: str = "auto",
    batch_size: int = 128,
    json: bool = False,
) -> None:
    """Measure how near generated images are to the data: FID, or a Frechet distance of the model's own features.

    `unweave frechet RUN --inception pt_inception-2015-12-05-6726825d.pth`, the file of pytorch-fid and torch-fidelity.
    As in the paper, images are generated from the units of random images of the data and fresh noise. Writes
    frechet.json.

    Args:
        inception: Inception's weights; without them the distance is of the model's own features, and is not called FID
        images: number of images to generate
        real: number of images of the data to compare with, chosen at random; 0 takes all
        out: folder for frechet.json (default: the run folder, or runs/NAME)
        data: a set or a path, in place of the training data
        device: cpu, cuda, mps or auto
        batch_size: images at a time
        json: print the content of frechet.json
    """
    from unweave.commands.evaluate import measure_distance

    distance = measure_distance(run, _output(run, out), inception, images, real, sampling, device, data, batch_size)
    if json:
        print(dumps(distance, indent=2))


def score(
    codes: tyro.conf.Positional[Path],
    factors: tyro.conf.Positional[Path | None] = None,
    sizes: tuple[int, ...] = (),
    metrics: str = "",
    protocol: Literal["official", "robust"] = "robust",
    seeds: int = 1,
    bootstrap: int = 0,
    vectors: Literal["pca", "flat"] = "pca",
    test: tuple[Path, ...] = (),
    json: Path | None = None,
    figures: Path | None = None,
) -> None:
    """Score the codes of any method from files: a table of units and a table of factors.

    `unweave score codes.npy factors.csv`; `unweave score codes.parquet` for a file that `unweave encode` wrote;
    `unweave score codes.npy --sizes 10 10 10 8 4 15` for a full grid in C order.

    Args:
        codes: .npy, .npz, .csv or .parquet with a row per image and a column per unit
        factors: the same with a column per factor; not needed if the file of codes has them, or with sizes
        sizes: number of values of each factor, if the rows are a full grid, last factor fastest
        metrics: the scores to compute, as in dci,mig (default: all but tad, which needs binary factors, and downstream)
        protocol: official uses the constants of published tables; robust does not depend on the scale of the codes
        seeds: number of evaluation seeds; their mean and standard deviation are shown
        bootstrap: number of bootstrap samples of the rows for 95 % intervals, as in 100; each takes as long as scoring
        vectors: for units that are vectors (rows, units, numbers): pca, their first principal component, or flat, every
            number as a code of its own
        test: held-out codes and their factors, or one file with both; without it a third of the rows is held out
        json: file for all numbers and matrices
        figures: folder for pictures of the matrices
    """
    from unweave.evaluation import files
    from unweave.files import write_text
    from unweave.metrics.suite import METRICS, check_metrics

    chosen = metrics.split(",") if metrics else list(METRICS)
    check_metrics(chosen)
    scored = files.score_files(codes, factors, sizes, chosen, protocol, seeds, bootstrap, vectors, test)
    files.show(scored, codes)
    if json is not None:
        write_text(json, files.as_json(scored))
        _wrote(json)
    if figures is not None:
        from unweave.report.figures import matrix_figure

        for name, matrix in scored.results[0].matrices.items():
            _wrote(matrix_figure(matrix, scored.names, name, figures / f"{name}.png"))


def udr(
    codes: tyro.conf.Positional[tuple[Path, ...]],
    relation: Literal["spearman", "lasso"] = "spearman",
    json: Path | None = None,
) -> None:
    """Rank models without labels: models that disentangle agree about the same images (UDR, Duan et al. 2020).

    `unweave udr seed0.npy seed1.npy seed2.npy`: codes of models of one configuration trained from different seeds, for
    the same images in the same order. Choose the model with the highest score.

    Args:
        codes: .npy, .npz, .csv or .parquet of each model, as for `unweave score`
        relation: how the codes of two models are compared: by rank correlation or the weights of a Lasso regression
        json: file for the scores and the agreement of every pair
    """
    from unweave.evaluation import files
    from unweave.files import write_text

    agreement = files.agree(codes, relation)
    files.show_agreement(agreement, codes)
    if json is not None:
        write_text(json, files.agreement_as_json(agreement, codes))
        _wrote(json)


def encode(
    run: Model,
    out: Path,
    data: str = "",
    device: str = "auto",
    batch_size: int = 256,
    cache_gb: float = 0.0,
) -> None:
    """Write the units of every image to a file: scalars, tokens, anchors, and the factors as labels.

    Args:
        out: the file to write: .parquet or .npz
        data: rooms, dsprites, or other images by path or hf://OWNER/NAME, in place of the training data
        device: cpu, cuda, mps or auto
        batch_size: images at a time
        cache_gb: maximum disk space of stored images in GB, to raise that of training (2 by default)
    """
    from unweave.evaluation.encode import encode_to_file

    encode_to_file(run, out, data, device, batch_size, cache_gb)


@dataclass(frozen=True)
class Drawing:
    """Options of all commands that draw pictures."""

    out: Path | None = None
    """folder for the pictures (default: RUN/report, or runs/NAME/report)"""
    data: str = ""
    """the images to use, a set or a path, in place of the training data"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = Sampling()

    def explorer(self, run: str) -> "Explorer":
        from unweave.report.pictures import Explorer

        return Explorer.open(run, self.data, self.device, self.sampling)

    def folder(self, run: str) -> Path:
        return self.out if self.out is not None else _output(run, None) / "report"


Options = Annotated[Drawing, tyro.conf.arg(name="")]


def swap(run: Model, options: Options, pairs: int = 6, inverted: bool = False) -> None:
    """Draw a grid: source, target, and the source with each unit in turn exchanged for the target's.

    Args:
        pairs: rows of the grid
        inverted: start from the inverted noise of each source, which also keeps what its units do not hold
    """
    _wrote(options.explorer(run).swaps(options.folder(run), pairs, inverted).path)


def traverse(run: Model, options: Options, columns: int = 9) -> None:
    """Draw latent traversals: one image with each unit moved over its observed range, as a sheet and an animation.

    Args:
        columns: values per unit
    """
    picture = options.explorer(run).traversals(options.folder(run), columns)
    _wrote(picture.path, picture.path.with_suffix(".gif"))


def anchors(run: Model, options: Options) -> None:
    """Draw the histogram of each unit's scalar with its Gaussians, and one image generated at each anchor."""
    _wrote(options.explorer(run).anchors(options.folder(run)).path)


def attention(run: Model, options: Options, images: int = 4) -> None:
    """Draw the attention maps of each unit: where in an image the model attends to it.

    Args:
        images: rows of the grid
    """
    _wrote(options.explorer(run).attention(options.folder(run), images).path)


def figure1(run: Model, options: Options, unit: int, method: Literal["pca", "pacmap"] = "pca") -> None:
    """Draw the paper's figure 1: a map of a unit's tokens by anchor and by factor, and images drawn from two anchors.

    Args:
        unit: number of the unit
        method: principal components, or PaCMAP as in the paper (pip install 'unweave[maps]')
    """
    _wrote(options.explorer(run).figure1(options.folder(run), unit, method).path)


def report(run: Model, beside: tyro.conf.Positional[tuple[str, ...]] = (), *, options: Options) -> None:
    """Write one page about a run, or several side by side: data, curves, scores, anchors, pictures, options.

    `unweave report runs/first`; `unweave report runs/first runs/second rooms-cpu`. The page is one file that loads
    nothing from elsewhere and can be sent as it is.

    Args:
        beside: more runs, model folders or bundled models, each in a column beside the first
    """
    from unweave.report.page import write_report

    explorers = {name: options.explorer(name) for name in (run, *beside)}
    _wrote(write_report(explorers, options.folder(run) / "report.html"))


def name(run: Model, unit: tyro.conf.Positional[int], text: tyro.conf.Positional[str] = "") -> None:
    """Name a unit; pictures, tables and reports then show the name. Without a text the name is removed.

    `unweave name runs/first 3 "floor colour"`

    Args:
        unit: number of the unit
        text: its name
    """
    from unweave.models.folder import name_unit

    names = name_unit(run, unit, text)
    _log("\n".join(f"unit {number}: {text}" for number, text in names.items()) or "no unit has a name")


def view(
    run: Model = "rooms-cpu",
    host: str = "127.0.0.1",
    port: int = 7860,
    password: str = "",
    data: str = "",
    device: str = "auto",
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = Sampling(),
) -> None:
    """Explore a run in the browser: encode pictures, swap and traverse units, draw from anchors, name units.

    `unweave view` opens the bundled model, `unweave view runs/first` a run. Needs pip install 'unweave[viewer]'.

    Args:
        host: address to listen on; any but the default lets other machines connect
        port: port to listen on; 0 takes a free one
        password: password that visitors must enter
        data: the images to use, a set or a path, in place of the training data
        device: cpu, cuda, mps or auto
    """
    from unweave.viewer.server import view as run_viewer

    run_viewer(run, host, port, password, data, device, sampling)


def demo(run: Path = Path("runs/demo"), images: int | None = None) -> None:
    """Train `rooms-cpu` on this machine, score it and draw what its units do: at most 15 minutes on two cores.

    Args:
        run: folder of the run; a run that was stopped is resumed
        images: number of training images, if fewer than the preset's, for a shorter demo
    """
    from unweave.commands.demo import demo as run_demo

    run_demo(run, images)


def convert(checkpoint: tyro.conf.Positional[Path], folder: tyro.conf.Positional[Path]) -> None:
    """Convert a checkpoint of the published code to a model folder; nothing in the checkpoint is executed.

    Args:
        checkpoint: the authors' Lightning .ckpt
        folder: the model folder to write
    """
    from unweave.published.convert import convert as run_convert

    run_convert(checkpoint, folder)
    _log(f"wrote {folder}: unweave.load({str(folder)!r}) opens it")


def reproduce(
    table: tyro.conf.Positional[Literal["table1", "table2", "ablation", "downstream"]],
    data: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (0, 1, 2),
    scale: Literal["full", "small", "tiny"] = "full",
    out: Path | None = None,
    inception: Path | None = None,
    vgg16: Path | None = None,
    lpips: Path | None = None,
    piece: str = "",
    dry_run: bool = False,
) -> None:
    """Reproduce a table of the paper, our numbers beside the printed ones: train, encode and score all it needs.

    `unweave reproduce table1 --data shapes3d`; the same command again resumes where it stopped. The time that it will
    take is measured and printed first. `--scale small` does the same on generated images, in minutes. Jobs run in
    parallel on several GPUs, and small models on several cores; on several machines give each its own `--piece`, then
    run the command without one to make the table.

    Args:
        table: the table; tables of one scale in one folder share their common trainings
        data: data sets, as in shapes3d cars3d mpi3d (default: those of the table)
        seeds: training seeds
        scale: full: the published schedules on the published sets; small: minutes on generated images; tiny: a test
        out: folder of all results; the table goes to a subfolder of its name (default: runs/reproduce/SCALE)
        inception: Inception's weights, the file of pytorch-fid; without them the distance of table2 is not FID
        vgg16: VGG16's weights for the first stage, as torchvision publishes them; without them no perceptual loss
        lpips: the linear heads of LPIPS, needed with vgg16
        piece: run only this job, by the name that --dry-run lists
        dry_run: print an estimate of the time, list the jobs, and stop
    """
    from unweave.reproduce.command import reproduce as run_reproduce
    from unweave.reproduce.plan import Request

    folder = out if out is not None else Path("runs") / "reproduce" / scale
    run_reproduce(Request(table, data, seeds, scale, folder, inception, vgg16, lpips), dry_run, piece)


COMMANDS = {
    "train": train,
    "data": data,
    "evaluate": evaluate,
    "frechet": frechet,
    "score": score,
    "udr": udr,
    "encode": encode,
    "swap": swap,
    "traverse": traverse,
    "anchors": anchors,
    "attention": attention,
    "figure1": figure1,
    "report": report,
    "name": name,
    "view": view,
    "demo": demo,
    "convert": convert,
    "reproduce": reproduce,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns 0 on success, 2 after a user's mistake, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"unweave {version('unweave')}")
        return 0
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="unweave",
            description="Disentangled representation learning without labels. Start with: unweave demo",
            args=arguments,
            config=(tyro.conf.CascadeSubcommandArgs,),
        )
    except UserError as error:
        _log(f"error: {error}")
        return 2
    except KeyboardInterrupt as stop:
        _log(f"stopped: {stop}" if str(stop) else "stopped")
        return 130
    except BrokenPipeError:  # the reader of the output has stopped, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _log(text: str) -> None:
    print(text, file=sys.stderr)


def _wrote(*paths: Path) -> None:
    for path in paths:
        _log(f"wrote {path}")


def _output(run: str, out: Path | None) -> Path:
    """The folder for results about a run: `out`, or by default the run's home."""
    from unweave.models.folder import home

    return home(run) if out is None else out
