"""What a lower bound is free to choose: any choice gives a sound bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import Float32Array, IntArray


@dataclass(frozen=True, eq=False)
class Choices:
    """The choices of each subproblem of a batch, or the gradients of its bound by them.

    Attributes:
        slopes: lower slopes, (batch, units of all hidden layers).
        multipliers: of the splits' constraints, at least 0, the same shape; of units split by value
            negative ones belong to the constraint of the other side.
        weights: of a region's rows, (batch, rows), not negative, their sum 1.
        uppers: shares of upper slopes of curved units, the shape of `slopes`, or (batch, 0) where
            no unit is curved; their `slopes` are shares as well (see `curve_choices`).
        levels, tilts: of the planes over the inputs, (batch, first layer's units) and
            (batch, inputs), or (batch, 0) where there are no planes.
    """

    slopes: Float32Array
    multipliers: Float32Array
    weights: Float32Array
    levels: Float32Array
    tilts: Float32Array
    uppers: Float32Array

    def parts(self) -> list[Float32Array]:
        """The arrays, in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)]

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> Choices:
        return Choices(*(part[rows] for part in self.parts()))

    def at(self, columns: IntArray) -> Choices:
        """Of some subproblems, where arrays are (units, batch)."""
        return Choices(*(np.take(part, columns, axis=1) for part in self.parts()))


def joined(choices: Sequence[Choices]) -> Choices:
    """One batch after the other."""
    arrays = zip(*(some.parts() for some in choices), strict=True)
    return Choices(*(np.concatenate(parts) for parts in arrays))
