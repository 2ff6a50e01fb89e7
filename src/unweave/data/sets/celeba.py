"""CelebA (Liu et al. 2015): pictures, opened as any others, and a table of attributes."""

from unweave.data.sets.card import Card, Remote

CELEBA = Card(
    name="celeba",
    title="CelebA",
    about="Photographs of the faces of 10,177 people, aligned, with forty binary attributes.",
    factors={},
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
    layout="A zip or folder of the aligned pictures, and a table of attributes: `list_attr_celeba.txt`, or Kaggle's "
    "`list_attr_celeba.csv`. `--data.crop celeba_128` takes the square of 128 px around (89, 121), columns 25 to 152 "
    "and rows 57 to 184, as D2C and DiffAE do; `--data.crop celeba_96` resizes the picture to a width of 96 px and "
    "takes the middle 64 px, as DisDiff and EncDiff do for TAD: columns 29.7 to 148.3, rows 48.4 to 167.7. Both skip "
    "pictures of another size than 178 x 218.",
    labels="40 attributes, -1 or 1",
    by_hand="open https://drive.google.com/drive/folders/0B7EVK8r0v71pWEZsZE9oNnFzTm8 and download "
    "Img/img_align_celeba.zip and Anno/list_attr_celeba.txt. Where its quota is used up, "
    "https://www.kaggle.com/datasets/jessicali9530/celeba-dataset has the same pictures and labels in a zip that "
    "--data.folder opens as it is; unpack its list_attr_celeba.csv for --data.labels",
    images=202_599,
)
