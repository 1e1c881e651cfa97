"""A user's own data set: read as it is, or refused with what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.data.own_data import load_own
from tasks.core.errors import CertiflowError


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
    assert data.train_images.dtype == np.float32
    assert data.train_images.max() <= 1
    np.testing.assert_array_equal(
        np.rint(data.test_images * 255).astype(np.uint8), arrays()["test_images"]
    )
    assert data.test_labels.tolist() == [0, 1, 2]
    assert (data.num_classes, data.image_shape) == (3, (3, 4))


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
