"""The passes in float32 by which choices are sought: bounds, their minimisers and gradients.

They only choose, so nothing here is rounded outwards and nothing proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import BoolArray, Float32Array
from tasks.core.bounds.choices import Choices
from tasks.core.bounds.input_planes import InputPlanes, Planes
from tasks.core.bounds.relaxations import ReluRelaxation
from tasks.core.bounds.subproblems import Subproblems
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box

LINE_COST = np.float32(1e-6)
LEAST_SCORE = np.float32(1e-30)  # so that every unstable unit comes before every other


@dataclass(frozen=True, eq=False)
class Backward:
    """A backward pass: bounds, their minimisers, coefficients of activations, slopes in use."""

    lower: Float32Array
    points: Float32Array
    sides: Float32Array
    coefficients: Float32Array
    slopes: Float32Array
    planes: Planes | None


@dataclass(frozen=True, eq=False)
class PassData:
    """A batch of subproblems and the upper lines of its relaxations."""

    rows: Float32Array
    offsets: Float32Array
    signs: Float32Array
    unstable: NDArray[np.bool_]
    upper_slopes: Float32Array
    intercepts: Float32Array


@dataclass(frozen=True, eq=False)
class Pass:
    """One evaluation: a backward pass and the gradients of its bounds by the choices."""

    backward: Backward
    gradient: Choices


class Passes:
    """Passes through a network over one box, or one for each subproblem.

    `layers` are its units' places, `planes` may be None.

    The arrays of a batch of subproblems are (batch, units of all hidden layers).
    """

    def __init__(
        self,
        network: ReluNetwork,
        box: Box,
        layers: Sequence[slice],
        linear: BoolArray,
        planes: InputPlanes | None,
    ) -> None:
        self.layers, self.linear, self.planes = layers, linear, planes
        self.matrices = [layer.matrix.single() for layer in network.layers]
        self.biases = [layer.bias.astype(np.float32) for layer in network.layers]
        self.center = ((box.lower + box.upper) / 2).astype(np.float32)
        self.radius = ((box.upper - box.lower) / 2).astype(np.float32)

    def without_chords(self, relaxation: ReluRelaxation, unstable: BoolArray) -> ReluRelaxation:
        """Upper lines of zero where a plane takes their place."""
        if self.planes is None:
            return relaxation
        upper_slope, intercept = relaxation.upper_slope.copy(), relaxation.upper_intercept.copy()
        at = self.layers[0]
        upper_slope[:, at][unstable[:, at]] = 0
        intercept[:, at][unstable[:, at]] = 0
        return replace(relaxation, upper_slope=upper_slope, upper_intercept=intercept)

    def data(self, problems: Subproblems, choices: Choices) -> tuple[PassData, Choices]:
        """In float32, and the choices with the slopes that are in use."""
        bounds = problems.bounds
        unstable = bounds.unstable(self.linear)
        relaxation = self.without_chords(ReluRelaxation.of(bounds, self.linear), unstable)
        slopes = np.where(unstable, choices.slopes, relaxation.lower_slope).astype(np.float32)
        data = PassData(
            problems.rows.astype(np.float32),
            problems.offsets.astype(np.float32),
            problems.signs.astype(np.float32),
            unstable,
            relaxation.upper_slope.astype(np.float32),
            relaxation.upper_intercept.astype(np.float32),
        )
        return data, replace(choices, slopes=slopes)

    def gradient(self, data: PassData, choices: Choices) -> Pass:
        """The bounds and, from its minimiser forwards, its gradients (Danskin's theorem)."""
        found = self.backward(data, choices)
        values, outputs, _ = self._forward(found, data, choices, found.points)
        gradient = Choices(
            np.maximum(found.coefficients, 0) * values * data.unstable,
            -data.signs * values,
            (data.rows @ outputs[:, :, None])[..., 0] + data.offsets,
            found.planes.sides if found.planes else choices.levels,
            found.sides if found.planes else choices.tilts,
        )
        return Pass(found, gradient)

    def backward(self, data: PassData, choices: Choices) -> Backward:
        """As `linear.backward_bounds`, with the choices and planes, and no rounding errors."""
        current = (choices.weights[:, None, :] @ data.rows)[:, 0]
        constant = (choices.weights * data.offsets).sum(axis=1)
        split_terms = data.signs * choices.multipliers
        coefficients, slopes = np.empty_like(choices.slopes), np.empty_like(choices.slopes)
        for index in range(len(self.layers), 0, -1):
            at = self.layers[index - 1]
            constant = constant + current @ self.biases[index]
            current = self.matrices[index].backward(current)
            coefficients[:, at] = current
            slopes[:, at] = np.where(current > 0, choices.slopes[:, at], data.upper_slopes[:, at])
            negative = np.minimum(current, 0)
            constant += (negative * data.intercepts[:, at]).sum(axis=1)
            current = current * slopes[:, at] - split_terms[:, at]
        constant = constant + current @ self.biases[0]
        current = self.matrices[0].backward(current)
        planes = None
        if self.planes is not None:
            planed = np.where(data.unstable[:, self.layers[0]], negative, 0)
            planes = self.planes.weighted(planed, choices.levels, choices.tilts)
            current += planes.rows
            constant += planes.constants
        sides = -np.copysign(np.float32(1), current)
        points = self.center + self.radius * sides
        lower = constant + np.einsum("bn,bn->b", current, points)
        return Backward(lower, points, sides, coefficients, slopes, planes)

    def _forward(
        self, found: Backward, data: PassData, choices: Choices, points: Float32Array
    ) -> tuple[Float32Array, Float32Array, Float32Array]:
        """At `points`: pre-activations, activations and outputs of the relaxed network.

        Each ReLU is the line or plane in use.
        """
        values, lines = np.empty_like(found.coefficients), np.empty_like(found.coefficients)
        activations = points
        for index, at in enumerate(self.layers):
            values[:, at] = self.matrices[index].forward(activations) + self.biases[index]
            upper_line = np.where(found.coefficients[:, at] > 0, 0, data.intercepts[:, at])
            activations = values[:, at] * found.slopes[:, at] + upper_line
            if index == 0 and self.planes is not None and found.planes is not None:
                used = data.unstable[:, at] & (found.coefficients[:, at] < 0)
                activations += self.planes.values(
                    found.planes, used, choices.levels, choices.tilts, points
                )
            lines[:, at] = activations
        return values, self.matrices[-1].forward(activations) + self.biases[-1], lines

    def scores(
        self, data: PassData, found: Backward, choices: Choices, mean_sides: Float32Array
    ) -> Float32Array:
        """What the upper lines and planes cost.

        For a chord that is BaBSR's main term (Bunel et al. 2020, "Branch and Bound for Piecewise
        Linear Neural Network Verification"); for a plane, how far it is above the ReLU where the
        last minimisers are on the average. A lower line costs nothing where its slope is optimal,
        so it counts only to break ties.
        """
        cost = np.where(found.coefficients < 0, -found.coefficients, LINE_COST)
        height = data.intercepts
        if self.planes is not None:
            points = self.center + self.radius * mean_sides
            values, _, lines = self._forward(found, data, choices, points)
            first = np.arange(len(self.linear)) < self.layers[0].stop
            height = np.where(first, np.abs(lines - np.maximum(values, 0)), height)
        return np.where(data.unstable, cost * height + LEAST_SCORE, 0)
