"""What is to be proved: every point of an L-infinity ball keeps the true label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LinfBall:
    """Boxes `lower <= x <= upper`, each of shape (batch, inputs), float64.

    Balls around images are intersected with the pixel range [0, 1].
    """

    lower: FloatArray
    upper: FloatArray

    @classmethod
    def around(cls, images: ArrayLike, epsilon: float) -> LinfBall:
        """The balls of L-infinity radius `epsilon` around images of shape (batch, …)."""
        centers = np.asarray(images, dtype=np.float64)
        centers = centers.reshape(len(centers), int(np.prod(centers.shape[1:])))
        return cls(np.clip(centers - epsilon, 0, 1), np.clip(centers + epsilon, 0, 1))

    def __len__(self) -> int:
        return len(self.lower)

    def __getitem__(self, rows: slice | NDArray[np.bool_] | IntArray) -> LinfBall:
        return LinfBall(self.lower[rows], self.upper[rows])

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


def margins(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.floating]:
    """True logit minus each other one: (batch, num_classes - 1), in `adversary_classes` order.

    A point is classified right when every margin is positive: a tie is wrong.
    """
    scores = np.asarray(logits)
    column = np.asarray(labels, dtype=np.int64)[:, None]
    others = adversary_classes(labels, scores.shape[1])
    true: NDArray[np.floating] = np.take_along_axis(scores, column, axis=1)
    return true - np.take_along_axis(scores, others, axis=1)
