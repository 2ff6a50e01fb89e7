"""The Frechet distance between the features of generated images and of data; with Inception's features it is FID
(Heusel et al. 2017).

n images, d features.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unweave.config import Sampling
from unweave.data.base import ImageSet, require_size
from unweave.errors import require
from unweave.files import hash_of
from unweave.metrics.frechet import Moments, frechet_distance
from unweave.models.base import UnitModel, eval_mode
from unweave.models.pixels import normalise
from unweave.nn.inception import NUM_FEATURES, Inception
from unweave.record import Display, Log, versions

NUM_IMAGES = 50_000
PUBLISHED = Sampling(steps=100, solver="ddim")
"""The sampler of the paper."""
BATCH_SIZE = 128
OWN = "Frechet distance, own features"


def distance_to_data(
    model: UnitModel,
    dataset: ImageSet,
    num: int = NUM_IMAGES,
    weights: Path | None = None,
    sampling: Sampling = PUBLISHED,
    num_real: int = 0,
    batch_size: int = BATCH_SIZE,
    log: Log = lambda _: None,
) -> dict[str, Any]:
    """The Frechet distance of `num` generated images from the images of a data set; returns the content of
    `frechet.json`.

    As in the published sampling script, each image is generated from the units of a random image of the set, with
    replacement, and from its own noise. They are compared with all images of the set, or with `num_real` random ones.
    With `weights`, Inception's file, `name` is FID; without, features are the inputs of the extractor's last layer and
    the distance has another name. Images are processed in batches; the result depends on the seed only.

    Raises `UserError` for images of another size than the model's, fewer than two images, and other weights.
    """
    # features, and which images are compared
    start = time.monotonic()
    require_size(dataset, model.config.image_size)
    require(num >= 2, f"{num} images: a distance needs at least 2")
    require(num_real == 0 or 2 <= num_real <= len(dataset), f"{num_real} real images: choose 2 to {len(dataset):,}")
    require(batch_size >= 1, f"batch_size is {batch_size}: must be at least 1")
    name, features = (OWN, model.features_of) if weights is None else ("FID", Inception.read(weights, model.device))
    rng = np.random.default_rng(sampling.seed)
    conditions = rng.integers(len(dataset), size=num)
    real = np.sort(rng.choice(len(dataset), num_real, replace=False)) if num_real else np.arange(len(dataset))
    generator = torch.Generator().manual_seed(sampling.seed)

    # moments of the features of both
    def draw(rows: np.ndarray) -> np.ndarray:
        noise = model.draw_noise(len(rows), generator)
        tokens = model.encode(dataset.images(rows), batch_size).aligned
        return model.decode(tokens, sampling.steps, noise=noise, batch_size=batch_size, solver=sampling.solver)

    log(f"{num:,} images by {sampling.steps} steps of {sampling.solver}, compared with {len(real):,} of {dataset.name}")
    with eval_mode(model):
        drawn = _moments(features, draw, conditions, batch_size, model.device, "drawing")
        seen = _moments(features, dataset.images, real, batch_size, model.device, "reading the data")

    # the distance
    width = len(drawn.mean)
    few = min(num, len(real)) <= width
    notes = [f"{min(num, len(real)):,} images for {width:,} features: the distance is far too high"] if few else []
    for note in notes:
        log(f"note: {note}")
    return {
        "name": name,
        "value": frechet_distance(drawn, seen),
        "images": num,
        "real_images": len(real),
        "features": f"Inception's last pool, {NUM_FEATURES}" if weights else f"the model's own extractor, {width}",
        "weights": {"file": weights.name, "sha256": hash_of(weights)} if weights else None,
        "conditions": "units of random images of the data set, with replacement; fresh noise for each",
        "sampling": {"steps": sampling.steps, "solver": sampling.solver, "seed": sampling.seed},
        "data": dataset.name,
        "notes": notes,
        "history": model.history,
        "seconds": round(time.monotonic() - start, 1),
        "versions": versions(),
    }


@torch.no_grad()
def _moments(
    features: Callable[[Tensor], Tensor],
    images: Callable[[np.ndarray], np.ndarray],
    rows: np.ndarray,
    batch_size: int,
    device: torch.device,
    what: str,
) -> Moments:
    """Moments of the features of the images with numbers `rows` (n,)."""
    moments: Moments | None = None
    with Display(what, len(rows), "images") as display:
        for start in range(0, len(rows), batch_size):
            batch = torch.from_numpy(images(rows[start : start + batch_size]))
            part = features(normalise(batch.to(device))).cpu().numpy()  # (B, d)
            moments = Moments(part.shape[1]) if moments is None else moments
            moments.update(part)
            display.update(start + len(part))
    assert moments is not None
    return moments
