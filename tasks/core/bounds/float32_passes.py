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
from tasks.core.bounds.curve_choices import CurveTables, Lines
from tasks.core.bounds.input_planes import InputPlanes, Planes
from tasks.core.bounds.relaxations import Bounds, Relaxation
from tasks.core.bounds.subproblems import Subproblems
from tasks.core.networks.activation import Activation
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box

LINE_COST = np.float32(1e-6)
LEAST_SCORE = np.float32(1e-30)  # so that every unstable unit comes before every other


@dataclass(frozen=True, eq=False)
class Backward:
    """A backward pass: bounds, their minimisers, coefficients of activations, slopes in use.

    `lines` are the curved units' lower and upper ones.
    """

    lower: Float32Array
    points: Float32Array
    sides: Float32Array
    coefficients: Float32Array
    slopes: Float32Array
    planes: Planes | None
    lines: tuple[Lines, Lines] | None


@dataclass(frozen=True, eq=False)
class PassData:
    """A batch of subproblems and the upper lines of its relaxations.

    `open_relus` marks those whose lines are free; `curves` are None where no unit is curved. Of
    units that are split by value, `sides` are the bounds.
    """

    rows: Float32Array
    offsets: Float32Array
    signs: Float32Array
    unstable: NDArray[np.bool_]
    open_relus: NDArray[np.bool_]
    upper_slopes: Float32Array
    intercepts: Float32Array
    sides: tuple[Float32Array, Float32Array]
    curves: CurveTables | None

    def points(self, choices: Choices) -> Float32Array:
        """The p of each unit's constraint; see `Subproblems.split_points`."""
        terms = self.signs * choices.multipliers
        return np.where(np.where(terms == 0, self.signs, terms) > 0, *self.sides)


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
        activation: Activation,
        planes: InputPlanes | None,
    ) -> None:
        self.layers, self.activation, self.planes = layers, activation, planes
        self.network_activations = network.activations
        self.matrices = [layer.matrix.single() for layer in network.layers]
        self.biases = [layer.bias.astype(np.float32) for layer in network.layers]
        self.center = ((box.lower + box.upper) / 2).astype(np.float32)
        self.radius = ((box.upper - box.lower) / 2).astype(np.float32)

    def without_chords(self, relaxation: Relaxation, unstable: BoolArray) -> Relaxation:
        """Upper lines of zero where a plane takes their place."""
        if self.planes is None:
            return relaxation
        upper_slope, intercept = relaxation.upper_slope.copy(), relaxation.upper_intercept.copy()
        at = self.layers[0]
        upper_slope[:, at][unstable[:, at]] = 0
        intercept[:, at][unstable[:, at]] = 0
        return replace(relaxation, upper_slope=upper_slope, upper_intercept=intercept)

    def open_relus(self, bounds: Bounds) -> BoolArray:
        """The ReLUs that may change phase, (batch, units)."""
        unstable = bounds.unstable(self.activation)
        return unstable & ~self.activation.curved if self.activation.is_curved else unstable

    def data(self, problems: Subproblems, choices: Choices) -> tuple[PassData, Choices]:
        """In float32, and the choices with the slopes that are in use."""
        bounds = problems.bounds
        activation, unstable = self.activation, self.open_relus(bounds)
        relaxation = self.without_chords(Relaxation.of_relus(bounds, activation), unstable)
        is_free = unstable | activation.curved
        slopes = np.where(is_free, choices.slopes, relaxation.lower_slope).astype(np.float32)
        is_curved = activation.is_curved
        sides = [np.zeros((1, 1))] * 2
        if is_curved:
            ones = np.ones_like(slopes)
            sides = [problems.split_points(activation, side * ones) for side in (1, -1)]
        data = PassData(
            problems.rows.astype(np.float32),
            problems.offsets.astype(np.float32),
            problems.signs.astype(np.float32),
            is_free,
            unstable,
            relaxation.upper_slope.astype(np.float32),
            np.where(activation.curved, 0, relaxation.upper_intercept).astype(np.float32),
            (sides[0].astype(np.float32), sides[1].astype(np.float32)),
            CurveTables(bounds, activation) if is_curved else None,
        )
        return data, replace(choices, slopes=slopes)

    def gradient(self, data: PassData, choices: Choices) -> Pass:
        """The bounds and, from its minimiser forwards, its gradients (Danskin's theorem)."""
        found = self.backward(data, choices)
        values, outputs, _ = self._forward(found, data, choices, found.points)
        lower = np.maximum(found.coefficients, 0) * values * data.open_relus
        upper = np.zeros_like(choices.uppers)
        if data.curves is not None and found.lines is not None:
            rises = [data.curves.rises(found.lines[0], values, 1)]
            rises.append(data.curves.rises(found.lines[1], values, -1))
            lower += np.maximum(found.coefficients, 0) * rises[0]
            upper = np.minimum(found.coefficients, 0) * rises[1]
        gradient = Choices(
            lower,
            -data.signs * (values - data.points(choices)),
            (data.rows @ outputs[:, :, None])[..., 0] + data.offsets,
            found.planes.sides if found.planes else choices.levels,
            found.sides if found.planes else choices.tilts,
            upper,
        )
        return Pass(found, gradient)

    def backward(self, data: PassData, choices: Choices) -> Backward:
        """As `backward.backward_bounds`, with the choices and planes, and no rounding errors."""
        current = (choices.weights[:, None, :] @ data.rows)[:, 0]
        constant = (choices.weights * data.offsets).sum(axis=1)
        split_terms = data.signs * choices.multipliers
        coefficients, slopes = np.empty_like(choices.slopes), np.empty_like(choices.slopes)
        lower, upper, intercepts = choices.slopes, data.upper_slopes, data.intercepts
        lines = None
        if data.curves is not None:
            lines = data.curves.lines(lower, 1), data.curves.lines(choices.uppers, -1)
            curved = self.activation.curved
            lower = np.where(curved, lines[0].slopes, lower)
            upper = np.where(curved, lines[1].slopes, upper)
            intercepts = np.where(curved, lines[1].heights, intercepts)
            constant = constant + (split_terms * data.points(choices)).sum(axis=1)
        for index in range(len(self.layers), 0, -1):
            at = self.layers[index - 1]
            constant = constant + current @ self.biases[index]
            current = self.matrices[index].backward(current)
            coefficients[:, at] = current
            slopes[:, at] = np.where(current > 0, lower[:, at], upper[:, at])
            negative = np.minimum(current, 0)
            constant += (negative * intercepts[:, at]).sum(axis=1)
            if lines is not None:
                constant += (np.maximum(current, 0) * lines[0].heights[:, at]).sum(axis=1)
            added = current
            current = current * slopes[:, at] - split_terms[:, at]
            if lines is not None:
                self._add_partners(index - 1, lines, added, current)
        constant = constant + current @ self.biases[0]
        current = self.matrices[0].backward(current)
        planes = None
        if self.planes is not None:
            planed = np.where(data.open_relus[:, self.layers[0]], negative, 0)
            planes = self.planes.weighted(planed, choices.levels, choices.tilts)
            current += planes.rows
            constant += planes.constants
        sides = -np.copysign(np.float32(1), current)
        points = self.center + self.radius * sides
        least = constant + np.einsum("bn,bn->b", current, points)
        return Backward(least, points, sides, coefficients, slopes, planes, lines)

    def _add_partners(
        self,
        layer: int,
        lines: tuple[Lines, Lines],
        coefficients: Float32Array,
        current: Float32Array,
    ) -> None:
        """What products' lines add to the coefficients of their partners."""
        at, activation = self.layers[layer], self.network_activations[layer]
        products = activation.products
        if len(products):
            own = coefficients[:, products]
            used = np.where(own > 0, *(each.partners[:, at][:, products] for each in lines))
            current += activation.at_partners(own * used)

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
            if found.lines is not None:
                activations += self._curved_parts(index, found, found.lines, values[:, at])
            if index == 0 and self.planes is not None and found.planes is not None:
                used = data.open_relus[:, at] & (found.coefficients[:, at] < 0)
                activations += self.planes.values(
                    found.planes, used, choices.levels, choices.tilts, points
                )
            lines[:, at] = activations
        return values, self.matrices[-1].forward(activations) + self.biases[-1], lines

    def _curved_parts(
        self, layer: int, found: Backward, lines: tuple[Lines, Lines], values: Float32Array
    ) -> Float32Array:
        """Of curved units' lines all but the slopes: heights, and what products' partners add."""
        at, activation = self.layers[layer], self.network_activations[layer]
        below = found.coefficients[:, at] > 0
        result: Float32Array = np.where(below, *(each.heights[:, at] for each in lines))
        products = activation.products
        used = np.where(below, *(each.partners[:, at] for each in lines))[:, products]
        result[:, products] += used * values[:, activation.partners[products]]
        return result

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
            first = np.arange(len(self.activation)) < self.layers[0].stop
            height = np.where(first, np.abs(lines - np.maximum(values, 0)), height)
        if found.lines is not None:
            gaps = np.where(found.coefficients > 0, *(each.gaps for each in found.lines))
            curved = self.activation.curved
            own = np.where(curved, np.abs(found.coefficients) * gaps, cost * height) + LEAST_SCORE
            result: Float32Array = np.where(data.unstable, own, 0).astype(np.float32)
            products = self.activation.products
            for product, partner in zip(products, self.activation.partners[products], strict=True):
                result[:, partner] = np.maximum(result[:, partner], result[:, product])
            return result
        return np.where(data.unstable, cost * height + LEAST_SCORE, 0)
