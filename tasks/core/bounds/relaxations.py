"""Bounds of a layer's values, and the lines between which its activation runs over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.core.arrays import BoolArray, FloatArray
from tasks.core.properties.box import Box


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds `lower <= z <= upper` on one affine layer's outputs, each (batch, units)."""

    lower: FloatArray
    upper: FloatArray

    @property
    def magnitude(self) -> FloatArray:
        """The greatest absolute value within, shape (batch, units)."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))

    def __getitem__(self, rows: Any) -> Bounds:
        return Bounds(self.lower[rows], self.upper[rows])

    def intersected(self, other: Bounds) -> Bounds:
        """Both at once."""
        return Bounds(np.maximum(self.lower, other.lower), np.minimum(self.upper, other.upper))

    def unstable(self, linear: BoolArray) -> BoolArray:
        """Units whose ReLU is not shown to be the identity or zero, shape (batch, units).

        NaN shows nothing: such a unit gets NaN lines, and what depends on them is not proved.
        """
        return ~((self.lower >= 0) | (self.upper <= 0) | linear)


@dataclass(frozen=True, eq=False)
class ReluRelaxation:
    """Lines around the activation of z in [lower, upper], elementwise.

    `lower_slope * z <= relu(z) <= upper_slope * z + upper_intercept` (Zhang et al. 2018, "Efficient
    Neural Network Robustness Certification with General Activation Functions"). Any lower slope
    from 0 to 1 is sound; `of` takes the one of 0 and 1 whose triangle is smaller.
    """

    lower_slope: FloatArray
    upper_slope: FloatArray
    upper_intercept: FloatArray

    def __getitem__(self, rows: Any) -> ReluRelaxation:
        return ReluRelaxation(
            self.lower_slope[rows], self.upper_slope[rows], self.upper_intercept[rows]
        )

    @classmethod
    def of(cls, bounds: Bounds, linear: BoolArray) -> ReluRelaxation:
        """`linear` marks units that pass unchanged."""
        lower, upper = bounds.lower, bounds.upper
        unstable = bounds.unstable(linear)
        active = ((lower >= 0) | linear).astype(lower.dtype)
        with np.errstate(invalid="ignore"):  # of infinite bounds: NaN
            chord = upper / np.where(unstable, upper - lower, 1)
            return cls(
                lower_slope=np.where(unstable, (upper > -lower).astype(lower.dtype), active),
                upper_slope=np.where(unstable, chord, active),
                upper_intercept=np.where(unstable, -chord * lower, 0),
            )


def activation_box(bounds: Bounds, linear: BoolArray) -> Box:
    """What the activation makes of the bounds."""
    return Box(
        np.where(linear, bounds.lower, np.maximum(bounds.lower, 0)),
        np.where(linear, bounds.upper, np.maximum(bounds.upper, 0)),
    )
