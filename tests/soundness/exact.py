"""The exact least excess of a network on a point, a segment or a parallelogram, in integers.

On such a set a ReLU network is affine in one or two parameters within each of finitely many cells,
and every float is an integer over a power of two: cells, values and minimisers are exact, whatever
the weights. Nothing here is shared with the product but the network's arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion

Whole = NDArray[Any]  # of Python's integers
Point = tuple[Fraction, ...]
Number = float | Fraction  # over a power of two

MOST_CELLS = 3000


class TooManyCellsError(Exception):
    """The network has more linear cells than are worth the time."""


@dataclass(frozen=True, eq=False)
class Plane:
    """The points `origin + t_1 step_1 + …` with every t in [0, 1]; at most two steps."""

    origin: Sequence[Number]
    steps: tuple[Sequence[Number], ...] = ()

    @classmethod
    def across(cls, box: Box, sums: FloatArray) -> Plane:
        """Points of the box (one box) at which `sums @ x` takes every value it takes in the box.

        The rows of `sums`, shape (one or two, inputs), may not have an input in common.
        """
        assert ((sums != 0).sum(axis=0) <= 1).all()
        lower, upper = ([Fraction(float(v)) for v in side] for side in (box.lower[0], box.upper[0]))
        falling = (sums < 0).any(axis=0)
        origin = [
            high if down else low for low, high, down in zip(lower, upper, falling, strict=True)
        ]
        steps = tuple(
            tuple(
                (low - high if weight < 0 else high - low) if weight else Fraction(0)
                for low, high, weight in zip(lower, upper, row, strict=True)
            )
            for row in sums
        )
        return cls(origin, steps)

    def at(self, corner: Sequence[int]) -> Point:
        """The point of homogeneous parameters (t_1 d, t_2 d, d)."""
        parameters = [Fraction(part, corner[2]) for part in corner[: len(self.steps)]]
        point = [Fraction(value) for value in self.origin]
        for parameter, step in zip(parameters, self.steps, strict=True):
            point = [value + parameter * change for value, change in zip(point, step, strict=True)]
        return tuple(point)

    def corners(self) -> Whole:
        """Homogeneous parameters of the corners, in order around it."""
        square = [(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)]
        return _rows(square[: 2 ** len(self.steps)])


@dataclass(frozen=True, eq=False)
class Reached:
    """A point of a region's box, and the region's exact excess there."""

    excess: Fraction
    point: Point


def least_excess(network: ReluNetwork, region: UnsafeRegion, plane: Plane) -> Reached:
    """Where on the plane the greatest row is least. Raises `TooManyCellsError`."""
    inputs, start = _inputs(network, plane)
    rows, offsets, scale = _affine(region.rows, region.offsets)
    best: tuple[Fraction, Whole] | None = None
    cells = _cells(network, 0, inputs, start, plane.corners())
    for count, (forms, exponent, corners) in enumerate(cells):
        if count > MOST_CELLS:
            raise TooManyCellsError
        both = np.concatenate([forms, inputs << (exponent - start)])  # `rows` may speak of inputs
        values = _through(rows, offsets, both[: rows.shape[1]], exponent)
        differences = [a - b for place, a in enumerate(values) for b in values[:place]]
        for part in _cut(differences, corners):
            for corner in part:
                excess = Fraction(int((values @ corner).max()), corner[2] << (exponent + scale))
                if best is None or excess < best[0]:
                    best = excess, corner
    assert best is not None
    return Reached(best[0], plane.at(best[1].tolist()))


def excess_at(network: ReluNetwork, region: UnsafeRegion, point: Sequence[Number]) -> Fraction:
    """The region's exact excess at a point whose numbers are integers over powers of two."""
    return least_excess(network, region, Plane(point)).excess


def magnitude_at(network: ReluNetwork, region: UnsafeRegion, point: Sequence[Number]) -> Fraction:
    """The same with every number replaced by its absolute value: what rounding is relative to."""
    values = [abs(Fraction(value)) for value in point]
    inputs = values
    for layer in network.layers:
        weight, bias = np.abs(layer.weight).tolist(), np.abs(layer.bias).tolist()
        values = [
            sum((Fraction(w) * v for w, v in zip(row, values, strict=True) if w), Fraction(b))
            for row, b in zip(weight, bias, strict=True)
        ]
    both = [*values, *inputs][: region.rows.shape[1]]
    return max(
        sum((Fraction(w) * v for w, v in zip(row, both, strict=True) if w), Fraction(b))
        for row, b in zip(
            np.abs(region.rows).tolist(), np.abs(region.offsets).tolist(), strict=True
        )
    )


def hidden_values(network: ReluNetwork, point: Sequence[Fraction]) -> list[list[Fraction]]:
    """Every hidden layer's values before its activation, at any rational point."""
    values, result = list(point), []
    for layer, linear in zip(network.layers[:-1], network.linear, strict=True):
        z = [
            sum((Fraction(w) * v for w, v in zip(row, values, strict=True) if w), Fraction(b))
            for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        ]
        result.append(z)
        values = [v if same else max(v, Fraction(0)) for v, same in zip(z, linear, strict=True)]
    return result


def _cells(
    network: ReluNetwork, depth: int, values: Whole, exponent: int, corners: Whole
) -> Iterator[tuple[Whole, int, Whole]]:
    """The outputs as forms, their exponent and the corners: of every cell in which they are affine.

    A form is three integers, to be multiplied with homogeneous parameters; `values`, shape (units,
    3), are those of what layer `depth` reads.
    """
    layer = network.layers[depth]
    weight, bias, scale = _affine(layer.weight, layer.bias)
    forms, exponent = _through(weight, bias, values, exponent), exponent + scale
    if depth == len(network.layers) - 1:
        yield forms, exponent, corners
        return
    linear = network.linear[depth]
    for part in _cut(forms[~linear], corners):
        active = linear | np.array((forms @ part.T > 0).any(axis=1), dtype=bool)
        yield from _cells(network, depth + 1, forms * active[:, None], exponent, part)


def _through(weight: Whole, bias: Whole, values: Whole, exponent: int) -> Whole:
    """The affine map of forms that are over 2**exponent."""
    forms: Whole = weight @ values
    forms[:, 2] += bias << exponent
    return forms


def _cut(forms: Sequence[Whole] | Whole, corners: Whole) -> list[Whole]:
    """The cell in parts, in none of which any form has both signs."""
    parts = [corners]
    for form in forms:
        parts = [half for part in parts for half in _halves(part, (part @ form).tolist())]
    return parts


def _halves(corners: Whole, values: list[int]) -> list[Whole]:
    """The convex cell cut where the form with these values at its corners is zero."""
    if min(values) >= 0 or max(values) <= 0:
        return [corners]
    halves = []
    for sign in (1, -1):
        half = []
        for place, value in enumerate(values):
            before = values[place - 1]
            if (before < 0 < value) or (value < 0 < before):
                crossing = corners[place - 1] * abs(value) + corners[place] * abs(before)
                half.append(tuple((crossing // math.gcd(*crossing.tolist())).tolist()))
            if sign * value >= 0:
                half.append(tuple(corners[place].tolist()))
        halves.append(_rows(list(dict.fromkeys(half))))
    return halves


def _inputs(network: ReluNetwork, plane: Plane) -> tuple[Whole, int]:
    """The inputs as forms, and their exponent."""
    nothing = [0.0] * network.num_inputs
    columns = [*plane.steps, *[nothing] * (2 - len(plane.steps)), plane.origin]
    whole, exponent = _whole([value for column in columns for value in column])
    return whole.reshape(3, -1).T, exponent


def _affine(weight: FloatArray, bias: FloatArray) -> tuple[Whole, Whole, int]:
    """Both as integers over 2**exponent, and the exponent."""
    whole, exponent = _whole([*weight.ravel().tolist(), *bias.tolist()])
    return whole[: weight.size].reshape(weight.shape), whole[weight.size :], exponent


def _whole(values: Sequence[Number]) -> tuple[Whole, int]:
    ratios = [value.as_integer_ratio() for value in values]
    exponent = max((below.bit_length() - 1 for _, below in ratios), default=0)
    whole = np.empty(len(ratios), dtype=object)
    whole[:] = [above * ((1 << exponent) // below) for above, below in ratios]
    return whole, exponent


def _rows(corners: Sequence[tuple[int, ...]]) -> Whole:
    result = np.empty((len(corners), 3), dtype=object)
    for place, corner in enumerate(corners):
        result[place] = corner
    return result
