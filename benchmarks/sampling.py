"""How near few steps come to many: `python benchmarks/sampling.py` compares solvers on the bundled model.

The reference is DDIM with 200 steps; a difference is the mean over all pixels and channels, of 255.
"""

import time
from unittest.mock import patch

import numpy as np
import torch

import unweave
from record import write
from unweave.config import Solver
from unweave.data import Fixed, Rooms
from unweave.models.diffusion import DiffusionModel
from unweave.nn.noise import Schedule

NUM = 128
REFERENCE: tuple[Solver, int] = ("ddim", 200)
RIVALS: tuple[tuple[Solver, int], ...] = (
    ("dpm", 5),
    ("dpm", 10),
    ("dpm", 20),
    ("dpm", 50),
    ("ddim", 10),
    ("ddim", 20),
    ("ddim", 50),
    ("ddim", 100),
    ("ddim", 500),
)
BAR = {"solver": "dpm", "steps": 20, "difference_at_most": 2.0, "time_at_most": 0.2}


def drawn(model: DiffusionModel, tokens: np.ndarray, solver: Solver, steps: int) -> tuple[np.ndarray, float]:
    """Pictures from one noise each, always the same, and the least processor time of three that they took."""
    noise, seconds = model.draw_noise(len(tokens), seed=0), []
    for _ in range(3):
        start = time.process_time()
        pictures = model.decode(tokens, steps, noise=noise, solver=solver)
        seconds.append(time.process_time() - start)
    return pictures.astype(float), min(seconds)


def even_in_time(schedule: Schedule, num_steps: int) -> list[int]:
    """The other place to put the steps of `dpm`."""
    return np.linspace(1, schedule.num_steps - 1, num_steps).round().astype(int).tolist()


def main() -> None:
    torch.set_num_threads(1)
    model = unweave.load("rooms-cpu")
    assert model.trained_on is not None
    rooms = Fixed(Rooms(model.config.image_size), model.trained_on.fixed_values)
    images = rooms.images(np.random.default_rng(0).integers(len(rooms), size=NUM))
    tokens = model.encode(images).aligned
    reference, reference_seconds = drawn(model, tokens, *REFERENCE)

    def compared(solver: Solver, steps: int) -> dict[str, float]:
        pictures, seconds = drawn(model, tokens, solver, steps)
        difference = np.abs(pictures - reference)
        return {
            "difference": round(difference.mean(), 4),
            "largest_difference": int(difference.max()),
            "seconds": round(seconds, 3),
            "time_over_reference": round(seconds / reference_seconds, 3),
        }

    found = {f"{solver}_{steps}_steps": compared(solver, steps) for solver, steps in RIVALS}
    with patch("unweave.nn.solver.dpm_times", even_in_time):
        found["dpm_20_steps_even_in_time"] = compared("dpm", 20)
    numbers = {
        "model": "rooms-cpu",
        "images": NUM,
        "threads": 1,
        "reference": {"solver": REFERENCE[0], "steps": REFERENCE[1], "seconds": round(reference_seconds, 3)},
        "bar": BAR,
        **found,
    }
    print(write("sampling", numbers))


if __name__ == "__main__":
    main()
