"""The datasets by name, and any dataset by what `data.dataset` says."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tasks.core.data.completion import NO_COMPLETIONS, Completions
from tasks.core.data.datasets import DataCard, Dataset, Extent
from tasks.core.data.pinned_files import RemoteFile
from tasks.core.properties.perturbation import Scale
from tasks.core.sources import own_data
from tasks.core.sources.bundled import Digits, breast_cancer
from tasks.core.sources.cifar import CifarArchive
from tasks.core.sources.idx import IdxFile, IdxFiles
from tasks.core.sources.image_source import ImageSource, in_folders
from tasks.core.sources.medmnist import MedicalFile
from tasks.core.sources.table_source import TableSource

MNIST = IdxFiles(
    train_images=IdxFile(
        "train-images-idx3-ubyte.gz",
        (60_000, 28, 28),
        sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    train_labels=IdxFile(
        "train-labels-idx1-ubyte.gz",
        (60_000,),
        sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    test_images=IdxFile(
        "t10k-images-idx3-ubyte.gz",
        (10_000, 28, 28),
        sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    test_labels=IdxFile(
        "t10k-labels-idx1-ubyte.gz",
        (10_000,),
        sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)


def _like_mnist(md5: tuple[str, str, str, str]) -> IdxFiles:
    """Files with the names and shapes of MNIST's, and the MD5 of each as it is published."""
    return IdxFiles(
        *(
            IdxFile(file.name, file.shape, gzip_md5=digest)
            for file, digest in zip(MNIST.files, md5, strict=True)
        )
    )


FASHION_MNIST = _like_mnist(
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    )
)
KMNIST = _like_mnist(
    (
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    )
)
CIFAR10 = CifarArchive(
    "cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
PNEUMONIA = MedicalFile(
    "pneumoniamnist.npz",
    md5="28209eda62fecd6e6a2d98b1501bb15f",
    shapes={
        "train_images": (4708, 28, 28),
        "train_labels": (4708, 1),
        "val_images": (524, 28, 28),
        "val_labels": (524, 1),
        "test_images": (624, 28, 28),
        "test_labels": (624, 1),
    },
    sha256={
        "train_images": "162cc59dc8ea8160004374029c1e9e1ce6b6d77213129800d9eb8a02e0745eed",
        "train_labels": "51c9590930a3f0c7ac0a094c0ea5dbe65241edfa11a06d6e493615b604900259",
        "val_images": "499b99bb7cc3b2a8654da75b2a19fae443343c6251d46a9c80249930d4f33934",
        "val_labels": "150e23159736511733a32b038e64e5f6235c888105e2bd579efc0e7dcb1c38fd",
        "test_images": "f936e3b6b29d2ed7a8182dd090c27504a6b7152ce496a960db0169622aabf843",
        "test_labels": "13c6ece2a1da60187a0129e7a1b66c685dcbcffe8229225cb5e48e5ee12cfd3d",
    },
)


class Source(Protocol):
    """A dataset by name."""

    @property
    def is_table(self) -> bool:
        """Or else images."""

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """What must be in the cache; none where the data come with scikit-learn."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """By label."""

    @property
    def extent(self) -> Extent:
        """What it holds, known without its files."""

    def read(self, name: str, folder: Path, scale: Scale, most_changes: int) -> Dataset:
        """From its files in `folder`; raises `CertiflowError` when they are others."""


SOURCES: dict[str, Source] = {
    "mnist": ImageSource(
        MNIST,
        in_folders(
            MNIST,
            "mnist",
            (
                "https://storage.googleapis.com/cvdf-datasets/mnist",
                "https://ossci-datasets.s3.amazonaws.com/mnist",
            ),
        ),
        Extent((28, 28), 10, 10_000),
        DataCard("CC BY-SA 3.0", "LeCun, Bottou, Bengio and Haffner 1998, Proc. IEEE 86(11)"),
        class_names=tuple("0123456789"),
    ),
    "fashion_mnist": ImageSource(
        FASHION_MNIST,
        in_folders(
            FASHION_MNIST,
            "fashion_mnist",
            (
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            ),
        ),
        Extent((28, 28), 10, 10_000),
        DataCard("MIT", "Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747"),
        class_names=(
            "T-shirt/top",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
    ),
    "kmnist": ImageSource(
        KMNIST,
        in_folders(KMNIST, "kmnist", ("http://codh.rois.ac.jp/kmnist/dataset/kmnist",)),
        Extent((28, 28), 10, 10_000),
        DataCard(
            "CC BY-SA 4.0",
            "KMNIST Dataset (created by CODH), adapted from Kuzushiji Dataset (created by NIJL and "
            "others), doi 10.20676/00000341; Clanuwat et al. 2018, arXiv 1812.01718",
        ),
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "cifar10": ImageSource(
        CIFAR10,
        in_folders(CIFAR10, "cifar10", ("https://www.cs.toronto.edu/~kriz",)),
        Extent((32, 32, 3), 10, 10_000),
        DataCard(
            "none stated by the publisher",
            "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
        ),
        class_names=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
    ),
    "pneumonia": ImageSource(
        PNEUMONIA,
        (
            RemoteFile(
                PNEUMONIA,
                "images/pneumoniamnist/pneumoniamnist_rebuilt.npz",
                ("https://zenodo.org/records/10519652/files/pneumoniamnist.npz?download=1",),
            ),
        ),
        Extent((28, 28), 2, 624, positive=1),
        DataCard(
            "CC BY 4.0; not intended for clinical use",
            "Yang et al. 2023, MedMNIST v2, doi 10.1038/s41597-022-01721-8; "
            "Kermany et al. 2018, doi 10.1016/j.cell.2018.02.010",
            ("the published validation images are among the training images",),
        ),
        class_names=("normal", "pneumonia"),
    ),
    "digits": Digits(),
    "credit": TableSource("credit"),
    "phishing": TableSource("phishing"),
    "intrusion": TableSource("intrusion"),
    "breast_cancer": TableSource("breast_cancer", breast_cancer),
}


def is_table(source: str) -> bool:
    """Whether `data.dataset` names a table."""
    return SOURCES[source].is_table if source in SOURCES else own_data.is_table(source)


def load(
    source: str,
    cache: Path,
    *,
    scale: Scale = "range",
    most_changes: int = 0,
    completions: Completions = NO_COMPLETIONS,
) -> Dataset:
    """A dataset by name, from its files in `cache / name`, or one of the user's own by its path.

    Of a table, `scale` and `most_changes` say what an attacker may do; see `Perturbation`. Of one
    of the user's own, `completions` stand in empty cells; those by name have none.
    Raises `CertiflowError` when a file is missing or is not what it must be.
    """
    if source in SOURCES:
        return SOURCES[source].read(source, cache / source, scale, most_changes)
    return own_data.load_own(
        Path(source), scale=scale, most_changes=most_changes, completions=completions
    )
