"""A user's own data set: read as it is, or refused with what is wrong."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.lib import format as npy

from tasks.core.errors import CertiflowError
from tasks.core.sources.own_data import load_own


def arrays(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    whole = {
        "train_images": random.integers(0, 256, (6, 3, 4)).astype(np.uint8),
        "train_labels": np.array([0, 1, 2, 0, 1, 2]),
        "test_images": random.integers(0, 256, (3, 3, 4)).astype(np.uint8),
        "test_labels": np.array([0, 1, 2], dtype=np.uint8),
    }
    return whole | changes


def saved(folder: Path, name: str = "mine.npz", **changes: Any) -> Path:
    np.savez(folder / name, **{k: v for k, v in arrays(**changes).items() if v is not None})
    return folder / name


def test_bytes_become_pixels_and_the_name_is_the_files(tmp_path: Path) -> None:
    data = load_own(saved(tmp_path))
    assert data.name == "mine"
    assert data.train_inputs.dtype == np.float32
    assert data.train_inputs.max() <= 1
    np.testing.assert_array_equal(
        np.rint(data.test_inputs * 255).astype(np.uint8), arrays()["test_images"]
    )
    assert data.test_labels.tolist() == [0, 1, 2]
    assert (data.num_classes, data.input_shape) == (3, (3, 4))


def test_digest_follows_the_content(tmp_path: Path) -> None:
    first = load_own(saved(tmp_path)).sha256
    assert load_own(saved(tmp_path, "again.npz")).sha256 == first
    changed = arrays()["train_images"]
    changed[0, 0, 0] ^= 1
    assert load_own(saved(tmp_path, "changed.npz", train_images=changed)).sha256 != first


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test_labels": None}, "lacks test_labels"),
        ({"test_images": np.zeros((3, 12))}, "test_images has shape"),
        ({"test_images": np.zeros((3, 4, 3))}, "expected the same"),
        ({"train_images": np.full((6, 3, 4), 1.5)}, "not within"),
        ({"train_images": np.full((6, 3, 4), np.nan)}, "not within"),
        ({"train_images": np.zeros((6, 3, 4), dtype=np.int64)}, "expected uint8 or floating"),
        ({"train_labels": np.array([0, 1])}, r"expected integers of shape \(6,\)"),
        ({"train_labels": np.array([0.0, 1, 2, 0, 1, 2])}, "expected integers"),
        ({"train_labels": np.array([-1, 1, 2, 0, 1, 2])}, "negative labels"),
        ({"test_labels": np.array([0, 1, 7])}, r"train_labels lacks: \[7\]"),
        ({"train_labels": np.array([None] * 6)}, "without pickles"),
        ({"train_images": np.zeros((6, 3, 4, 2))}, r"in colour \(n, height, width, 3\)"),
        ({"train_labels": np.zeros(6, dtype=int), "test_labels": np.zeros(3, int)}, "two classes"),
        ({"train_labels": np.array([0, 1, 2, 0, 1, 2**63], dtype=np.uint64)}, "label 92233720368"),
        ({"train_labels": np.array([0, 1, 2, 0, 1, 10**9])}, "label 1000000000 for 6 images"),
        ({"class_names": np.array(["a", "b"])}, "a different text for each of the 3 classes"),
        ({"class_names": np.array(["a", "b", "c", "d"])}, "a different text"),
        ({"class_names": np.array(["a", "b", "a"])}, "a different text"),
        ({"class_names": np.array([b"a", b"b", b"c"])}, "a different text"),
        ({"class_names": np.array(["a", None, "c"])}, "without pickles"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match=said):
        load_own(saved(tmp_path, **changes))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match="no such file"):
        load_own(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(CertiflowError, match=r"cannot be read as \.npz"):
        load_own(tmp_path / "text.npz")
    with pytest.raises(CertiflowError, match="letters, digits"):
        load_own(saved(tmp_path, "my data.npz"))


def test_colour_and_class_names(tmp_path: Path) -> None:
    colour = {name: np.zeros((count, 5, 4, 3)) for name, count in [("train", 6), ("test", 3)]}
    names = np.array(["leaf", "stone", "Wasser ü"])
    data = load_own(
        saved(
            tmp_path,
            train_images=colour["train"],
            test_images=colour["test"],
            class_names=names,
        )
    )
    assert data.input_shape == data.domain.shape == (5, 4, 3)
    assert data.class_names == ("leaf", "stone", "Wasser ü")


def test_an_array_named_as_an_archive(tmp_path: Path) -> None:
    with (tmp_path / "array.npz").open("wb") as stream:
        np.save(stream, np.zeros((6, 3, 4)))
    with pytest.raises(CertiflowError, match=r"save it with np\.savez"):
        load_own(tmp_path / "array.npz")


@pytest.mark.parametrize("shape", [(2**40, 3, 4), (6, 3, 3)])
def test_a_header_that_is_not_its_content(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Nothing is allocated for what a header claims: 12 terabytes here."""
    header = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(header, described)
    path = saved(tmp_path, train_images=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", header.getvalue() + bytes(6 * 3 * 4))
    with pytest.raises(CertiflowError, match=r"train_images of shape .* the file holds 72"):
        load_own(path)


def test_an_archive_that_claims_more_than_it_can_hold(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("train_images.npy").file_size
    entry = content.index(b"PK\x01\x02")  # the first one of the directory at the end
    assert int.from_bytes(content[entry + 24 : entry + 28], "little") == size
    content[entry + 24 : entry + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    with pytest.raises(CertiflowError, match="claims 4294967294 bytes"):
        load_own(path)


def test_development_images_in_colour(mnist_mirror: str) -> None:
    path = Path(httpx.URL(mnist_mirror).path) / "images/colour32/colour32.npz"
    if not path.is_file():
        pytest.skip("the mirror has no images/colour32")
    data = load_own(path)
    assert data.train_inputs.shape == (5000, 32, 32, 3)
    assert np.bincount(data.test_labels).tolist() == [100] * 10
