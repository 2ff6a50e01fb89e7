"""Records a finished run's scores and bundles its model: `python benchmarks/bundle.py runs/demo rooms-cpu`."""

import json
import shutil
import sys
from pathlib import Path

import unweave
from record import write
from unweave.models.card import write_card

WEIGHTS = Path(__file__).parents[1] / "src" / "unweave" / "weights"
MOST_MB = 10


def main(run: Path, name: str) -> None:
    results = json.loads((run / "results.json").read_text())
    config = json.loads((run / "config.json").read_text())
    history = results["history"]
    numbers = {
        "trained_with": f"unweave train {name}, seed {config['train']['seed']}",
        "images": history["images"],
        "training_minutes": round(history["seconds"] / 60, 2),
        "scores": {key: value for key, value in results["scores"].items() if isinstance(value, float)},
        "untrained": {key: value for key, value in results["untrained"].items() if isinstance(value, float)},
        "importance": results["scores"]["importance"],
        "accuracy_per_factor": dict(zip(results["data"]["factor_names"], results["scores"]["accuracy_per_factor"])),
        "protocol": results["protocol"],
    }
    print(write(name, numbers))
    folder = WEIGHTS / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "model.safetensors"):
        shutil.copyfile(run / "model" / file, folder / file)
    write_card(unweave.load(folder), folder, results, licence="apache-2.0")
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    assert size <= MOST_MB, f"{folder} takes {size:.1f} MB, more than {MOST_MB}"
    print(f"{folder}: {size:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
