"""What brings units apart quickly on a small machine: one run of one variation of a preset, scored on the way.

    python benchmarks/minutes.py run rooms-cpu --seed 0                # the preset as it stands
    python benchmarks/minutes.py run rooms-cpu/noise --seed 0          # a variation, see STUDIES
    python benchmarks/minutes.py page                                  # curves and tables for docs/minutes.md

A run writes benchmarks/results/minutes/NAME-seedS.json: options, scores and label-free signals at every checkpoint.
Scoring is not counted in the minutes. Run one per core with OMP_NUM_THREADS=1: at these sizes a second thread gains
nothing, and the threads of two runs would slow each other down.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import spearmanr

import record
from unweave.config import RunConfig, TrainConfig
from unweave.configfile import from_dict, to_dict, to_json
from unweave.data import DSprites, open_dataset
from unweave.data.base import FactorDataset
from unweave.evaluation.model import scalars_of, score, standardise
from unweave.metrics.dci import disentanglement
from unweave.models.diffusion import DiffusionModel
from unweave.presets import PRESETS
from unweave.record import log, read_record
from unweave.train import train

RESULTS = record.RESULTS / "minutes"
GOALS = {  # FactorVAE score and DCI-D: what we aim for, and below what a preset is not good enough
    "rooms-cpu": ((0.95, 0.75), (0.80, 0.60)),
    "rooms-cpu-long": ((0.98, 0.90), (0.90, 0.70)),
    "sprites-cpu": ((0.80, 0.55), (0.65, 0.40)),
}
SHORT = 160_000  # images of a variation, where it is compared with the others

STUDIES: dict[str, dict[str, Any]] = {
    "rooms-cpu": {},
    "rooms-cpu-long": {},
    "sprites-cpu": {},
    "rooms-cpu/short": {},
    "rooms-cpu/noise": {"model.noise.prediction": "noise"},
    "rooms-cpu/image": {"model.noise.prediction": "image"},
    "rooms-cpu/flow": {"model.noise.prediction": "flow"},
    "rooms-cpu/min-snr": {"model.noise.weighting": "min_snr"},
    "rooms-cpu/noisy-times": {"model.noise.times": "logit_normal", "model.noise.times_mean": 0.7},
    "rooms-cpu/l1": {"model.loss": "l1"},
    "rooms-cpu/not-whitened": {"model.tokenizer.whitening": 0.0},
    "rooms-cpu/whitened": {"model.tokenizer.whitening": 1.0},
    "rooms-cpu/self-attention": {"model.transformer.self_attention": True},
    "rooms-cpu/one-head": {"model.transformer.num_heads": 1},
    "rooms-cpu/relu-tokens": {"model.encoder.token_activation": "relu"},
    "rooms-cpu/no-anchors": {"model.anchors.mode": "off"},
    "rooms-cpu/strong-anchors": {"model.anchors.lambda_max": 0.5},
    "rooms-cpu/six-units": {"model.encoder.num_units": 6},
    "rooms-cpu/twenty-units": {"model.encoder.num_units": 20},
    "rooms-cpu/no-average": {"train.ema_encoder": False},
    "rooms-cpu/bottleneck": {"model.encoder.beta": 0.3},
    "rooms-cpu/ten-levels": {"model.encoder.levels": 10},
    "rooms-cpu/early-anchors": {"model.anchors.fit_every_images": 16_000},
    "rooms-cpu/small-batch": {"train.batch_size": 32},
    "rooms-cpu/large-batch": {"train.batch_size": 256},
    "rooms-cpu/small-patches": {"model.tokenizer.downsample": 4},
    "rooms-cpu/64-px": {
        "model.image_size": 64,
        "model.tokenizer.downsample": 16,
        "model.encoder.channels": [32, 64, 64, 64],
    },
    "rooms-cpu/wide": {"model.transformer.width": 128, "model.encoder.channels": [64, 128, 128]},
    "rooms-cpu/two-blocks": {"model.transformer.depth": 2},
    "rooms-cpu/constant-rate": {"train.cooldown": 0.0},
    "rooms-cpu/slower": {"train.lr": 1e-3},
    "rooms-cpu/faster": {"train.lr": 4e-3},
    "rooms-cpu/unet": {
        "model.denoiser": "unet",
        "model.unet.channels": 32,
        "model.unet.multipliers": [1, 2],
        "model.unet.num_res_blocks": 1,
        "model.unet.attention_widths": [4, 2],
        "model.unet.num_heads": 4,
        "model.unet.self_attention": False,
        "model.unet.dropout": 0.0,
        "model.unet.skip_dropout": 0.0,
        "model.unet.skip_dropout_widths": [4],
    },
}
STUDIES["rooms-cpu-long/twenty-units"] = {"train.images": 800_000, "model.encoder.num_units": 20}
STUDIES["rooms-cpu-long/short"] = {"train.images": 240_000}
STUDIES["rooms-cpu-long/short-twenty-units"] = {"train.images": 240_000, "model.encoder.num_units": 20}
STUDIES["rooms-cpu-long/short-forty-units"] = {"train.images": 240_000, "model.encoder.num_units": 40}
STUDIES["sprites-cpu/cheaper"] = {
    "train.restarts": 1,
    "train.images": 1_000_000,
    "model.encoder.beta_initial": 2.4,
    "model.encoder.beta": 0.6,
    "model.encoder.beta_annealing": 1.0,
}
STUDIES["sprites-cpu/one-start"] = {"train.restarts": 1, "train.images": 1_000_000}
STUDIES["sprites-cpu/falling"] = {"train.restarts": 1, "model.encoder.beta_initial": 4.5, "train.images": 1_500_000}
STUDIES["rooms-cpu/unet-skip-dropout"] = {**STUDIES["rooms-cpu/unet"], "model.unet.skip_dropout": 0.2}


def options_of(name: str, seed: int, images: int | None, points: int) -> RunConfig:
    """The preset with the variation's options; a variation sees `SHORT` images unless told."""
    preset = PRESETS[name.split("/")[0]].config
    values = to_dict(preset)
    usual = SHORT if "/" in name else preset.train.images
    wanted = images or STUDIES[name].get("train.images", usual)
    changes = {
        **STUDIES[name],
        "train.seed": seed,
        "train.images": wanted,
        "train.save_every_images": max(wanted // points, 1),
    }
    for option, value in changes.items():
        *path, last = option.split(".")
        inner = values
        for part in path:
            inner = inner[part]
        assert last in inner, option
        inner[last] = value
    return from_dict(RunConfig, values)


def dependence(scalars: np.ndarray) -> float:
    """Mean absolute rank correlation of two units: 0 where they are unrelated."""
    rows = np.random.default_rng(0).choice(len(scalars), min(len(scalars), 5_000), replace=False)
    ranks = np.abs(spearmanr(scalars[rows]).statistic)
    return float(ranks[np.triu_indices_from(ranks, 1)].mean())


def selectivity(model: DiffusionModel, images: np.ndarray, others: np.ndarray, spread: np.ndarray) -> float:
    """How far exchanging one unit moves that unit alone, 0 to 1, when the redrawn picture is encoded again.

    Needs no label: a picture in which a unit was exchanged should differ, for the encoder, in that unit.
    """
    source, target = model.encode(images).aligned, model.encode(others).aligned
    noise = model.draw_noise(1, 0)
    start = model.scalars(model.decode(source, 10, noise=noise, solver="ddim"))
    parts = []
    for unit in range(source.shape[1]):
        mixed = source.copy()
        mixed[:, unit] = target[:, unit]
        moved = np.abs(model.scalars(model.decode(mixed, 10, noise=noise, solver="ddim")) - start) / spread  # (n, N)
        parts.append(moved[:, unit].sum() / max(moved.sum(), 1e-12))
    return float(np.mean(parts))


def measure(model: DiffusionModel, dataset: FactorDataset) -> dict[str, Any]:
    """Scores by labels, and signals that need none."""
    scalars = scalars_of(model, dataset, np.arange(len(dataset)), "encoding", quiet=True)
    rng = np.random.default_rng(0)
    images, others = (dataset.images(rng.integers(len(dataset), size=64)) for _ in range(2))
    spread = np.maximum(scalars.std(0), 1e-6)
    scores = score(standardise(scalars), dataset.factor_sizes, seed=0, what="scoring", quiet=True)
    return {
        **{name: value for name, value in scores.items() if isinstance(value, float)},
        "accuracy_per_factor": scores["accuracy_per_factor"],
        "importance": scores["importance"],
        "dependence": dependence(scalars),
        "selectivity": selectivity(model, images, others, spread),
        "anchors_alive": model.anchors.num_alive.tolist(),
    }


def run(name: str, seed: int, images: int | None, points: int, keep: Path | None) -> Path:
    config = options_of(name, seed, images, points)
    dataset = open_dataset(config.data, config.model.image_size, log)
    curve: list[dict[str, Any]] = []

    def look(model: DiffusionModel) -> None:
        line = {"images": model.history["images"], "minutes": model.history["seconds"] / 60, **measure(model, dataset)}
        curve.append(line)
        log(
            f"{name}: {line['images']:,} images, {line['minutes']:.1f} min, FactorVAE {line['factor_vae']:.3f}, "
            f"DCI-D {line['dci_disentanglement']:.3f}"
        )

    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch) / "run"
        train(config, folder, on_save=look)
        held_out = read_record(folder / "metrics.jsonl")
        starts = [read_record(path)[-1]["held_out_loss"] for path in sorted(folder.glob("starts/*/metrics.jsonl"))]
    losses = {line["images"]: line["held_out_loss"] for line in held_out}
    for line in curve:
        line["held_out_loss"] = losses[line["images"]]
    numbers = {
        "name": name,
        "seed": seed,
        "options": STUDIES[name],
        "torch_threads": torch.get_num_threads(),
        "config": to_dict(config),
        "held_out_losses_of_starts": starts,
        "curve": curve,
    }
    return record.write(f"minutes/{name.replace('/', '--')}-seed{seed}", numbers)


def load_all() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def mean(results: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([result["curve"][-1][key] for result in results]))


def target_table(results: list[dict[str, Any]]) -> str:
    """Presets: the mean over seeds of the last step, and each seed."""
    lines = [
        "| preset | images | minutes | FactorVAE (each seed) | DCI-D (each seed) | C | I | goal | floor |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, (goal, floor) in GOALS.items():
        runs = [result for result in results if result["name"] == name]
        if runs:
            each = []
            for key in ("factor_vae", "dci_disentanglement"):
                single = ", ".join(f"{result['curve'][-1][key]:.2f}" for result in runs)
                each.append(f"{mean(runs, key):.3f} ({single})")
            options = from_dict(TrainConfig, runs[0]["config"]["train"])
            minutes = min(run["curve"][-1]["minutes"] for run in runs)
            lost = (options.restarts - 1) * options.restart_images if options.restarts > 1 else 0
            images = f"{runs[0]['curve'][-1]['images'] + lost:,}"
            parts = [f"{mean(runs, key):.3f}" for key in ("dci_completeness", "dci_informativeness")]
            bounds = [f"{a:.2f} / {b:.2f}" for a, b in (goal, floor)]
            lines.append(f"| {' | '.join([f'`{name}`', images, f'{minutes:.0f}', *each, *parts, *bounds])} |")
    without = [without_orientation(result) for result in results if result["name"] == "sprites-cpu"]
    if without:
        lines += ["", f"`sprites-cpu` without the orientation, which no number holds: DCI-D {np.mean(without):.3f}."]
    return "\n".join(lines)


def without_orientation(result: dict[str, Any]) -> float:
    """DCI-D of the other factors: trees tell each factor on its own, so leaving one out is leaving its column out."""
    names = DSprites().factor_names
    importance = np.array(result["curve"][-1]["importance"])
    return disentanglement(importance[:, [column for column, name in enumerate(names) if name != "orientation"]])


def variation_table(results: list[dict[str, Any]], preset: str) -> str:
    """Every variation of a preset."""
    lines = [
        "| variation | options | images | minutes | FactorVAE | DCI-D | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = []
    names = sorted({result["name"] for result in results if result["name"].startswith(f"{preset}/")})
    for name in names:
        runs = [result for result in results if result["name"] == name]
        last = [run["curve"][-1] for run in runs]
        values = {key: np.mean([line[key] for line in last]) for key in ("factor_vae", "dci_disentanglement")}
        options = ", ".join(f"`{key.removeprefix('model.')} {value}`" for key, value in runs[0]["options"].items())
        cells = (
            name.removeprefix(f"{preset}/"),
            options if len(options) < 120 else "see STUDIES",
            f"{last[0]['images']:,}",
            f"{np.mean([line['minutes'] for line in last]):.1f}",
            *(f"{value:.3f}" for value in values.values()),
            str(len(runs)),
        )
        rows.append((-values["dci_disentanglement"], f"| {' | '.join(cells)} |"))
    return "\n".join([*lines, *(text for _, text in sorted(rows))])


def starts_table(results: list[dict[str, Any]], preset: str) -> str:
    """The held-out loss of every start when one was chosen, the lowest in bold."""
    runs = [result for result in results if result["name"] == preset]
    num = len(runs[0]["held_out_losses_of_starts"])
    lines = [f"| seed | {' | '.join(f'start {start + 1}' for start in range(num))} |", f"| --- |{' --- |' * num}"]
    for result in runs:
        losses = result["held_out_losses_of_starts"]
        cells = [f"**{loss:.4f}**" if loss == min(losses) else f"{loss:.4f}" for loss in losses]
        lines.append(f"| {result['seed']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def signal_table(results: list[dict[str, Any]]) -> str:
    """Which label-free signal follows DCI-D: rank correlation over runs at their end, and over checkpoints in a run.

    Of runs on rooms that are trained by the same loss: those of others are on other scales.
    """
    lines = ["| signal | over runs | within a run, mean |", "| --- | --- | --- |"]
    scale = json.loads(to_json(PRESETS["rooms-cpu"].config))["model"]
    ends = [
        result
        for result in results
        if result["name"].startswith("rooms-cpu")
        and all(agree(result["config"]["model"][part], scale[part]) for part in ("loss", "noise", "tokenizer"))
    ]
    for signal in ("held_out_loss", "dependence", "selectivity"):
        pairs = [(result["curve"][-1][signal], result["curve"][-1]["dci_disentanglement"]) for result in ends]
        across = spearmanr(*zip(*pairs)).statistic
        within = [
            spearmanr(
                [line[signal] for line in result["curve"]], [line["dci_disentanglement"] for line in result["curve"]]
            ).statistic
            for result in ends
            if len(result["curve"]) >= 4
        ]
        shown = f"{np.nanmean(within):+.2f}" if within else "-"
        lines.append(f"| {signal.replace('_', ' ')} | {across:+.2f} | {shown} |")
    return "\n".join(lines)


def agree(then: Any, now: Any) -> bool:
    """Whether options are those of a result; the ones that it has not are of later and changed nothing of it."""
    if isinstance(then, dict):
        return all(agree(value, now[name]) for name, value in then.items())
    return bool(then == now)


def draw_curves(results: list[dict[str, Any]], path: Path) -> None:
    """Both scores of every seed of the presets against images and against minutes."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 6), sharex="col", sharey=True, layout="constrained")
    labelled = set()
    for result in (result for result in results if result["name"] in GOALS):
        name, curve = result["name"], result["curve"]
        style = {"color": f"C{list(GOALS).index(name)}", "marker": ".", "label": None if name in labelled else name}
        labelled.add(name)
        for row, key in enumerate(("dci_disentanglement", "factor_vae")):
            scores = [line[key] for line in curve]
            axes[row, 0].plot([line["images"] / 1_000 for line in curve], scores, **style)
            axes[row, 1].plot([line["minutes"] for line in curve], scores, **style)
    for axis, label in ((axes[0, 0], "DCI-D"), (axes[1, 0], "FactorVAE score")):
        axis.set(ylabel=label, ylim=(0, 1.02), xlim=(0, None))
    axes[1, 0].set_xlabel("thousand images")
    axes[1, 1].set(xlabel="minutes on one core", xlim=(0, None))
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    axes[1, 0].legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, loc="lower left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def page() -> None:
    """Puts the tables between their markers in docs/minutes.md, and draws the curves."""
    results = load_all()
    draw_curves(results, record.DOCS / "images" / "minutes.png")
    tables = {
        "targets": target_table(results),
        "variations": variation_table(results, "rooms-cpu"),
        "long": variation_table(results, "rooms-cpu-long"),
        "starts": starts_table(results, "sprites-cpu"),
        "sprites": variation_table(results, "sprites-cpu"),
        "signals": signal_table(results),
    }
    log(f"wrote {record.fill('minutes.md', tables)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train and score one variation")
    one.add_argument("name", choices=STUDIES)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--images", type=int, help="images in all (default: the preset's, or those of a variation)")
    one.add_argument("--points", type=int, default=4, help="how often it is scored")
    one.add_argument("--keep", type=Path, help="folder for the run itself")
    commands.add_parser("page", help="write the tables of docs/minutes.md")
    arguments = parser.parse_args()
    if arguments.command == "page":
        page()
    else:
        print(run(arguments.name, arguments.seed, arguments.images, arguments.points, arguments.keep))


if __name__ == "__main__":
    main()
