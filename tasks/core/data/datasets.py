"""The datasets by name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tasks.core.arrays import Float32Array, IntArray
from tasks.core.data.sources import SOURCES
from tasks.core.errors import CertiflowError
from tasks.core.properties.domain import Domain
from tasks.core.properties.perturbation import Perturbation


@dataclass(frozen=True)
class Extent:
    """How much a dataset holds: what a model, and a sample of its test set, must fit."""

    input_shape: tuple[int, ...]
    num_classes: int
    test_size: int


DIGITS = Extent((8, 8), 10, 360)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs, float32, shape (n, *shape), and labels, int64, shape (n,), of named classes.

    All inputs are valid in the perturbation's domain, but for relations, which data may break.
    `positive` is the class whose recall counts, such as the phishing page that must be detected.
    """

    name: str
    train_inputs: Float32Array
    train_labels: IntArray
    test_inputs: Float32Array
    test_labels: IntArray
    class_names: tuple[str, ...]
    perturbation: Perturbation
    positive: int | None = None

    @classmethod
    def of_images(
        cls,
        name: str,
        train: tuple[Float32Array, IntArray],
        test: tuple[Float32Array, IntArray],
        class_names: tuple[str, ...] = (),
    ) -> Dataset:
        """Images and labels, pixels in [0, 1]; classes without names are called by their number."""
        shape = train[0].shape[1:]
        numbers = tuple(str(label) for label in range(int(train[1].max()) + 1))
        return cls(name, *train, *test, class_names or numbers, Perturbation.of_images(shape))

    @property
    def domain(self) -> Domain:
        return self.perturbation.domain

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.test_inputs.shape[1:]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def extent(self) -> Extent:
        return Extent(self.input_shape, self.num_classes, len(self.test_labels))

    @cached_property
    def sha256(self) -> str:
        """Digest of all inputs and labels with their shapes."""
        digest = hashlib.sha256()
        parts = (self.train_inputs, self.train_labels, self.test_inputs, self.test_labels)
        for array in parts:
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def known_extent(name: str) -> Extent:
    """Of a dataset by name, without its files: all that come in IDX files have ten classes."""
    if name == "digits":
        return DIGITS
    count, *shape = SOURCES[name].test_images.shape
    return Extent(tuple(shape), 10, count)


def load(name: str, cache: Path) -> Dataset:
    """The dataset from its files in `cache / name`, checked; `digits` comes with scikit-learn.

    Raises `CertiflowError` when a file is missing or is not what it must be.
    """
    if name == "digits":
        return _load_digits()
    source = SOURCES[name]
    train_images, train_labels, test_images, test_labels = (
        file.read(cache / name / file.name) for file in source.files
    )
    return Dataset.of_images(
        name,
        (train_images.astype(np.float32) / np.float32(255), train_labels.astype(np.int64)),
        (test_images.astype(np.float32) / np.float32(255), test_labels.astype(np.int64)),
    )


def _load_digits() -> Dataset:
    """1,797 digits of 8x8 pixels (UCI, Alpaydin and Kaynak 1998), a fifth for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = bunch.images.astype(np.float32) / np.float32(16)
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )
    return Dataset.of_images("digits", (images[train], labels[train]), (images[test], labels[test]))


def stratified_sample(labels: IntArray, count: int, seed: int) -> IntArray:
    """Ascending indices of `count` points, the classes' numbers as equal as they can be.

    The same seed gives nested samples: a smaller count is part of a larger one.
    """
    if not 1 <= count <= len(labels):
        raise CertiflowError(
            f"verification.samples is {count}: expected 1 to {len(labels)}, the test set's size"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = labels[order]
    rank = np.empty(len(labels), dtype=np.int64)  # how many of its class come before a point
    for label in np.unique(labels):
        members = np.flatnonzero(shuffled == label)
        rank[members] = np.arange(len(members))
    chosen = np.lexsort((np.arange(len(labels)), rank))[:count]
    return np.sort(order[chosen])
