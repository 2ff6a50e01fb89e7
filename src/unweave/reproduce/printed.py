"""The numbers that the paper prints: tables 1 and 2 of Jun et al., WACV 2025, from its project page of September 2024.

Mean and spread; None where a row has no number. The paper copies the rows of other methods from their papers. The
paper's ablation and downstream tables were not available, so none of their numbers are here.
"""

from typing import NamedTuple


class Number(NamedTuple):
    """A printed mean and its spread."""

    mean: float
    spread: float


Row = dict[str, Number | None]
"""By the name of a score."""

FACTOR_VAE, DCI, TAD, FID = "factor_vae", "dci_disentanglement", "tad", "FID"
OURS = "DyGA and Skip Dropout"
ENCDIFF = "EncDiff"


def _pairs(names: tuple[str, str], *values: tuple[float, float] | None) -> Row:
    return {name: Number(*value) if value else None for name, value in zip(names, values, strict=True)}


def _sets(*values: tuple[float, float] | None) -> dict[str, Row]:
    names = FACTOR_VAE, DCI
    sets = "cars3d", "shapes3d", "mpi3d"
    return {name: _pairs(names, *values[2 * i : 2 * i + 2]) for i, name in enumerate(sets)}


TABLE1: dict[str, dict[str, Row]] = {
    "FactorVAE": _sets((0.906, 0.052), (0.161, 0.019), (0.840, 0.066), (0.611, 0.082), (0.152, 0.025), (0.240, 0.051)),
    "beta-TCVAE": _sets((0.855, 0.082), (0.140, 0.019), (0.873, 0.074), (0.613, 0.114), (0.179, 0.017), (0.237, 0.056)),
    "DAVA": _sets((0.940, 0.010), (0.230, 0.040), (0.820, 0.030), (0.780, 0.030), (0.480, 0.050), (0.270, 0.030)),
    "ClosedForm": _sets((0.873, 0.036), (0.243, 0.048), (0.951, 0.021), (0.525, 0.078), (0.523, 0.056), (0.318, 0.014)),
    "GANSpace": _sets((0.932, 0.018), (0.209, 0.031), (0.788, 0.091), (0.284, 0.034), (0.465, 0.036), (0.229, 0.042)),
    "DisCo-GAN": _sets((0.855, 0.074), (0.271, 0.037), (0.877, 0.031), (0.708, 0.048), (0.371, 0.030), (0.292, 0.024)),
    "DisDiff-VQ": _sets((0.976, 0.018), (0.232, 0.019), (0.902, 0.043), (0.723, 0.013), (0.617, 0.070), (0.337, 0.057)),
    # .418 is printed so
    "FDAE": _sets((0.918, 0.027), (0.232, 0.418), (0.987, 0.023), (0.917, 0.038), None, None),
    ENCDIFF: _sets((0.773, 0.060), (0.279, 0.022), (0.999, 0.000), (0.969, 0.030), (0.872, 0.049), (0.685, 0.044)),
    OURS: _sets((0.941, 0.002), (0.414, 0.013), (1.000, 0.000), (0.938, 0.001), (0.930, 0.004), (0.627, 0.002)),
}

TABLE2: dict[str, dict[str, Row]] = {
    name: {"celeba": _pairs((TAD, FID), *values)}
    for name, *values in (
        ("beta-VAE", (0.088, 0.043), (99.8, 2.4)),
        ("Diff-AE", (0.155, 0.010), (22.7, 2.1)),
        ("InfoDiffusion", (0.299, 0.006), (23.6, 1.3)),
        ("DisDiff", (0.305, 0.010), (18.2, 2.1)),
        (ENCDIFF, (0.638, 0.008), (14.8, 2.3)),
        (OURS, (0.954, 0.024), (13.0, 0.0)),
    )
}

PRINTED: dict[str, dict[str, dict[str, Row]]] = {"table1": TABLE1, "table2": TABLE2}
"""By table, method and set."""
