"""A network over a box in the scaled variables that Marabou is asked about.

Inputs are x = c + r·u with u in [-1, 1], a neuron with bounds [l, h] becomes z / (h - l), so that
no range is tiny. A neuron that cannot be positive is dropped, one that cannot be negative is
linear, and one that is barely unstable is replaced by a free variable that over-approximates it.
`marabou` says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import BoolArray, FloatArray
from tasks.core.bounds.relaxations import Bounds
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box

BARELY_UNSTABLE = 1e-3  # of a neuron's range; a hundred times Marabou's bound tolerance


@dataclass
class Encoding:
    """Variables with their bounds, equations and ReLUs, and the activations as maps of them.

    `coefficients` (units, variables) and `constants` (units,) describe the layer reached so far.
    """

    coefficients: FloatArray
    constants: FloatArray
    lower: list[float]
    upper: list[float]
    center: FloatArray
    radius: FloatArray
    free_inputs: NDArray[np.intp]
    equations: list[tuple[FloatArray, float, int]] = field(default_factory=list)
    relus: list[tuple[int, int]] = field(default_factory=list)
    slacks: list[int] = field(default_factory=list)  # marked as inputs, else Marabou fails

    @classmethod
    def build(cls, network: ReluNetwork, box: Box, hidden: list[Bounds]) -> Self:
        center = (box.lower[0] + box.upper[0]) / 2
        radius = (box.upper[0] - box.lower[0]) / 2
        free = np.flatnonzero(radius > 0)
        first = network.layers[0]
        query = cls(
            coefficients=first.matrix.forward(np.diag(radius)[free]).T,
            constants=first(center[None])[0],
            lower=[-1.0] * len(free),
            upper=[1.0] * len(free),
            center=center,
            radius=radius,
            free_inputs=free,
        )
        for layer, linear, bounds in zip(network.layers[1:], network.linear, hidden, strict=True):
            query._apply_relu(bounds.lower[0], bounds.upper[0], linear)
            query.constants = layer(query.constants[None])[0]
            query.coefficients = layer.matrix.forward(query.coefficients.T).T
        return query

    def _apply_relu(self, lower: FloatArray, upper: FloatArray, linear: BoolArray) -> None:
        """Replaces pre-activations by their ReLUs, exactly but for barely unstable units."""
        span = upper - lower
        dead = (upper <= 0) & ~linear
        unstable = (lower < 0) & (upper > 0) & ~linear
        barely_positive = unstable & (upper < BARELY_UNSTABLE * span)
        barely_negative = unstable & ~barely_positive & (-lower < BARELY_UNSTABLE * span)
        exact = unstable & ~barely_positive & ~barely_negative
        self._add_exact_relus(np.flatnonzero(exact), lower, upper)
        constant = dead | barely_positive
        self.coefficients[constant] = 0
        self.constants[constant] = 0
        for unit in np.flatnonzero(barely_positive):  # relu(z) in [0, h]
            self._add_slack(int(unit), upper[unit])
        for unit in np.flatnonzero(barely_negative):  # relu(z) - z in [0, -l]
            self._add_slack(int(unit), -lower[unit])

    def _add_exact_relus(
        self, units: NDArray[np.intp], lower: FloatArray, upper: FloatArray
    ) -> None:
        for unit in units:
            scale = upper[unit] - lower[unit]
            before = self._new_variable(lower[unit] / scale, upper[unit] / scale)
            after = self._new_variable(0.0, upper[unit] / scale)
            row = self.coefficients[unit] / scale
            self.equations.append((row.copy(), -self.constants[unit] / scale, before))
            self.relus.append((before, after))
        self._widen()
        for unit, (_, after) in zip(units, self.relus[len(self.relus) - len(units) :], strict=True):
            self.coefficients[unit] = 0
            self.constants[unit] = 0
            self.coefficients[unit, after] = upper[unit] - lower[unit]

    def _add_slack(self, unit: int, size: float) -> None:
        variable = self._new_variable(0.0, 1.0)
        self.slacks.append(variable)
        self._widen()
        self.coefficients[unit, variable] = size

    def _new_variable(self, lower: float, upper: float) -> int:
        self.lower.append(float(lower))
        self.upper.append(float(upper))
        return len(self.lower) - 1

    def _widen(self) -> None:
        missing = len(self.lower) - self.coefficients.shape[1]
        self.coefficients = np.pad(self.coefficients, ((0, 0), (0, missing)))
