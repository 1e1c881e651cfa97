"""What a dataset is, and samples of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from tasks.core.arrays import Float32Array, IntArray
from tasks.core.data.completion import Completions
from tasks.core.errors import CertiflowError
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation


@dataclass(frozen=True)
class Extent:
    """How much a dataset holds: what a model, its training and a sample of the test set must fit.

    `input_shape` and `num_outputs` are a model's: an output for each class, or one number.
    `positive` is the class whose recall counts.
    """

    input_shape: tuple[int, ...]
    num_outputs: int
    test_size: int
    positive: int | None = None


@dataclass(frozen=True)
class DataCard:
    """Whose the data are, on what terms they may be used, and what was done to them in reading."""

    licence: str = ""
    citation: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs, float32, shape (n, *shape), and labels, int64, shape (n,), of named classes.

    All inputs are valid in the perturbation's domain, but for relations, which data may break.
    `positive` is the class whose recall counts, such as the phishing page that must be detected.

    Where the target is a number, `tolerance` says how near to it a model's output must be. The last
    input of a row is then the `reference`, which the output is held against and nobody can change;
    all labels are 0, the first of the classes within, too high and too low.

    `completions` stand where a table's cells are empty; of a feature without, none may be.
    """

    name: str
    train_inputs: Float32Array
    train_labels: IntArray
    test_inputs: Float32Array
    test_labels: IntArray
    class_names: tuple[str, ...]
    perturbation: Perturbation
    positive: int | None = None
    card: DataCard = DataCard()
    tolerance: float | None = None
    completions: Completions = field(default_factory=dict)

    @classmethod
    def of_images(
        cls,
        name: str,
        train: tuple[Float32Array, IntArray],
        test: tuple[Float32Array, IntArray],
        class_names: tuple[str, ...] = (),
        positive: int | None = None,
        card: DataCard = DataCard(),
    ) -> Dataset:
        """Images and labels, pixels in [0, 1]; classes without names are called by their number."""
        shape = train[0].shape[1:]
        numbers = tuple(str(label) for label in range(int(train[1].max()) + 1))
        names, perturbation = class_names or numbers, Perturbation.of_images(shape)
        return cls(name, *train, *test, names, perturbation, positive, card)

    @property
    def domain(self) -> Domain:
        return self.perturbation.domain

    @cached_property
    def typical_input(self) -> Float32Array:
        """The mean training input, of one input's shape.

        Of a table whole numbers are rounded, and categories the most frequent ones.
        """
        rows = self.train_inputs.reshape(len(self.train_inputs), -1)
        typical = self.domain.nearest(rows.mean(axis=0, dtype=np.float64))
        for _, columns in self.domain.groups:
            counts = rows[:, columns].sum(axis=0)
            typical[columns] = np.eye(len(counts))[counts.argmax()]
        return typical.astype(np.float32).reshape(self.input_shape)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.test_inputs.shape[1:]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def extent(self) -> Extent:
        count = len(self.test_labels)
        if self.tolerance is None:
            return Extent(self.input_shape, self.num_classes, count, self.positive)
        return Extent((self.input_shape[0] - 1,), 1, count)

    @property
    def reference(self) -> Feature | None:
        """The feature of a table that a model's number is held against, if there is one."""
        return None if self.tolerance is None else self.domain.features[-1]

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features of a table that a model takes."""
        features = self.domain.features
        return features if self.tolerance is None else features[:-1]

    @property
    def model_domain(self) -> Domain:
        """The valid inputs of a model: without the reference, which is none of them."""
        if self.reference is None:
            return self.domain
        size = self.domain.num_inputs
        taken = np.eye(size, size - 1)
        relations = tuple(relation.after(taken) for relation in self.domain.relations)
        return Domain((size - 1,), self.features, relations)

    @cached_property
    def sha256(self) -> str:
        """Digest of all inputs and labels with their shapes, and of what is asked of a table."""
        digest = hashlib.sha256()
        if self.tolerance is not None:
            digest.update(f"tolerance {self.tolerance!r} ".encode())
        if self.domain.is_table:
            digest.update(self.perturbation.sha256.encode())
        parts = (self.train_inputs, self.train_labels, self.test_inputs, self.test_labels)
        for array in parts:
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


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
