"""Datasets by name: their formats, on files that the tests make, and their published content."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from tasks.core.data.datasets import Dataset, Extent
from tasks.core.data.pinned_files import PinnedText
from tasks.core.errors import CertiflowError
from tasks.core.sources import catalogue
from tasks.core.sources.catalogue import SOURCES
from tasks.core.sources.cifar import FOLDER, TEST, TRAIN, CifarArchive
from tasks.core.sources.download import MIRROR_VARIABLE, fetch
from tasks.core.sources.medmnist import MedicalFile

RECORDS = 4


def records(seed: int) -> bytes:
    """Records of CIFAR-10's binary form: a label, then red, green and blue, row after row."""
    random = np.random.default_rng(seed)
    content = random.integers(0, 256, (RECORDS, 3073)).astype(np.uint8)
    content[:, 0] = random.integers(0, 10, RECORDS)
    return content.tobytes()


def archive_of(members: dict[str, bytes], **links: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in links.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}.bin")
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return packed.getvalue()


def cifar(folder: Path, packed: bytes) -> CifarArchive:
    (folder / "cifar.tar.gz").write_bytes(packed)
    return CifarArchive("cifar.tar.gz", hashlib.sha256(packed).hexdigest(), RECORDS)


WHOLE = {name: records(number) for number, name in enumerate((*TRAIN, TEST))}


def test_cifar_10_is_read_channels_last(tmp_path: Path) -> None:
    members = {f"{FOLDER}/readme.html": b"x", **dict(reversed(WHOLE.items()))}
    archive = cifar(tmp_path, archive_of(members))
    train_images, train_labels, test_images, test_labels = archive.arrays(tmp_path)
    assert train_images.shape == (5 * RECORDS, 32, 32, 3)
    assert test_images.shape == (RECORDS, 32, 32, 3)
    second = WHOLE[TRAIN[1]]  # its first record follows the records of the first file
    assert train_labels[RECORDS] == second[0]
    row, column, green = 3, 5, 1
    at = 1 + green * 32 * 32 + row * 32 + column
    assert train_images[RECORDS, row, column, green] == second[at]
    assert test_labels[-1] == WHOLE[TEST][-3073]


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (archive_of(WHOLE)[:-2000], "not a whole tar.gz"),
        (b"<html>", "not a whole tar.gz"),
        (archive_of(WHOLE | {TEST: records(0)[:-1]}), rf"lacks {TEST} of {RECORDS * 3073} bytes"),
        (archive_of({f"../{name}": content for name, content in WHOLE.items()}), "lacks"),
        (
            archive_of({n: c for n, c in WHOLE.items() if n != TEST}, test_batch="/etc/passwd"),
            f"lacks {TEST}",
        ),
    ],
    ids=["cut", "no archive", "too short", "outside", "link"],
)
def test_archives_that_are_not_cifar_10(packed: bytes, said: str, tmp_path: Path) -> None:
    archive = cifar(tmp_path, packed)
    with pytest.raises(CertiflowError, match=said):
        archive.arrays(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar.tar.gz"]


def test_another_archive_is_refused_unread(tmp_path: Path) -> None:
    cifar(tmp_path, archive_of(WHOLE))
    with pytest.raises(CertiflowError, match=f"expected SHA-256 {'0' * 64}, found"):
        CifarArchive("cifar.tar.gz", "0" * 64, RECORDS).arrays(tmp_path)


def medical(**changes: object) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found = {}
    for part, count in [("train", 5), ("val", 2), ("test", 3)]:
        found[f"{part}_images"] = random.integers(0, 256, (count, 4, 4)).astype(np.uint8)
        found[f"{part}_labels"] = random.integers(0, 2, (count, 1)).astype(np.uint8)
    return found | changes  # type: ignore[operator]


def pinned(path: Path, md5: str = "0" * 32) -> MedicalFile:
    arrays = medical()
    shapes = {name: array.shape for name, array in arrays.items()}
    digests = {n: hashlib.sha256(a.tobytes()).hexdigest() for n, a in arrays.items()}
    return MedicalFile(path.name, md5, shapes, digests)


def test_a_medical_file_by_its_arrays_or_by_the_publishers_digest(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **medical(extra=np.zeros(3)))
    images, labels, test_images, test_labels = pinned(path).arrays(tmp_path)
    np.testing.assert_array_equal(
        images, np.concatenate([medical()["train_images"], medical()["val_images"]])
    )
    assert (labels.shape, test_images.shape, test_labels.shape) == ((7,), (3, 4, 4), (3,))
    other = medical()["test_images"] ^ 1
    np.savez(path, **medical(test_images=other))
    with pytest.raises(CertiflowError, match=r"expected MD5 0000.*nor has test_images SHA-256"):
        pinned(path).read(path)
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    np.testing.assert_array_equal(pinned(path, md5).read(path)["test_images"], other)


def test_a_medical_file_of_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **medical(val_labels=np.zeros((2, 1))))
    with pytest.raises(
        CertiflowError, match=r"val_labels is float64 of shape \(2, 1\): expected u"
    ):
        pinned(path).read(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_a_pinned_text_plain_or_gzipped(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = b"a,b\n1,2\n"
    file = PinnedText("x.csv", len(content), hashlib.sha256(content).hexdigest())
    path = tmp_path / "x.csv"
    path.write_bytes(pack(content))
    assert file.read(path) == content
    for wrong in (content + b"\0" * 10**6, content[:-1], b"a,b\n1,3\n"):
        path.write_bytes(pack(wrong))
        with pytest.raises(CertiflowError, match="expected SHA-256"):
            file.read(path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_files_of_mnist_and_its_successors_have_its_shapes(name: str) -> None:
    files = [remote.file for remote in SOURCES[name].files]
    shapes = [file.shape for file in files]  # type: ignore[attr-defined]
    assert shapes == [(60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,)]
    assert all(file.sha256 or file.gzip_md5 for file in files)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", SOURCES)
def test_every_dataset_says_what_it_is(name: str) -> None:
    source = SOURCES[name]
    assert source.extent.num_outputs == len(source.class_names) >= 2
    for remote in source.files:
        assert not remote.mirror_path.startswith("/")
        assert remote.addresses
        assert all(address.startswith("http") for address in remote.addresses)
    card = source.schema if source.is_table else source.card  # type: ignore[attr-defined]
    assert card.licence
    assert card.citation


def loaded(name: str, cache: Path) -> Dataset:
    """From the mirror; checked against what is said of it without its files."""
    folder = Path(httpx.URL(os.environ.get(MIRROR_VARIABLE, "")).path)
    absent = [
        each.mirror_path
        for each in SOURCES[name].files
        if folder.is_dir() and not (folder / each.mirror_path).is_file()
    ]
    if absent:
        pytest.skip(f"the mirror in {MIRROR_VARIABLE} lacks {absent[0]}")
    fetch(name, cache)
    data = catalogue.load(name, cache)
    assert data.name == name
    assert data.extent == SOURCES[name].extent
    assert data.class_names == SOURCES[name].class_names
    assert data.domain.is_table == SOURCES[name].is_table == catalogue.is_table(name)
    return data


def counts(data: Dataset) -> tuple[list[int], list[int]]:
    """Rows of each class, for training and for testing."""
    return np.bincount(data.train_labels).tolist(), np.bincount(data.test_labels).tolist()


def test_breast_cancer(tmp_path: Path) -> None:
    """569 rows, 212 of them malignant, as UCI describes them."""
    data = loaded("breast_cancer", tmp_path)
    train, test = counts(data)
    assert np.add(train, test).tolist() == [212, 357]
    assert data.extent == Extent((30,), 2, 114, positive=0)
    assert data.class_names[data.positive or 0] == "malignant"
    assert data.domain.contains(np.concatenate([data.train_inputs, data.test_inputs])).all()


def test_credit(mnist_mirror: str, tmp_path: Path) -> None:
    """30,000 clients, 6,636 defaults; mean limit 167,484.32 and age 35.4855, as published."""
    data = loaded("credit", tmp_path)
    train, test = counts(data)
    assert np.add(train, test).tolist() == [30_000 - 6_636, 6_636]
    assert test == [4_673, 1_327]  # a fifth of each
    inputs = np.concatenate([data.train_inputs, data.test_inputs]).astype(np.float64)
    assert inputs[:, 0].mean() == pytest.approx(167_484.32, abs=0.01)
    columns = [column for feature in data.domain.features for column in feature.columns]
    assert inputs[:, columns.index("AGE")].mean() == pytest.approx(35.4855, abs=1e-4)
    assert len(data.domain.features) == 23
    assert len(columns) == 20 + 2 + 7 + 4
    mutable = {feature.name for feature in data.domain.features if feature.mutable}
    assert mutable == {"LIMIT_BAL"} | {f"{n}_AMT{m}" for n in ("BILL", "PAY") for m in range(1, 7)}
    assert data.domain.contains(inputs).all()


def test_phishing(mnist_mirror: str, tmp_path: Path) -> None:
    """5,715 pages of each kind; 1 and 7 rows break a relation, 8 rows in all."""
    data = loaded("phishing", tmp_path)
    assert counts(data) == ([4_572, 4_572], [1_143, 1_143])
    assert data.extent == Extent((63,), 2, 2_286, positive=1)
    inputs = np.concatenate([data.train_inputs, data.test_inputs]).astype(np.float64)
    broken = [int((~relation.holds(inputs)).sum()) for relation in data.domain.relations]
    assert broken == [0, 0, 0, 0, 0, 0, 1, 0, 7, 0, 0, 0, 0, 0]
    assert (~data.domain.contains(inputs)).sum() == 8
    np.testing.assert_array_equal(inputs.min(axis=0), data.domain.lower)
    np.testing.assert_array_equal(inputs.max(axis=0), data.domain.upper)
    assert all(feature.mutable for feature in data.domain.features)


def test_the_relations_of_phishing_are_the_published_ones(
    mnist_mirror: str, tmp_path: Path
) -> None:
    """An implication forbids what its upstream form, true for every count, lets pass."""
    data = loaded("phishing", tmp_path)
    assert len(data.domain.relations) == 14
    place = {feature.name: at for at, feature in enumerate(data.domain.features)}
    row = data.train_inputs[data.domain.contains(data.train_inputs)][:1].astype(np.float64)
    row[0, place["http_in_path"]] = 1
    row[0, place["nb_slash"]] = 0
    assert not data.domain.relations[3].holds(row).any()


def test_intrusion(mnist_mirror: str, tmp_path: Path) -> None:
    """The published split: 67,343 + 58,630 and 9,711 + 12,833 connections."""
    data = loaded("intrusion", tmp_path)
    assert counts(data) == ([67_343, 58_630], [9_711, 12_833])
    assert data.class_names == ("normal", "attack")
    assert data.extent == Extent((122,), 2, 22_544, positive=1)
    assert len(data.domain.features) == 41
    sizes = {each.name: len(each.categories) for each, _ in data.domain.groups}
    assert sizes == {"protocol_type": 3, "service": 70, "flag": 11}
    moves = {each.name: each.direction for each in data.domain.features if each.mutable}
    assert moves == dict.fromkeys(("duration", "src_bytes", "dst_bytes"), "up")
    assert not data.perturbation.down.any()
    assert data.domain.contains(np.concatenate([data.train_inputs, data.test_inputs])).all()


def test_pneumonia(mnist_mirror: str, tmp_path: Path) -> None:
    """4,708 and 524 images to train on, 624 to test: the published counts of each class."""
    data = loaded("pneumonia", tmp_path)
    assert counts(data) == ([1_214 + 135, 3_494 + 389], [234, 390])
    assert data.class_names == ("normal", "pneumonia")
    assert data.positive == 1
    assert data.train_inputs.max() <= 1


def test_digits_are_real_and_split(digits: Dataset) -> None:
    assert digits.train_inputs.shape == (1437, 8, 8)
    assert digits.test_inputs.shape == (360, 8, 8)
    assert set(digits.test_labels) == set(range(10))
    assert digits.test_inputs.max() == 1
    flat = {image.tobytes() for image in digits.train_inputs}
    shared = sum(image.tobytes() in flat for image in digits.test_inputs)
    assert shared == 0
