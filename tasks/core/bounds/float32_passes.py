"""The passes in float32 by which choices are sought: bounds, their minimisers and gradients.

They only choose, so nothing here is rounded outwards and nothing proved. Arrays are (units, batch)
of the units that the box leaves alive (see `live_layers`), those of a `Choices` as well: then its
multipliers are those of the units in `PassData.split` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import BoolArray, Float32Array, IntArray
from tasks.core.bounds.choices import Choices
from tasks.core.bounds.curve_choices import CurveTables, Lines
from tasks.core.bounds.input_planes import InputPlanes, Planes
from tasks.core.bounds.live_layers import compiled, live_layers
from tasks.core.bounds.relaxations import Relaxation
from tasks.core.bounds.subproblems import Subproblems
from tasks.core.networks.activation import Activation
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box

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
class PassData:
    """A batch of subproblems and the lines of its relaxations.

    Attributes:
        rows, offsets: (batch, m, outputs) and (m, batch).
        split: units that some subproblem has split; `signs` and `ends` are theirs, the latter of
            units that are split by value (see `Subproblems.split_points`).
        open_relus: those whose lines are free; `fixed` has the lower slopes of the others.
        upper_slopes, heights: of the upper lines; 0 of units that have a plane.
        curves: None where no unit is curved.
        center, radius: of the boxes, (inputs, batch) or (inputs, 1).
    """

    rows: Float32Array
    offsets: Float32Array
    split: IntArray
    signs: Float32Array
    ends: tuple[Float32Array, Float32Array]
    open_relus: BoolArray
    fixed: Float32Array
    upper_slopes: Float32Array
    heights: Float32Array
    curves: CurveTables | None
    center: Float32Array
    radius: Float32Array
    planes: InputPlanes | None

    def points(self, choices: Choices) -> Float32Array:
        """The p of each split unit's constraint."""
        terms = self.signs * choices.multipliers
        return np.where(np.where(terms == 0, self.signs, terms) > 0, *self.ends)

    def at(self, columns: IntArray) -> PassData:
        """Of some subproblems, or of some again and again; of a network that is not curved."""

        def part(values: NDArray[Any]) -> Any:
            return values if values.shape[1] == 1 else np.take(values, columns, axis=1)

        return replace(
            self,
            rows=self.rows[columns],
            offsets=self.offsets[:, columns],
            signs=self.signs[:, columns],
            ends=(part(self.ends[0]), part(self.ends[1])),
            open_relus=np.take(self.open_relus, columns, axis=1),
            fixed=np.take(self.fixed, columns, axis=1),
            upper_slopes=np.take(self.upper_slopes, columns, axis=1),
            heights=np.take(self.heights, columns, axis=1),
            center=part(self.center),
            radius=part(self.radius),
            planes=None if self.planes is None else self.planes.at(columns),
        )


@dataclass(frozen=True, eq=False)
class Pass:
    """One evaluation: a backward pass and the gradients of its bounds by the choices."""

    backward: Backward
    gradient: Choices


class Passes:
    """Passes through a network over one box, or one for each subproblem."""

    def __init__(
        self,
        network: ReluNetwork,
        box: Box,
        live: Sequence[BoolArray],
        planes: InputPlanes | None,
    ) -> None:
        """`live`, (units,) of each hidden layer: the others are 0 in all of the box.

        `planes` are of the first layer's live units, in float32.
        """
        self.planes = planes
        self.live = np.flatnonzero(np.concatenate([np.zeros(0, dtype=bool), *live]))
        self.num_units = sum(map(len, live))
        ends = np.cumsum([0, *(int(some.sum()) for some in live)]).tolist()
        self.layers = [slice(a, b) for a, b in pairwise(ends)]
        parts = zip(network.activations, live, strict=True)
        self.activations = [activation.restricted(some) for activation, some in parts]
        none = Activation.of_relus(np.zeros(0, dtype=bool))
        self.activation = Activation.joined([*self.activations, none])
        self.network = live_layers(network, live)
        self.center = ((box.lower + box.upper) / 2).astype(np.float32).T
        self.radius = ((box.upper - box.lower) / 2).astype(np.float32).T

    def data(
        self, problems: Subproblems, choices: Choices, boxes: slice = slice(None)
    ) -> tuple[PassData, Choices]:
        """In float32, and the choices with the slopes that are in use.

        `boxes` says which boxes are the subproblems', where there is one for each.
        """
        count, activation = len(problems), self.activation
        bounds = problems.bounds[:, self.live]
        relaxation = Relaxation.of_relus(bounds, activation)
        relus = bounds.unstable(activation) & ~activation.curved
        open_relus = _columns(relus, count)
        fixed, upper_slopes, heights = (
            _columns(lines.astype(np.float32), count)
            for lines in (
                relaxation.lower_slope,
                relaxation.upper_slope,
                np.where(activation.curved, 0, relaxation.upper_intercept),
            )
        )
        if self.planes is not None:
            first = self.layers[0]
            upper_slopes[first][open_relus[first]] = 0
            heights[first][open_relus[first]] = 0
        split, signs, ends = self._splits(problems)
        data = PassData(
            problems.rows.astype(np.float32),
            problems.offsets.T.astype(np.float32),
            split,
            signs,
            ends,
            open_relus,
            fixed,
            upper_slopes,
            heights,
            CurveTables(bounds, activation) if activation.is_curved else None,
            self.center if self.center.shape[1] == 1 else self.center[:, boxes],
            self.radius if self.radius.shape[1] == 1 else self.radius[:, boxes],
            None if self.planes is None else self.planes.at(boxes),
        )
        return data, self._live_choices(choices, data)

    def _splits(
        self, problems: Subproblems
    ) -> tuple[IntArray, Float32Array, tuple[Float32Array, Float32Array]]:
        """The units that some subproblem has split, their signs, and `PassData.ends`."""
        all_signs = problems.signs[:, self.live]
        split: IntArray = np.flatnonzero(all_signs.any(axis=0)).astype(np.int64)
        signs = _columns(all_signs[:, split].astype(np.float32), len(problems))
        nothing = np.zeros((1, 1), dtype=np.float32)
        if not self.activation.is_curved:
            return split, signs, (nothing, nothing)
        movable = (self.activation.curved | self.activation.factors)[split, None]
        bounds = problems.bounds[:, self.live[split]]
        low, high = (
            np.where(movable, ends.T, 0).astype(np.float32) for ends in (bounds.lower, bounds.upper)
        )
        return split, signs, (low, high)

    def _live_choices(self, choices: Choices, data: PassData) -> Choices:
        count = data.offsets.shape[1]
        is_free = data.open_relus | self.activation.curved[:, None]
        first = self.live[self.layers[0]] if self.planes is not None else slice(0)
        levels = choices.levels[:, first]
        has_uppers = choices.uppers.shape[1] > 0
        return Choices(
            np.where(is_free, _columns(choices.slopes[:, self.live], count), data.fixed),
            _columns(choices.multipliers[:, self.live[data.split]], count),
            _columns(choices.weights, count),
            _columns(levels, count),
            _columns(choices.tilts, count),
            _columns(choices.uppers[:, self.live if has_uppers else slice(0)], count),
        )

    def whole(self, found: Choices, split: IntArray, start: Choices) -> Choices:
        """Choices of all units, (batch, units): `found` of live ones, `start` of the others."""
        slopes, multipliers = start.slopes.copy(), np.zeros_like(start.multipliers)
        slopes[:, self.live] = found.slopes.T
        multipliers[:, self.live[split]] = found.multipliers.T
        levels, uppers = start.levels.copy(), start.uppers.copy()
        if self.planes is not None:
            levels[:, self.live[self.layers[0]]] = found.levels.T
        if uppers.shape[1]:
            uppers[:, self.live] = found.uppers.T
        weights, tilts = (np.ascontiguousarray(each.T) for each in (found.weights, found.tilts))
        return Choices(slopes, multipliers, weights, levels, tilts, uppers)

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


def _columns(values: NDArray[Any], count: int) -> NDArray[Any]:
    """(batch, n), or (1, n) for all, to (n, count), to be changed at will."""
    return np.array(np.broadcast_to(values, (count, values.shape[1])).T, order="C")


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
