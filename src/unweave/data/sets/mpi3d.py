"""MPI3D (Gondal et al. 2019), in four kinds: an .npz with `images`, whose number determines the grid."""

from pathlib import Path

import numpy as np

from unweave.data.base import StateSpace
from unweave.data.sets.card import Card, Remote
from unweave.data.sets.reading import NpzImages, npz_header, npz_names

FACTORS = ("object_color", "shape", "size", "camera_height", "background_color", "horizontal_axis", "vertical_axis")
SIZES = {  # by the number of images; the toy, realistic and real sets share a grid
    1_036_800: (6, 6, 2, 3, 3, 40, 40),
    460_800: (4, 4, 2, 3, 3, 40, 40),  # the complex set
}


def opens(path: Path) -> bool:
    """An .npz with as many `images` as a grid of MPI3D; the file has no labels."""
    return "images" in npz_names(path) and _num_images(path) in SIZES


def read(path: Path, size: int) -> NpzImages:
    """The images of the file."""
    return NpzImages(path, "mpi3d", "images", StateSpace(FACTORS, SIZES[_num_images(path)]), size)


def _num_images(path: Path) -> int:
    shape, _ = npz_header(path, "images")
    return shape[0] if shape else 0


def _card(kind: str, about: str, images: int, file: str, by_hand: str = "", picture: str = "") -> Card:
    # disent has MD5s of the files of 2019 at an address that no longer exists. It is not known whether the present
    # files are the same, so they are not compared; Hugging Face states the SHA-256 of what it sends.
    url = f"https://huggingface.co/datasets/waleedgondal/mpi3d/resolve/main/{file}"
    return Card(
        name=f"mpi3d_{kind}",
        title=f"MPI3D {kind}",
        about=about,
        factors=dict(zip(FACTORS, SIZES[images])),
        pixels="64 x 64, colour",
        licence="CC BY 4.0",
        source="https://github.com/rr-learning/disentanglement_dataset",
        citation="Gondal et al., On the Transfer of Inductive Bias from Simulation to the Real World: a New "
        "Disentanglement Dataset, NeurIPS 2019",
        use=f"unweave train rooms-cpu-long --run runs/mpi3d_{kind} --data.folder data/mpi3d_{kind}/{file} "
        f"--data.cache-gb {np.ceil(images * 32 * 32 * 3 / 1e9):.0f}",
        files=(Remote(file, () if by_hand else (url,)),),
        layout="`images`, uint8 in the order of the factors, without labels: the number of images determines the grid.",
        by_hand=by_hand,
        picture=picture,
        opens=opens,
        read=read,
    )


FRAMES = "Frames of the publishers' animation, CC BY 4.0, Gondal et al. 2019; cut out."
MPI3D = (
    _card(
        "toy",
        "A robot arm holds an object; simple renderings of it.",
        1_036_800,
        "mpi3d_toy.npz",
        picture=FRAMES,
    ),
    _card(
        "realistic",
        "The robot arm of MPI3D in renderings with its materials and light.",
        1_036_800,
        "mpi3d_realistic.npz",
    ),
    _card("real", "Photographs of the robot arm of MPI3D itself.", 1_036_800, "mpi3d_real.npz", picture=FRAMES),
    _card(
        "complex",
        "Photographs of the robot arm of MPI3D with everyday objects: a coffee cup, a tennis ball, a croissant, a beer "
        "cup.",
        460_800,
        "real3d_complicated_shapes_ordered.npz",
        by_hand="open https://drive.google.com/file/d/1Tp8eTdHxgUMtsZv5uAoYAbJR1BOa_OQm/view and press download",
    ),
)
