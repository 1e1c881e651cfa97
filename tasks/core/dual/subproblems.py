"""What dual bounds are asked of: regions of one box with ReLUs split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import FloatArray
from tasks.core.bounds.relaxations import Bounds
from tasks.core.networks.activation import Activation

SignArray = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Subproblems:
    """A batch of regions with splits, all in the problem's box.

    Attributes:
        rows, offsets: (batch, m, outputs) and (batch, m): unsafe is `rows @ y + offsets <= 0`.
        signs: (batch, units of all hidden layers): 1 where z >= 0 is assumed, -1 where z <= 0, 0
            where the unit is not split; a batch of 1 serves all. Of units that may be split
            anywhere (see `split_points`) the assumption is of z - p instead of z.
        bounds: of all hidden layers' units, (batch, units), where the splits hold; likewise.
    """

    rows: FloatArray
    offsets: FloatArray
    signs: SignArray
    bounds: Bounds

    def split_points(self, activation: Activation, terms: NDArray[Any]) -> FloatArray:
        """The p of the constraint that a multiplier times its sign, `terms`, belongs to.

        Of ReLUs 0. Units that are split by value lie between two bounds once they are split: a
        positive term is that of z >= lower, a negative one that of z <= upper.
        """
        ends = np.where(terms > 0, self.bounds.lower, self.bounds.upper)
        return np.where(activation.movable & (self.signs != 0), ends, 0.0)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> Subproblems:
        signs = self.signs if len(self.signs) == 1 else self.signs[rows]
        bounds = self.bounds if len(self.bounds.lower) == 1 else self.bounds[rows]
        return Subproblems(self.rows[rows], self.offsets[rows], signs, bounds)
