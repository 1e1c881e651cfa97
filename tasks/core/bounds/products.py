"""Planes below and above the product of two values over a rectangle (McCormick 1976).

x y - s x - t y is bilinear, so over a rectangle it is least at a corner: whatever the slopes s and
t are, the four corners give the plane's height. The best slopes are shares of McCormick's two:

    x y >= ly x + lx y - lx ly   and   uy x + ux y - ux uy,
    x y <= uy x + lx y - lx uy   and   ly x + ux y - ux ly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import FloatArray

Ends = tuple[FloatArray, FloatArray]  # lower and upper bounds, (batch, products) each

ROUNDING = 2.0**-48  # of a corner's three products and their sum, and more
LEAST = 2.0**-1000


@dataclass(frozen=True, eq=False)
class Planes:
    """`own * x + partner * y + height`, each (batch, products), on one side of every product."""

    own: FloatArray
    partner: FloatArray
    height: FloatArray

    @classmethod
    @np.errstate(all="ignore")
    def of(cls, x: Ends, y: Ends, shares: FloatArray, side: int) -> Planes:
        """Below for `side` 1, above for -1; any shares are sound, of the second plane, in [0, 1].

        The height is NaN or infinite where a bound is: nothing is proved of it.
        """
        (lx, ux), (ly, uy) = x, y
        shares = np.clip(shares, 0, 1)
        first, last = (ly, uy) if side > 0 else (uy, ly)
        own = np.clip(first + shares * (last - first), ly, uy)
        partner = np.clip(lx + shares * (ux - lx), lx, ux)
        height = np.full(lx.shape, np.inf)
        for one in x:
            for other in y:
                parts = (one * other, -own * one, -partner * other)
                size = sum(np.abs(part) for part in parts)
                corner = side * sum(parts) - ROUNDING * size - LEAST
                height = np.minimum(height, corner)
        return cls(own, partner, side * height)


@np.errstate(all="ignore")
def product_bounds(x: Ends, y: Ends) -> Ends:
    """Bounds on the products, (batch, products): the least and greatest of the corners."""
    corners = [one * other for one in x for other in y]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    return (
        np.where(np.isnan(low), -np.inf, low - ROUNDING * np.abs(low) - LEAST),
        np.where(np.isnan(high), np.inf, high + ROUNDING * np.abs(high) + LEAST),
    )


@np.errstate(all="ignore")
def product_reach(x: Ends, y: Ends) -> FloatArray:
    """At least what a plane adds up to in magnitude, (batch, products)."""
    sizes = [np.maximum(*(np.abs(end) for end in ends)) for ends in (x, y)]
    found = 8 * sizes[0] * sizes[1]
    return np.where(np.isnan(found), np.inf, found)
