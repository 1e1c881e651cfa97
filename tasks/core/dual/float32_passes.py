"""The passes in float32 by which choices are sought: bounds, their minimisers and gradients.

They only choose, so nothing here is rounded outwards and nothing proved. Arrays are (units, batch)
of the units that the box leaves alive (see `live_layers`), those of a `Choices` as well: then its
multipliers are those of the units in `PassData.split` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import Float32Array, IntArray
from tasks.core.dual.choices import Choices
from tasks.core.dual.curve_choices import Lines
from tasks.core.dual.input_planes import Planes
from tasks.core.dual.live_layers import compiled, live_layers
from tasks.core.dual.pass_data import LiveUnits, PassData
from tasks.core.networks.network import ReluNetwork

LINE_COST = np.float32(1e-6)
LEAST_SCORE = np.float32(1e-30)  # so that every unstable unit comes before every other


@dataclass(frozen=True, eq=False)
class Backward:
    """A backward pass: bounds, their minimisers, and coefficients of activations.

    `lower` is (batch,), `points` and `sides` (inputs, batch). `lines` are the curved units' lower
    and upper ones.
    """

    lower: Float32Array
    points: Float32Array
    sides: Float32Array
    coefficients: Float32Array
    planes: Planes | None
    lines: tuple[Lines, Lines] | None


@dataclass(frozen=True, eq=False)
class Pass:
    """One evaluation: a backward pass and the gradients of its bounds by the choices."""

    backward: Backward
    gradient: Choices


class Passes:
    """Passes through a network between its live units."""

    def __init__(self, network: ReluNetwork, units: LiveUnits) -> None:
        self.units, self.layers, self.activation = units, units.layers, units.activation
        self.activations = units.activations
        self.network = live_layers(network, units.masks)

    def split_bounds(self, data: PassData, choices: Choices, units: IntArray) -> Float32Array:
        """Where each of some ReLUs, (batch, n), is split: (2, batch, n), z >= 0 first."""
        again = np.repeat(np.arange(len(units)), units.shape[1])
        data, choices = data.at(again), choices.at(again)
        flat, columns = units.ravel(), np.arange(units.size)
        data.open_relus[flat, columns], data.heights[flat, columns] = False, 0
        found = []
        for slope in (1, 0):
            data.upper_slopes[flat, columns] = choices.slopes[flat, columns] = slope
            found.append(self.backward(data, choices).lower.reshape(units.shape))
        return np.stack(found)

    def gradient(self, data: PassData, choices: Choices) -> Pass:
        """The bounds and, from its minimiser forwards, its gradients (Danskin's theorem)."""
        found = self.backward(data, choices)
        values, outputs, _ = self._forward(found, data, choices, found.points)
        positive = np.maximum(found.coefficients, 0)
        lower = positive * values
        lower *= data.open_relus
        upper = np.zeros_like(choices.uppers)
        if data.curves is not None and found.lines is not None:
            rises = [data.curves.rises(found.lines[0], values, 1)]
            rises.append(data.curves.rises(found.lines[1], values, -1))
            lower += positive * rises[0]
            upper = np.minimum(found.coefficients, 0) * rises[1]
        gradient = Choices(
            lower,
            -data.signs * (values[data.split] - data.points(choices)),
            np.einsum("bmo,ob->mb", data.rows, outputs) + data.offsets,
            found.planes.sides if found.planes else choices.levels,
            found.sides if found.planes else choices.tilts,
            upper,
        )
        return Pass(found, gradient)

    def backward(self, data: PassData, choices: Choices) -> Backward:
        """As `backward.backward_bounds`, with the choices and planes, and no rounding errors."""
        current = np.einsum("mb,bmo->ob", choices.weights, data.rows)
        constant = (choices.weights * data.offsets).sum(axis=0)
        terms = data.signs * choices.multipliers
        lower, upper, heights = choices.slopes, data.upper_slopes, data.heights
        lines = None
        if data.curves is not None:
            lines = data.curves.lines(lower, 1), data.curves.lines(choices.uppers, -1)
            curved = self.activation.curved[:, None]
            lower = np.where(curved, lines[0].slopes, lower)
            upper = np.where(curved, lines[1].slopes, upper)
            heights = np.where(curved, lines[1].heights, heights)
            constant = constant + (terms * data.points(choices)).sum(axis=0)
        coefficients = np.empty_like(choices.slopes)
        for index in range(len(self.layers), 0, -1):
            at, layer = self.layers[index - 1], self.network[index]
            constant += layer.bias @ current
            current = layer.backward(current)
            coefficients[at] = current
            if lines is not None:
                constant += (np.maximum(current, 0) * lines[0].heights[at]).sum(axis=0)
            after = np.empty_like(current)
            _through_units(current, lower[at], upper[at], heights[at], after, constant)
            self._add_splits(index - 1, data.split, terms, after)
            if lines is not None:
                self._add_partners(index - 1, lines, current, after)
            current = after
        constant += self.network[0].bias @ current
        current = self.network[0].backward(current)
        planes = None
        if data.planes is not None:
            first = self.layers[0]
            used = np.minimum(coefficients[first], 0) * data.open_relus[first]
            planes = data.planes.weighted(used, choices.levels, choices.tilts)
            current += planes.rows
            constant += planes.constants
        sides = -np.copysign(np.float32(1), current)
        points = data.center + data.radius * sides
        least = constant + np.einsum("nb,nb->b", current, points)
        return Backward(least, points, sides, coefficients, planes, lines)

    def _add_splits(
        self, layer: int, split: IntArray, terms: Float32Array, after: Float32Array
    ) -> None:
        """The terms of split units of a hidden layer."""
        at = self.layers[layer]
        some = slice(*np.searchsorted(split, (at.start, at.stop)).tolist())
        after[split[some] - at.start] -= terms[some]

    def _add_partners(
        self,
        layer: int,
        lines: tuple[Lines, Lines],
        coefficients: Float32Array,
        after: Float32Array,
    ) -> None:
        """What products' lines add to the coefficients of their partners."""
        at, activation = self.layers[layer], self.activations[layer]
        products = activation.products
        if len(products):
            own = coefficients[products]
            used = np.where(own > 0, *(each.partners[at][products] for each in lines))
            after += activation.at_partners((own * used).T).T

    def _forward(
        self, found: Backward, data: PassData, choices: Choices, points: Float32Array
    ) -> tuple[Float32Array, Float32Array, Float32Array]:
        """At `points`: pre-activations, activations and outputs of the relaxed network.

        Each ReLU is the line or plane in use.
        """
        values, results = np.empty_like(found.coefficients), np.empty_like(found.coefficients)
        lower, upper, heights = choices.slopes, data.upper_slopes, data.heights
        if found.lines is not None:
            curved = self.activation.curved[:, None]
            lower = np.where(curved, found.lines[0].slopes, lower)
            upper = np.where(curved, found.lines[1].slopes, upper)
        current = points
        for index, (at, layer) in enumerate(zip(self.layers, self.network, strict=False)):
            values[at] = layer.forward(current)
            _add(values[at], layer.bias)
            _lines_at(
                found.coefficients[at], values[at], lower[at], upper[at], heights[at], results[at]
            )
            current = results[at]
            if found.lines is not None:
                current += self._curved_parts(index, found, found.lines, values[at])
            if index == 0 and data.planes is not None and found.planes is not None:
                current += data.planes.values(found.planes, choices.levels, choices.tilts, points)
        last = self.network[-1]
        return values, last.forward(current) + last.bias[:, None], results

    def _curved_parts(
        self, layer: int, found: Backward, lines: tuple[Lines, Lines], values: Float32Array
    ) -> Float32Array:
        """Of curved units' lines all but the slopes: heights, and what products' partners add."""
        at, activation = self.layers[layer], self.activations[layer]
        below = found.coefficients[at] > 0
        result: Float32Array = np.where(below, *(each.heights[at] for each in lines))
        products = activation.products
        used = np.where(below, *(each.partners[at] for each in lines))[products]
        result[products] += used * values[activation.partners[products]]
        return result

    def scores(
        self, data: PassData, found: Backward, choices: Choices, mean_sides: Float32Array
    ) -> Float32Array:
        """What the upper lines and planes cost, (live units, batch).

        For a chord that is BaBSR's main term (Bunel et al. 2020, "Branch and Bound for Piecewise
        Linear Neural Network Verification"); for a plane, how far it is above the ReLU where the
        last minimisers are on the average. A lower line costs nothing where its slope is optimal,
        so it counts only to break ties.
        """
        cost = np.where(found.coefficients < 0, -found.coefficients, LINE_COST)
        heights = data.heights
        if data.planes is not None:
            points = data.center + data.radius * mean_sides
            values, _, results = self._forward(found, data, choices, points)
            first, heights = self.layers[0], heights.copy()
            heights[first] = np.abs(results[first] - np.maximum(values[first], 0))
        is_free = data.open_relus
        if found.lines is not None:
            gaps = np.where(found.coefficients > 0, *(each.gaps for each in found.lines))
            curved = self.activation.curved[:, None]
            own = np.where(curved, np.abs(found.coefficients) * gaps, cost * heights) + LEAST_SCORE
            result: Float32Array = np.where(is_free | curved, own, 0).astype(np.float32)
            products = self.activation.products
            for product, partner in zip(products, self.activation.partners[products], strict=True):
                result[partner] = np.maximum(result[partner], result[product])
            return result
        return np.where(is_free, cost * heights + LEAST_SCORE, 0)


@compiled
def _through_units(coefficients, lower, upper, heights, after, constant):  # type: ignore[no-untyped-def]
    """From after the activations to before them; `constant`, (batch,), gains the upper heights."""
    for unit in range(len(coefficients)):
        values, result = coefficients[unit], after[unit]
        low, high, height = lower[unit], upper[unit], heights[unit]
        for at in range(len(values)):
            positive, negative = max(values[at], np.float32(0)), min(values[at], np.float32(0))
            result[at] = positive * low[at] + negative * high[at]
            constant[at] += negative * height[at]


@compiled
def _add(values, bias):  # type: ignore[no-untyped-def]
    for unit in range(len(values)):
        row = values[unit]
        for at in range(len(row)):
            row[at] += bias[unit]


@compiled
def _lines_at(coefficients, values, lower, upper, heights, result):  # type: ignore[no-untyped-def]
    """The lower lines where coefficients are positive, the upper ones elsewhere."""
    for unit in range(len(coefficients)):
        some, z, found = coefficients[unit], values[unit], result[unit]
        low, high, height = lower[unit], upper[unit], heights[unit]
        for at in range(len(found)):
            below = some[at] > 0
            found[at] = z[at] * (low[at] if below else high[at]) + (
                np.float32(0) if below else height[at]
            )
