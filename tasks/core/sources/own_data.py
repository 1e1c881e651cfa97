"""A dataset of the user's own: an `.npz` file of images, or a table's schema."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from tasks.core.arrays import Float32Array, IntArray
from tasks.core.data.completion import NO_COMPLETIONS, Completions
from tasks.core.data.datasets import Dataset
from tasks.core.data.schema import Schema, read_schema
from tasks.core.errors import CertiflowError
from tasks.core.properties.perturbation import Scale
from tasks.core.sources.npz import SUFFIX, Array, read_arrays

SCHEMA_SUFFIXES = (".yaml", ".yml")
SUFFIXES = (SUFFIX, *SCHEMA_SUFFIXES)
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
CLASS_NAMES = "class_names"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # it becomes a part of MLflow's and folders' names


def is_table(source: str) -> bool:
    """Whether the path is a schema's."""
    return Path(source).suffix in SCHEMA_SUFFIXES


def load_own(
    path: Path,
    *,
    scale: Scale = "range",
    most_changes: int = 0,
    completions: Completions = NO_COMPLETIONS,
) -> Dataset:
    """The dataset in `path`, named after the file: images, or a table by its schema.

    The images are uint8 (0 to 255) or floating point within [0, 1], of shape (n, height, width) or
    (n, height, width, 3); the labels are integers from 0, named by `class_names` where the file has
    them. Arrays are read without pickles. The other arguments are for tables; see `dataset_of`.

    Raises:
        CertiflowError: no such file, or the first thing in it that is not so.
    """
    if not NAME.fullmatch(path.stem):
        raise CertiflowError(f"{path}: name it with letters, digits, _ and - only")
    if is_table(str(path)):
        from tasks.core.data.tables import dataset_of, read_frames  # pandas takes long to import

        schema = read_schema(path, Schema)
        frames = read_frames(schema, path.parent)
        return dataset_of(schema, path, frames, scale, most_changes, completions)
    return _images_in(path)


def _images_in(path: Path) -> Dataset:
    arrays = read_arrays(path, ARRAYS, optional=(CLASS_NAMES,))
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
    _check_classes(path, labels["train"])
    return Dataset.of_images(
        path.stem,
        (images["train"], labels["train"]),
        (images["test"], labels["test"]),
        _class_names(path, arrays, int(labels["train"].max()) + 1),
    )


def _images(path: Path, name: str, arrays: dict[str, Array]) -> Float32Array:
    images = arrays[name]
    is_gray, is_colour = images.ndim == 3, images.ndim == 4 and images.shape[3] == 3
    if not (is_gray or is_colour) or images.size == 0:
        raise CertiflowError(
            f"{path}: {name} has shape {images.shape}: expected (n, height, width), or in colour "
            "(n, height, width, 3), none of them 0"
        )
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    if not np.issubdtype(images.dtype, np.floating):
        raise CertiflowError(f"{path}: {name} is {images.dtype}: expected uint8 or floating point")
    if not ((images >= 0) & (images <= 1)).all():  # type: ignore[operator]
        raise CertiflowError(f"{path}: {name} has values that are not within [0, 1]")
    return images.astype(np.float32)


def _labels(path: Path, name: str, arrays: dict[str, Array], count: int) -> IntArray:
    labels = arrays[name]
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise CertiflowError(
            f"{path}: {name} is {labels.dtype} of shape {labels.shape}: expected integers of shape "
            f"({count},)"
        )
    if labels.min() < 0:
        raise CertiflowError(f"{path}: {name} has negative labels: expected 0 and up")
    greatest = int(labels.max())  # before the cast: beyond int64 it would become negative
    if greatest > np.iinfo(np.int64).max:
        raise CertiflowError(
            f"{path}: {name} has the label {greatest}: expected 0 and up, in order"
        )
    return labels.astype(np.int64)


def _check_classes(path: Path, labels: IntArray) -> None:
    """There are two classes, and not many more numbers than images."""
    greatest = int(labels.max())
    if greatest >= len(labels):
        raise CertiflowError(
            f"{path}: train_labels has the label {greatest} for {len(labels)} images: number the "
            "classes 0, 1, 2 and so on"
        )
    if labels.min() == greatest:
        raise CertiflowError(
            f"{path}: train_labels has the label {greatest} only: expected two classes or more"
        )


def _class_names(path: Path, arrays: dict[str, Array], count: int) -> tuple[str, ...]:
    """The names that the file gives its classes, or none."""
    if CLASS_NAMES not in arrays:
        return ()
    names = arrays[CLASS_NAMES]
    if (
        names.ndim != 1
        or not _is_text(names)
        or len(set(names.tolist()) - {""}) != count
        or len(names) != count
    ):
        raise CertiflowError(
            f"{path}: {CLASS_NAMES} is {names.dtype} of shape {names.shape}: expected a different "
            f"text for each of the {count} classes"
        )
    return tuple(names.tolist())


def _is_text(array: Array) -> bool:
    """Whether its cells are text: NumPy keeps any numbers as letters, some of which are none."""
    if array.dtype.kind != "U":
        return False
    letters = np.dtype(np.uint32).newbyteorder(array.dtype.byteorder)
    codes = np.frombuffer(array.tobytes(), dtype=letters)
    surrogates = (codes >= 0xD800) & (codes < 0xE000)
    return bool((codes <= sys.maxunicode).all() and not surrogates.any())
