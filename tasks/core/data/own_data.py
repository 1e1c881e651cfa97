"""A dataset of the user's own: one `.npz` file."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import IntArray
from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError

SUFFIX = ".npz"
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # it becomes a part of MLflow's and folders' names


def load_own(path: Path) -> Dataset:
    """The dataset in `path`, named after the file.

    The images are uint8 (0 to 255) or floating point within [0, 1], of shape (n, height, width);
    the labels are integers from 0. Arrays are read without pickles.

    Raises:
        CertiflowError: no such file, or the first thing in it that is not so.
    """
    if not NAME.fullmatch(path.stem):
        raise CertiflowError(f"{path}: name it with letters, digits, _ and - only")
    arrays = _read(path)
    images = {part: _images(path, f"{part}_images", arrays) for part in ("train", "test")}
    labels = {part: _labels(path, f"{part}_labels", arrays, len(images[part])) for part in images}
    if images["train"].shape[1:] != images["test"].shape[1:]:
        raise CertiflowError(
            f"{path}: train_images are of shape {images['train'].shape[1:]}, test_images of "
            f"{images['test'].shape[1:]}: expected the same"
        )
    unseen = sorted(set(labels["test"].tolist()) - set(labels["train"].tolist()))
    if unseen:
        raise CertiflowError(f"{path}: test_labels has labels that train_labels lacks: {unseen}")
    return Dataset.of_images(
        path.stem, (images["train"], labels["train"]), (images["test"], labels["test"])
    )


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    if not path.is_file():
        raise CertiflowError(f"{path}: no such file; expected arrays {', '.join(ARRAYS)} in it")
    try:
        with np.load(path, allow_pickle=False) as found:
            missing = [name for name in ARRAYS if name not in found]
            if missing:
                raise CertiflowError(f"{path}: lacks {', '.join(missing)}; it has {found.files}")
            return {name: found[name] for name in ARRAYS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CertiflowError(f"{path}: cannot be read as .npz without pickles ({error})") from error


def _images(path: Path, name: str, arrays: dict[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    images = arrays[name]
    if images.ndim != 3 or images.size == 0:
        raise CertiflowError(
            f"{path}: {name} has shape {images.shape}: expected (n, height, width), none of them 0"
        )
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    if not np.issubdtype(images.dtype, np.floating):
        raise CertiflowError(f"{path}: {name} is {images.dtype}: expected uint8 or floating point")
    if not ((images >= 0) & (images <= 1)).all():  # type: ignore[operator]
        raise CertiflowError(f"{path}: {name} has values that are not within [0, 1]")
    return images.astype(np.float32)


def _labels(path: Path, name: str, arrays: dict[str, NDArray[np.generic]], count: int) -> IntArray:
    labels = arrays[name]
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise CertiflowError(
            f"{path}: {name} is {labels.dtype} of shape {labels.shape}: expected integers of shape "
            f"({count},)"
        )
    if labels.min() < 0:
        raise CertiflowError(f"{path}: {name} has negative labels: expected 0 and up")
    return labels.astype(np.int64)
