"""Boxes of inputs: what attacks may move in, and proofs cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.core.arrays import FloatArray, IntArray

NORM_ROUNDING = 2.0**-40  # relative, of a norm over fewer than thousands of inputs


@dataclass(frozen=True, eq=False)
class Box:
    """Boxes `lower <= x <= upper`, each of shape (batch, inputs), float64."""

    lower: FloatArray
    upper: FloatArray

    def __len__(self) -> int:
        return len(self.lower)

    def __getitem__(self, rows: slice | NDArray[np.bool_] | IntArray) -> Box:
        return Box(self.lower[rows], self.upper[rows])

    def at(self, boxes: IntArray, columns: IntArray) -> Box:
        """The inputs `columns`, (n, s), of `boxes`, (n,); a batch of 1 is for all."""
        rows = boxes[:, None] % len(self)
        return Box(self.lower[rows, columns], self.upper[rows, columns])

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


@dataclass(frozen=True, eq=False)
class Ellipsoid(Box):
    """The points of each box within an L2 distance: `|(x - center) / scales|_2 <= radius`.

    Linear bounds take the better of the box and the dual norm; all else sees the box around it.

    Attributes:
        center: (batch, inputs), inside the boxes.
        scales: (inputs,), or of each box; an input of scale 0 stays where the center has it.
    """

    center: FloatArray
    scales: FloatArray
    radius: float

    @classmethod
    def within(cls, box: Box, center: FloatArray, scales: FloatArray, radius: float) -> Ellipsoid:
        """What of boxes lies within the distance."""
        reach = np.nextafter(radius * scales, np.inf) * (scales > 0)
        lower = np.maximum(box.lower, np.nextafter(center - reach, -np.inf))
        upper = np.minimum(box.upper, np.nextafter(center + reach, np.inf))
        still = scales == 0
        lower, upper = np.where(still, center, lower), np.where(still, center, upper)
        return cls(lower, upper, center, scales, radius)

    def __getitem__(self, rows: slice | NDArray[np.bool_] | IntArray) -> Ellipsoid:
        scales = self.scales if self.scales.ndim == 1 else self.scales[rows]
        return Ellipsoid(self.lower[rows], self.upper[rows], self.center[rows], scales, self.radius)

    def at(self, boxes: IntArray, columns: IntArray) -> Ellipsoid:
        box, places = super().at(boxes, columns), boxes[:, None] % len(self)
        scales = np.broadcast_to(self.scales, self.center.shape)[places, columns]
        center = self.center[places, columns]
        return Ellipsoid(box.lower, box.upper, center, scales, self.radius)

    def least(self, scaled: FloatArray) -> FloatArray:
        """A lower bound on `coefficients @ (x - center)`, from them times `scales`: (n, inputs).

        -radius |coefficients * scales|_2, by Cauchy and Schwarz, less rounding: (n,).
        """
        most = np.abs(scaled).max(axis=1, initial=0)  # of parts of it squares are no underflow
        most = np.where(most > 0, most, 1.0)
        norms = np.linalg.norm(scaled / most[:, None], axis=1)
        return -self.radius * most * norms * (1 + NORM_ROUNDING)
