"""What is to be proved: boxes of inputs, and the outputs that must not be reached from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain


def adversary_classes(labels: ArrayLike, num_classes: int) -> IntArray:
    """Every class but the true one, ascending: shape (batch, num_classes - 1)."""
    column = np.asarray(labels, dtype=np.int64)[:, None]
    others = np.arange(num_classes - 1, dtype=np.int64)[None, :]
    return others + (others >= column)


def margin_rows(labels: ArrayLike, num_classes: int) -> FloatArray:
    """Rows C with `C @ logits` the margins: shape (batch, classes - 1, classes)."""
    true = np.asarray(labels, dtype=np.int64)
    rows = -np.eye(num_classes)[adversary_classes(true, num_classes)]
    np.put_along_axis(rows, true[:, None, None], 1.0, axis=2)
    return rows


@dataclass(frozen=True, eq=False)
class UnsafeRegion:
    """Inputs of one box whose outputs satisfy every row: `rows @ outputs + offsets <= 0`.

    `rows` has shape (m, outputs), `offsets` (m,), float64. For constraints that mix inputs and
    outputs, "outputs" are those of `ReluNetwork.with_inputs`.
    """

    box: Box
    rows: FloatArray
    offsets: FloatArray

    def excess(self, outputs: FloatArray) -> FloatArray:
        """The greatest row, shape (batch,): at most 0 exactly where the region is reached."""
        values: FloatArray = (outputs @ self.rows.T + self.offsets).max(axis=1)
        return values


@dataclass(frozen=True, eq=False)
class Property:
    """Holds (VNN-COMP `unsat`) when none of the unsafe regions is reached.

    With a `domain` only by its valid inputs: other points of the boxes do not count. Without a
    region it holds of every network, and `contradiction` says why no input is asked about.
    """

    unsafe: tuple[UnsafeRegion, ...]
    domain: Domain | None = None
    contradiction: str = ""

    @classmethod
    def robustness(
        cls, boxes: Box, label: int, num_classes: int, domain: Domain | None = None
    ) -> Property:
        """`label` wins strictly over all the boxes: of each a region per adversary class."""
        rows = margin_rows([label], num_classes)[0]
        regions = [
            UnsafeRegion(boxes[place : place + 1], row[None], np.zeros(1))
            for place in range(len(boxes))
            for row in rows
        ]
        return cls(tuple(regions), None if domain is None or domain.is_plain else domain)

    def by_box(self) -> list[list[int]]:
        """Places of the regions that share a box, box after box."""
        groups: dict[tuple[bytes, bytes], list[int]] = {}
        for place, region in enumerate(self.unsafe):
            key = (region.box.lower.tobytes(), region.box.upper.tobytes())
            groups.setdefault(key, []).append(place)
        return list(groups.values())

    @property
    def boxes(self) -> Box:
        """The boxes of the regions, each once."""
        pairs = {
            (box.lower.tobytes(), box.upper.tobytes()): box
            for box in (region.box for region in self.unsafe)
        }
        lower = [box.lower for box in pairs.values()]
        return Box(np.concatenate(lower), np.concatenate([b.upper for b in pairs.values()]))

    def compares_outputs(self, num_outputs: int) -> bool:
        """Whether all it asks is which of two outputs is greater: a softmax changes no answer."""
        return all(
            region.rows.shape[1] == num_outputs
            and not region.offsets.any()
            and not region.rows.sum(axis=1).any()
            and (np.count_nonzero(region.rows, axis=1) == 2).all()
            for region in self.unsafe
        )

    def is_of_labels(self, num_outputs: int) -> bool:
        """Whether it asks over each box that one output exceeds all others, and nothing else."""
        for places in self.by_box():
            rows = np.concatenate([self.unsafe[place].rows for place in places])
            if len(rows) != len(places) or rows.shape[1] != num_outputs:
                return False
            asked = rows / np.abs(rows).max(axis=1, keepdims=True) + 0.0  # no zero is negative
            expected = margin_rows([int(rows[0].argmax())], num_outputs)[0] + 0.0
            if {row.tobytes() for row in asked} != {row.tobytes() for row in expected}:
                return False
        return True

    @cached_property
    def sha256(self) -> str:
        """Digest of all numbers: two properties share it only when they are the same."""
        digest = hashlib.sha256()
        for region in self.unsafe:
            for array in (region.box.lower, region.box.upper, region.rows, region.offsets):
                digest.update(f"{array.dtype.str} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        if self.domain is not None:
            digest.update(self.domain.words().encode())
        return digest.hexdigest()


def margins(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.floating]:
    """True logit minus each other one: (batch, num_classes - 1), in `adversary_classes` order.

    A point is classified right when every margin is positive: a tie is wrong.
    """
    scores = np.asarray(logits)
    column = np.asarray(labels, dtype=np.int64)[:, None]
    others = adversary_classes(labels, scores.shape[1])
    true: NDArray[np.floating] = np.take_along_axis(scores, column, axis=1)
    return true - np.take_along_axis(scores, others, axis=1)
