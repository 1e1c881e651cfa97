"""Curved units' lines as choices: shares of a range of slopes, sought in float32.

A lower line's slope runs from the convex envelope's at one end of the interval to that at the
other, an upper line's likewise along the concave envelope: the share in [0, 1] is what is chosen,
as a ReLU's lower slope is. In float32 a line's height is read off a table of the function, and by
Danskin's theorem the derivative of `slope * z + height` by the slope is z less the point where the
line touches. A product's share is that of McCormick's second plane.

Arrays are (batch, units of all hidden layers) unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import Float32Array, FloatArray
from tasks.core.bounds.curve_lines import middle_slopes, slope_ranges, table
from tasks.core.bounds.relaxations import Bounds, CurveSlopes
from tasks.core.networks.activation import Activation

SIDES = (1, -1)


@np.errstate(all="ignore")
def chosen_slopes(
    bounds: Bounds, activation: Activation, lower: Float32Array, upper: Float32Array
) -> CurveSlopes:
    """In float64, of shares of the ranges; see `Relaxation.with_curves`."""
    found = [share.astype(np.float64) for share in (lower, upper)]
    shape = np.broadcast_shapes(*(share.shape for share in found), bounds.lower.shape)
    slopes = [np.broadcast_to(share, shape).copy() for share in found]
    for curve, units in activation.curves():
        low, high = (bounds.lower[:, units], bounds.upper[:, units])
        points, values = table(curve, low.ravel(), high.ravel())
        for side, result in zip(SIDES, slopes, strict=True):
            ends = slope_ranges(curve, low.ravel(), high.ravel(), points, values, side)
            start, end = (each.reshape(low.shape) for each in ends)
            share = np.clip(result[:, units], 0, 1)
            result[:, units] = start + share * (end - start)
    return CurveSlopes(*slopes)


@np.errstate(all="ignore")
def middle_shares(bounds: Bounds, activation: Activation) -> tuple[FloatArray, FloatArray]:
    """The shares whose lines touch in the middle; 1/2 where there is no range, and of products."""
    shares = np.full((2, *bounds.lower.shape), 0.5)
    for curve, units in activation.curves():
        low, high = bounds.lower[:, units], bounds.upper[:, units]
        points, values = table(curve, low.ravel(), high.ravel())
        for side, result in zip(SIDES, shares, strict=True):
            start, end = slope_ranges(curve, low.ravel(), high.ravel(), points, values, side)
            slope = middle_slopes(curve, low.ravel(), high.ravel(), side)
            share = np.where(start == end, 0.5, (slope - start) / (end - start))
            result[:, units] = np.clip(np.nan_to_num(share, nan=0.5), 0, 1).reshape(low.shape)
    return shares[0], shares[1]


@dataclass(frozen=True, eq=False)
class Lines:
    """What a choice of shares gives curved units, (units, batch); 0 of the others.

    Attributes:
        slopes, heights, partners: of the lines.
        touching: where they touch; of a product 0.
        gaps: how far they are from the function where that is most.
    """

    slopes: Float32Array
    heights: Float32Array
    partners: Float32Array
    touching: Float32Array
    gaps: Float32Array


class CurveTables:
    """Curved units over the bounds of a batch of subproblems, in float32; arrays (units, batch)."""

    @np.errstate(all="ignore")
    def __init__(self, bounds: Bounds, activation: Activation) -> None:
        """`bounds` are (batch, units)."""
        self.activation, self.bounds = activation, bounds
        self.tables = []
        for curve, units in activation.curves():
            low, high = bounds.lower[:, units].T, bounds.upper[:, units].T
            points, values = table(curve, low.ravel(), high.ravel())
            ranges = [
                [
                    each.reshape(low.shape).astype(np.float32)
                    for each in slope_ranges(curve, low.ravel(), high.ravel(), points, values, side)
                ]
                for side in SIDES
            ]
            shaped = [each.reshape(*low.shape, -1).astype(np.float32) for each in (points, values)]
            self.tables.append((units, shaped[0], shaped[1], ranges))

    @np.errstate(all="ignore")
    def lines(self, shares: Float32Array, side: int) -> Lines:
        """The lines on one side."""
        found = Lines(*(np.zeros_like(shares) for _ in range(5)))
        for units, points, values, ranges in self.tables:
            start, end = ranges[SIDES.index(side)]
            slopes = start + shares[units] * (end - start)
            residuals = side * (values - slopes[..., None] * points)
            places = residuals.argmin(axis=-1)[..., None]
            least = np.take_along_axis(residuals, places, -1)[..., 0]
            shape = residuals.shape
            touched = np.take_along_axis(np.broadcast_to(points, shape), places, -1)[..., 0]
            found.slopes[units], found.heights[units] = slopes, side * least
            found.touching[units] = touched
            found.gaps[units] = residuals.max(axis=-1) - least
        self._add_planes(found, shares, side)
        return found

    def _add_planes(self, found: Lines, shares: Float32Array, side: int) -> None:
        products = self.activation.products
        if not len(products):
            return
        lx, ux, ly, uy = self._rectangles()
        first, last = (ly, uy) if side > 0 else (uy, ly)
        share = shares[products]
        found.slopes[products] = first + share * (last - first)
        found.partners[products] = lx + share * (ux - lx)
        found.heights[products] = -(lx * first) * (1 - share) - share * ux * last
        found.gaps[products] = (ux - lx) * (uy - ly) / 4

    def _rectangles(self) -> list[Float32Array]:
        """lx, ux, ly and uy of the products."""
        products = self.activation.products
        return [
            end[:, units].T.astype(np.float32)
            for units in (products, self.activation.partners[products])
            for end in (self.bounds.lower, self.bounds.upper)
        ]

    @np.errstate(all="ignore")
    def rises(self, lines: Lines, values: Float32Array, side: int) -> Float32Array:
        """How much the lines rise with their shares at `values`; 0 of units that are not curved."""
        result = np.zeros_like(values)
        for units, _, _, ranges in self.tables:
            start, end = ranges[SIDES.index(side)]
            result[units] = (values[units] - lines.touching[units]) * (end - start)
        products = self.activation.products
        if len(products):
            lx, ux, ly, uy = self._rectangles()
            first, last = (ly, uy) if side > 0 else (uy, ly)
            x, y = values[products], values[self.activation.partners[products]]
            result[products] = (last - first) * x + (ux - lx) * y - ux * last + lx * first
        return np.nan_to_num(result)
