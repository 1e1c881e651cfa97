"""Boxes of inputs: what attacks may move in, and proofs cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.core.arrays import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Box:
    """Boxes `lower <= x <= upper`, each of shape (batch, inputs), float64."""

    lower: FloatArray
    upper: FloatArray

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
