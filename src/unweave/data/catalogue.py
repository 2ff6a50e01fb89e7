"""What is known of the data sets that have a name here: factors, licences, and the files in which they are published.

Sizes and hashes are those that others published of the files they checked, named beside each; where nobody published
one there is none.
"""

from typing import NamedTuple

import numpy as np

from unweave.data.published import CARS3D, DSPRITES, MPI3D, MPI3D_SIZES, SHAPES3D, SMALLNORB
from unweave.errors import UserError


class Remote(NamedTuple):
    """A published file."""

    name: str
    urls: tuple[str, ...]
    """Where it is: the first that answers is taken. More than one only with a digest, or parts of two files could be
    joined; empty where the site wants a person."""
    size: int | None = None
    """Bytes; None where nobody published it."""
    digest: str = ""
    """`sha256:...` or `md5:...` in hexadecimal; empty where nobody published one."""


def expected(remote: Remote) -> str:
    """Size and hash of a file, in words."""
    size = f"{remote.size:,} bytes" if remote.size else "a size that nobody published"
    return f"{size}, {remote.digest or 'no published hash'}"


class Entry(NamedTuple):
    """A data set, for people."""

    title: str
    about: str
    factors: tuple[tuple[str, int], ...]
    """Names and numbers of values, the last fastest where the images are a grid of them; empty: see `labels`."""
    pixels: str
    licence: str
    source: str
    citation: str
    use: str
    """A command that trains on it."""
    files: tuple[Remote, ...] = ()
    layout: str = ""
    """What is in the files, and what is made of it."""
    labels: str = ""
    by_hand: str = ""
    """How a person gets the files that have no `urls`."""
    images: int = 0
    """How many there are, where they are no grid of the factors."""

    @property
    def num_images(self) -> int:
        return self.images or int(np.prod([size for _, size in self.factors]))


SHAPES_SIZES = (10, 10, 10, 8, 4, 15)
MPI3D_CITATION = (
    "Gondal et al., On the Transfer of Inductive Bias from Simulation to the Real World: a New Disentanglement "
    "Dataset, NeurIPS 2019"
)
MPI3D_SOURCE = "https://github.com/rr-learning/disentanglement_dataset"
MPI3D_FILES = "https://huggingface.co/datasets/waleedgondal/mpi3d/resolve/main/{}"
NORB_FILES = {  # TensorFlow Datasets, datasets/smallnorb/checksums.tsv
    "5x46789x9x18x6x2x96x96-training-dat": (
        131_896_188,
        "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
    ),
    "5x46789x9x18x6x2x96x96-training-cat": (348, "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa"),
    "5x46789x9x18x6x2x96x96-training-info": (
        71_052,
        "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32",
    ),
    "5x01235x9x18x6x2x96x96-testing-dat": (
        130_799_817,
        "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
    ),
    "5x01235x9x18x6x2x96x96-testing-cat": (347, "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff"),
    "5x01235x9x18x6x2x96x96-testing-info": (10_428, "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2"),
}


def _mpi3d(kind: str, about: str, images: int, file: Remote, by_hand: str = "") -> Entry:
    sizes = MPI3D_SIZES[images]
    return Entry(
        title=f"MPI3D {kind}",
        about=about,
        factors=tuple(zip(MPI3D, sizes)),
        pixels="64 x 64, colour",
        licence="CC BY 4.0",
        source=MPI3D_SOURCE,
        citation=MPI3D_CITATION,
        use=f"unweave train rooms-cpu-long --run runs/mpi3d_{kind} --data.folder data/mpi3d_{kind}/{file.name} "
        f"--data.cache-gb {np.ceil(images * 32 * 32 * 3 / 1e9):.0f}",
        files=(file,),
        layout="`images`, uint8 in the order of the factors, without labels: the grid is told by their number.",
        by_hand=by_hand,
    )


def _mpi3d_file(name: str) -> Remote:
    # disent has MD5s of the files of 2019 at an address that is gone. Whether those of today are the same bytes nobody
    # says, so that they are not held against them; Hugging Face states the SHA-256 of what it sends.
    return Remote(name, (MPI3D_FILES.format(name),))


CATALOGUE = {
    "rooms": Entry(
        title="rooms",
        about="Shapes3D as it is drawn here: a room with one object in the colours, sizes and angles of the published "
        "images.",
        factors=tuple(zip(SHAPES3D, SHAPES_SIZES)),
        pixels="64 x 64 or 32 x 32, colour",
        licence="Apache-2.0",
        source="drawn by unweave",
        citation="Burgess and Kim, 3D Shapes Dataset, 2018, for the set that is drawn",
        use="unweave train rooms-cpu --run runs/rooms",
    ),
    "dsprites": Entry(
        title="dSprites",
        about="A white square, ellipse or heart on black, turned, scaled and moved. Drawn here under this name; the "
        "published file opens too.",
        factors=tuple(zip(DSPRITES[1:], (3, 6, 40, 32, 32))),
        pixels="64 x 64 (drawn also 32 x 32), black and white",
        licence="Apache-2.0",
        source="https://github.com/google-deepmind/dsprites-dataset",
        citation="Matthey, Higgins, Hassabis and Lerchner, dSprites: Disentanglement testing Sprites dataset, 2017",
        use="unweave train sprites-cpu --run runs/dsprites",
        files=(
            Remote(  # the MD5 is in ten loaders, among them vaetc and latte
                "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",
                (
                    "https://github.com/google-deepmind/dsprites-dataset/raw/master/"
                    "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",
                ),
                digest="md5:7da33b31b13a06f4b04a70402ce90c2e",
            ),
        ),
        layout="`imgs` of 0 and 1, `latents_classes`; the constant colour is left out of the factors.",
    ),
    "shapes3d": Entry(
        title="Shapes3D",
        about="Renderings of a room with one object: its size, shape and three hues, and the angle of the camera.",
        factors=tuple(zip(SHAPES3D, SHAPES_SIZES)),
        pixels="64 x 64, colour",
        licence="Apache-2.0",
        source="https://github.com/google-deepmind/3d-shapes",
        citation="Burgess and Kim, 3D Shapes Dataset, 2018",
        use="unweave train rooms-cpu-long --run runs/shapes3d --data.folder data/shapes3d/3dshapes.h5",
        files=(
            Remote(  # TensorFlow Datasets, url_checksums/shapes3d.txt
                "3dshapes.h5",
                ("https://storage.googleapis.com/3d-shapes/3dshapes.h5",),
                267_573_662,
                "sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
            ),
        ),
        layout="`images`, `labels`: the values of the factors, from which the grid is read.",
    ),
    "cars3d": Entry(
        title="Cars3D",
        about="Renderings of 183 car models seen from all around, at four heights.",
        factors=tuple(zip(CARS3D, (4, 24, 183))),
        pixels="128 x 128, colour",
        licence="not stated",
        source="http://www.scottreed.info",
        citation="Reed, Zhang, Zhang and Lee, Deep Visual Analogy-Making, NeurIPS 2015",
        use="unweave train rooms-cpu-long --run runs/cars3d --data.folder data/cars3d/nips2015-analogy-data.tar.gz",
        files=(
            Remote(  # the MD5 is that of disent and latte
                "nips2015-analogy-data.tar.gz",
                (
                    "http://www.scottreed.info/files/nips2015-analogy-data.tar.gz",
                    "http://www-personal.umich.edu/~reedscot/files/nips2015-analogy-data.tar.gz",
                ),
                digest="md5:4e866a7919c1beedf53964e6f7a23686",
            ),
        ),
        layout="A `.mat` file per car with `im`, 24 azimuths by 4 elevations, in the folder `cars` of an archive of "
        "several sets. Cars are numbered by the names of their files.",
    ),
    "mpi3d_toy": _mpi3d(
        "toy", "A robot arm holds an object; simple renderings of it.", 1_036_800, _mpi3d_file("mpi3d_toy.npz")
    ),
    "mpi3d_realistic": _mpi3d(
        "realistic",
        "The robot arm of MPI3D in renderings with its materials and light.",
        1_036_800,
        _mpi3d_file("mpi3d_realistic.npz"),
    ),
    "mpi3d_real": _mpi3d(
        "real", "Photographs of the robot arm of MPI3D itself.", 1_036_800, _mpi3d_file("mpi3d_real.npz")
    ),
    "mpi3d_complex": _mpi3d(
        "complex",
        "Photographs of the robot arm of MPI3D with things of everyday: a coffee cup, a tennis ball, a croissant, a "
        "beer cup.",
        460_800,
        Remote("real3d_complicated_shapes_ordered.npz", ()),
        by_hand="open https://drive.google.com/file/d/1Tp8eTdHxgUMtsZv5uAoYAbJR1BOa_OQm/view and press download",
    ),
    "smallnorb": Entry(
        title="smallNORB",
        about="Photographs of fifty toys of five kinds on a turntable, under six lights.",
        factors=tuple(zip(SMALLNORB, (5, 10, 9, 18, 6))),
        pixels="96 x 96, grey",
        licence="for research, not to be sold",
        source="https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/",
        citation="LeCun, Huang and Bottou, Learning Methods for Generic Object Recognition with Invariance to Pose and "
        "Lighting, CVPR 2004",
        use="unweave train rooms-cpu-long --run runs/smallnorb --data.folder data/smallnorb",
        files=tuple(
            Remote(
                f"smallnorb-{name}.mat.gz",
                (f"https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/smallnorb-{name}.mat.gz",),
                size,
                f"sha256:{digest}",
            )
            for name, (size, digest) in NORB_FILES.items()
        ),
        layout="Images of two cameras (`dat`), their kind (`cat`) and the other factors (`info`), for training and for "
        "testing, packed or not; they are put in the order of the factors. Of the two cameras the first is used, as "
        "disentanglement_lib does. Toy 3 of the animals and toy 3 of the cars have nothing in common, which is why its "
        "tables leave `instance` out; here it is a factor like others, so that the images are a grid, and "
        "`--data.fixed instance=0` keeps one toy of each kind. Training and testing have five toys of each kind each: "
        "with one of the two there, `instance` has five values.",
    ),
    "celeba": Entry(
        title="CelebA",
        about="Photographs of the faces of 10,177 people, aligned, with forty attributes that are there or not.",
        factors=(),
        pixels="178 x 218, colour",
        licence="for research, not commercial",
        source="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        citation="Liu, Luo, Wang and Tang, Deep Learning Face Attributes in the Wild, ICCV 2015",
        use="unweave train rooms-cpu-long --run runs/celeba --data.folder data/celeba/img_align_celeba.zip "
        "--data.labels data/celeba/list_attr_celeba.txt --data.crop celeba_128",
        files=(  # TensorFlow Datasets, datasets/celeb_a/checksums.tsv
            Remote(
                "img_align_celeba.zip",
                (),
                1_443_490_838,
                "sha256:46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
            ),
            Remote(
                "list_attr_celeba.txt",
                (),
                26_721_026,
                "sha256:f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0",
            ),
        ),
        layout="A zip or folder of the aligned pictures, and a table of attributes: `list_attr_celeba.txt`, or "
        "Kaggle's `list_attr_celeba.csv`. `--data.crop celeba_128` takes the square of 128 px around (89, 121), "
        "columns 25 to 152 and rows 57 to 184, as D2C and DiffAE do; `--data.crop celeba_96` what remains when the "
        "picture is made 96 px wide and its middle 64 px are taken, as DisDiff and EncDiff do for TAD: columns 29.7 to "
        "148.3, rows 48.4 to 167.7. Under both, pictures of another size than 178 x 218 are skipped.",
        labels="40 attributes, -1 or 1",
        by_hand="open https://drive.google.com/drive/folders/0B7EVK8r0v71pWEZsZE9oNnFzTm8 and download "
        "Img/img_align_celeba.zip and Anno/list_attr_celeba.txt. Where its quota is used up, "
        "https://www.kaggle.com/datasets/jessicali9530/celeba-dataset has the same pictures and labels in a zip that "
        "--data.folder opens as it is; unpack its list_attr_celeba.csv for --data.labels",
        images=202_599,
    ),
}


def find(name: str) -> Entry:
    """The entry of a name. Raises `UserError`, with the names there are, for another."""
    if name not in CATALOGUE:
        raise UserError(f"{name!r} is no data set that is known: choose {', '.join(CATALOGUE)}")
    return CATALOGUE[name]
