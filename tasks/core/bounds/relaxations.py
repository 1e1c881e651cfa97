"""Bounds of a layer's values, and the lines between which its activation runs over them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tasks.core.arrays import BoolArray, FloatArray
from tasks.core.bounds.curve_lines import (
    greatest_slope,
    least_height,
    middle_slopes,
    reach,
    value_bounds,
)
from tasks.core.bounds.products import Ends, Planes, product_bounds, product_reach
from tasks.core.networks.activation import Activation
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

    def of_factors(self, activation: Activation) -> tuple[Ends, Ends]:
        """Those of the products' own values, and those of their partners'."""
        products = activation.products
        own, other = (
            (self.lower[:, units], self.upper[:, units])
            for units in (products, activation.partners[products])
        )
        return own, other

    def intersected(self, other: Bounds) -> Bounds:
        """Both at once."""
        return Bounds(np.maximum(self.lower, other.lower), np.minimum(self.upper, other.upper))

    def unstable(self, activation: Activation) -> BoolArray:
        """Units not shown to be the identity or zero, shape (batch, units).

        NaN shows nothing: such a unit gets NaN lines, and what depends on them is not proved.
        """
        settled = (self.lower >= 0) | (self.upper <= 0)
        if activation.is_curved:
            settled &= ~activation.curved
        return ~(settled | activation.linear)


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Lines around a layer's activation h of its values z in [lower, upper], each (batch, units).

    `lower_slope * z + lower_height <= h <= upper_slope * z + upper_intercept`; of a product with
    its partner's slope times the partner's value added to either side.

    A ReLU has Zhang et al. 2018, "Efficient Neural Network Robustness Certification with General
    Activation Functions": any lower slope from 0 to 1 is sound; `of` takes the one of 0 and 1 whose
    triangle is smaller. Curved units have any slopes, with the heights that `curve_lines` shows.

    Attributes:
        lower_height: None where all are 0, as of ReLUs.
        lower_partner, upper_partner: 0 but of products; None where there are none.
    """

    lower_slope: FloatArray
    upper_slope: FloatArray
    upper_intercept: FloatArray
    lower_height: FloatArray | None = None
    lower_partner: FloatArray | None = None
    upper_partner: FloatArray | None = None

    def __getitem__(self, rows: Any) -> Relaxation:
        """Rows of the batch."""
        parts = [getattr(self, each.name) for each in fields(self)]
        cut: list[Any] = [None if part is None else part[rows] for part in parts]
        return Relaxation(*cut)

    def gaps(self, bounds: Bounds, activation: Activation) -> FloatArray:
        """Between the lines, in the middle of the bounds: (batch, units)."""
        middle = (bounds.lower + bounds.upper) / 2
        gaps = (self.upper_slope - self.lower_slope) * middle + self.upper_intercept
        if self.lower_height is not None:
            gaps = gaps - self.lower_height
        if self.lower_partner is not None and self.upper_partner is not None:
            products = activation.products
            others = middle[:, activation.partners[products]]
            partner = (self.upper_partner - self.lower_partner)[:, products]
            gaps[:, products] += partner * others
        return gaps

    @classmethod
    def of(cls, bounds: Bounds, activation: Activation) -> Relaxation:
        """The lines that enclose the least area, in the precision of the bounds."""
        lines = cls.of_relus(bounds, activation)
        if not activation.is_curved:
            return lines
        slopes = middle_lines(bounds, activation)
        return lines.with_curves(bounds, activation, slopes)

    @classmethod
    def of_relus(cls, bounds: Bounds, activation: Activation) -> Relaxation:
        """With nothing yet for curved units."""
        lower, upper = bounds.lower, bounds.upper
        unstable = bounds.unstable(activation)
        active = ((lower >= 0) | activation.linear).astype(lower.dtype)
        with np.errstate(divide="ignore", invalid="ignore"):  # of infinite bounds: NaN
            chord = upper / np.where(unstable, upper - lower, 1)
            return cls(
                lower_slope=np.where(unstable, (upper > -lower).astype(lower.dtype), active),
                upper_slope=np.where(unstable, chord, active),
                upper_intercept=np.where(unstable, -chord * lower, 0),
            )

    def with_curves(
        self, bounds: Bounds, activation: Activation, slopes: CurveSlopes
    ) -> Relaxation:
        """With lines of these slopes for curved units, their heights rounded outwards."""
        shape = np.broadcast_shapes(slopes.lower.shape, bounds.lower.shape)
        lower_slope, upper_slope, low, high = (
            np.broadcast_to(each, shape).copy()
            for each in (self.lower_slope, self.upper_slope, 0.0, self.upper_intercept)
        )
        for curve, units in activation.curves():
            some = (shape[0], len(units))
            low_end, high_end = (
                np.broadcast_to(e[:, units], some) for e in (bounds.lower, bounds.upper)
            )
            ends = low_end, high_end
            most = greatest_slope(curve, *ends)
            lower_slope[:, units] = np.clip(slopes.lower[:, units], -most, most)
            upper_slope[:, units] = np.clip(slopes.upper[:, units], -most, most)
            low[:, units] = least_height(curve, *ends, lower_slope[:, units], 1)
            high[:, units] = -least_height(curve, *ends, upper_slope[:, units], -1)
        products = activation.products
        if not len(products):
            return Relaxation(lower_slope, upper_slope, high, low)
        factors = bounds.of_factors(activation)
        planes = [
            Planes.of(*factors, shares[:, products], side)
            for shares, side in ((slopes.lower, 1), (slopes.upper, -1))
        ]
        others = np.zeros((2, *shape))
        for plane, own, height, other in zip(
            planes, (lower_slope, upper_slope), (low, high), others, strict=True
        ):
            own[:, products], height[:, products] = plane.own, plane.height
            other[:, products] = plane.partner
        return Relaxation(lower_slope, upper_slope, high, low, others[0], others[1])


@dataclass(frozen=True, eq=False)
class CurveSlopes:
    """What is free about curved units' lines, each (batch, units): any finite numbers are sound.

    `lower`, `upper`: slopes of curves; of products the shares in [0, 1] of two planes.
    """

    lower: FloatArray
    upper: FloatArray


def middle_lines(bounds: Bounds, activation: Activation) -> CurveSlopes:
    """Lines that touch in the middle, and both planes alike."""
    lower, upper = np.full_like(bounds.lower, 0.5), np.full_like(bounds.lower, 0.5)
    for curve, units in activation.curves():
        low, high = bounds.lower[:, units], bounds.upper[:, units]
        for slopes, side in ((lower, 1), (upper, -1)):
            found = middle_slopes(curve, low.ravel(), high.ravel(), side)
            slopes[:, units] = found.reshape(low.shape)
    return CurveSlopes(lower, upper)


def activation_box(bounds: Bounds, activation: Activation) -> Box:
    """What the activation makes of the bounds."""
    low = np.where(activation.linear, bounds.lower, np.maximum(bounds.lower, 0))
    high = np.where(activation.linear, bounds.upper, np.maximum(bounds.upper, 0))
    for curve, units in activation.curves() if activation.is_curved else []:
        ends = bounds.lower[:, units], bounds.upper[:, units]
        low[:, units], high[:, units] = value_bounds(curve, *ends)
    products = activation.products
    if len(products):
        low[:, products], high[:, products] = product_bounds(*bounds.of_factors(activation))
    return Box(low, high)


def curved_reach(bounds: Bounds, activation: Activation) -> FloatArray:
    """Of curved units at least |h|, and what |slopes z| and |height| of a line add up to; else 0.

    It holds for all parts of the bounds as well, with the slopes that are chosen there.
    """
    found = np.zeros_like(bounds.lower)
    for curve, units in activation.curves():
        found[:, units] = reach(curve, bounds.lower[:, units], bounds.upper[:, units])
    products = activation.products
    if len(products):
        found[:, products] = product_reach(*bounds.of_factors(activation))
    return found
