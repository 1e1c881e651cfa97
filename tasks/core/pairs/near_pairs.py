"""Pairs of inputs that differ in some columns only, by a bounded change in each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import ROUNDING


@dataclass(frozen=True, eq=False)
class NearPairs:
    """All pairs x, y = x + d of inputs in one box, as points (x, d), (inputs + columns,).

    Attributes:
        box: that both inputs lie in.
        columns: of the inputs in which they may differ, ascending; d has a place for each.
        least, most: of d, (columns,).
        domain: says which points are inputs.

    Raises:
        CertiflowError: it is not one box of inputs.
    """

    box: Box
    columns: IntArray
    least: FloatArray
    most: FloatArray
    domain: Domain

    def __post_init__(self) -> None:
        box, inputs = self.box, self.domain.num_inputs
        if box.lower.shape != (1, inputs) or (box.lower > box.upper).any():
            raise CertiflowError(
                f"the domain has shape {box.lower.shape}: expected one box of {inputs} inputs, its "
                "lower bounds not above its upper ones"
            )

    @classmethod
    def within(cls, box: Box, delta: FloatArray, domain: Domain) -> NearPairs:
        """At most `delta`, (inputs,), apart in each input; whole numbers by whole numbers.

        Raises `CertiflowError` when a delta is not a number that is not negative, or when no input
        can differ.
        """
        if not (delta >= 0).all():
            raise CertiflowError(
                f"delta is {delta.min():g}: expected numbers that are not negative"
            )
        most = np.where(domain.whole, np.floor(delta * (1 + ROUNDING)), delta)
        columns = np.flatnonzero((most > 0) & (box.lower < box.upper).all(axis=0))
        if len(columns) == 0:
            raise CertiflowError(
                f"within delta no two {domain.noun}s of the domain differ: choose a greater delta "
                "or a greater domain"
            )
        return cls(box, columns, -most[columns], most[columns], domain)

    def contains(self, first: FloatArray, second: FloatArray) -> bool:
        """Whether two inputs, (inputs,) each, are one of the pairs."""
        both, change = np.stack([first, second]), second - first
        elsewhere = np.delete(change, self.columns)
        near = (self.least <= change[self.columns]) & (change[self.columns] <= self.most)
        inside = ((both >= self.box.lower) & (both <= self.box.upper)).all()
        return bool(
            inside and near.all() and not elsewhere.any() and self.domain.contains(both).all()
        )

    @cached_property
    def points(self) -> Box:
        """The box of (x, d)."""
        return Box(
            np.hstack([self.box.lower, self.least[None]]),
            np.hstack([self.box.upper, self.most[None]]),
        )

    @cached_property
    def widened(self) -> Box:
        """A box that holds x + d for every point (x, d) in exact arithmetic, and every x."""
        lower, upper = self.box.lower.copy(), self.box.upper.copy()
        lower[:, self.columns] += np.minimum(self.least, 0)
        upper[:, self.columns] += np.maximum(self.most, 0)
        return Box(np.nextafter(lower, -np.inf), np.nextafter(upper, np.inf))

    @cached_property
    def valid(self) -> Domain | None:
        """Which points (x, d) are pairs of inputs, for searches; None where all of the box are.

        It leaves out none whose x and x + d are in the domain.
        """
        if self.domain.is_plain:
            return None
        changes = [
            Feature(
                name=f"change of input {column}",
                kind="integer" if is_whole else "real",
                lower=np.floor(least),
                upper=np.ceil(most),
            )
            for column, is_whole, least, most in zip(
                self.columns.tolist(),
                self.domain.whole[self.columns],
                self.least,
                self.most,
                strict=True,
            )
        ]
        relations = [
            relation.after(matrix)
            for relation in self.domain.relations
            for matrix in (self._first, self._second)
        ]
        return Domain((self._first.shape[1],), (*self.domain.features, *changes), tuple(relations))

    @cached_property
    def sha256(self) -> str:
        """Digest of all that says which pairs these are."""
        digest = hashlib.sha256(f"near pairs {self.domain.shape} {self.domain.words()}".encode())
        for array in (self.box.lower, self.box.upper, self.columns, self.least, self.most):
            digest.update(f" {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def _first(self) -> FloatArray:
        """x of a point (x, d), (inputs, inputs + columns)."""
        return np.eye(self.domain.num_inputs, self.points.lower.shape[1])

    @property
    def _second(self) -> FloatArray:
        """x + d."""
        matrix = self._first
        matrix[self.columns, np.arange(self.domain.num_inputs, matrix.shape[1])] = 1
        return matrix


def near_pairs(data: Dataset, domain_radius: float, delta: float) -> NearPairs:
    """Around the typical input, anywhere in its neighbourhood, delta apart in what is mutable.

    Both radii are in the scales of the data's perturbation. A feature of one direction may be the
    greater one in either input; a reference, which a model's number is held against, is no input.
    Raises `CertiflowError` when no two inputs differ.
    """
    perturbation = data.perturbation
    box = perturbation.neighbourhood(data.typical_input[None], domain_radius)
    moves = delta * np.maximum(perturbation.down, perturbation.up)
    each = np.broadcast_to(moves, perturbation.domain.num_inputs)
    domain, size = data.model_domain, data.model_domain.num_inputs
    return NearPairs.within(Box(box.lower[:, :size], box.upper[:, :size]), each[:size], domain)
