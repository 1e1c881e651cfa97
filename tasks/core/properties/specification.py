"""What is to be proved: boxes of inputs, and the outputs that must not be reached from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.core.arrays import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Box:
    """Boxes `lower <= x <= upper`, each of shape (batch, inputs), float64.

    Balls around images are intersected with the pixel range [0, 1].
    """

    lower: FloatArray
    upper: FloatArray

    @classmethod
    def around(cls, images: ArrayLike, epsilon: float) -> Box:
        """The balls of L-infinity radius `epsilon` around images of shape (batch, …)."""
        centers = np.asarray(images, dtype=np.float64)
        centers = centers.reshape(len(centers), int(np.prod(centers.shape[1:])))
        return cls(np.clip(centers - epsilon, 0, 1), np.clip(centers + epsilon, 0, 1))

    def __len__(self) -> int:
        return len(self.lower)

    def __getitem__(self, rows: slice | NDArray[np.bool_] | IntArray) -> Box:
        return Box(self.lower[rows], self.upper[rows])

    def float32_bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The extreme float32 points inside the balls: bounds rounded inwards.

        Rounded to nearest, `x + epsilon` can lie outside the ball by half a unit in the last place.
        The centers must be float32 numbers, so that no box is empty.
        """
        lower, upper = self.lower.astype(np.float32), self.upper.astype(np.float32)
        lower = np.where(lower < self.lower, np.nextafter(lower, np.float32(np.inf)), lower)
        upper = np.where(upper > self.upper, np.nextafter(upper, np.float32(-np.inf)), upper)
        return lower, upper

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Whether each point, shape (batch, …), lies in its ball, compared in float64."""
        flat = np.asarray(points, dtype=np.float64).reshape(self.lower.shape)
        return np.all((flat >= self.lower) & (flat <= self.upper), axis=1)


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
    """Holds (VNN-COMP `unsat`) when none of the unsafe regions is reached."""

    unsafe: tuple[UnsafeRegion, ...]

    @classmethod
    def robustness(cls, ball: Box, label: int, num_classes: int) -> Property:
        """`label` wins strictly over the whole `ball` (one box): a region per adversary class."""
        rows = margin_rows([label], num_classes)[0]
        return cls(tuple(UnsafeRegion(ball, row[None], np.zeros(1)) for row in rows))

    @property
    def boxes(self) -> Box:
        """The boxes of the regions, each once."""
        pairs = {
            (box.lower.tobytes(), box.upper.tobytes()): box
            for box in (region.box for region in self.unsafe)
        }
        lower = [box.lower for box in pairs.values()]
        return Box(np.concatenate(lower), np.concatenate([b.upper for b in pairs.values()]))

    @cached_property
    def sha256(self) -> str:
        """Digest of all numbers: two properties share it only when they are the same."""
        digest = hashlib.sha256()
        for region in self.unsafe:
            for array in (region.box.lower, region.box.upper, region.rows, region.offsets):
                digest.update(repr(array.shape).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
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
