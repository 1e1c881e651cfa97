"""Bounds of batches of boxes by CROWN, for input splitting where the kernel does not serve.

The kernel (`bounds.box_kernel`) knows ReLUs, and networks that fit in padded arrays; this one
computes every box's hidden bounds anew, in batches: by affine forms of the few inputs that are
split, of narrow layers by CROWN as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.arrays import BoolArray, FloatArray
from tasks.core.bounds.forward import forward_bounds
from tasks.core.bounds.linear import linear_lower_bounds, preactivation_bounds
from tasks.core.bounds.relaxations import Bounds, Relaxation, middle_lines
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search.outcome import PhaseArray

if TYPE_CHECKING:
    from tasks.core.bounds.box_kernel import Found

SUM_ROUNDING = 2.0**-52  # of a bound and an offset
CROWN_UNITS = 128  # of a layer; with more, the bounds of affine forms are all there are


class BatchedBoxes:
    """The regions of one box, to be bounded over its parts; what the box fixes is folded away.

    `phases` say nothing here.
    """

    def __init__(
        self,
        network: ReluNetwork,
        box: Box,
        regions: Sequence[UnsafeRegion],
        hidden: Sequence[Bounds],
    ) -> None:
        self.free = box.upper[0] > box.lower[0]
        self.free[:1] |= not self.free.any()
        self.network, self.hidden = network.fixed(self.free, box.lower[0]), list(hidden)
        self.phases: PhaseArray = np.zeros((1, 1), dtype=np.int8)
        self.rows = np.concatenate([region.rows for region in regions])
        self.offsets = np.concatenate([region.offsets for region in regions])
        self.starts = np.cumsum([0, *(len(region.rows) for region in regions)])

    def bounds(
        self, boxes: Box, phases: PhaseArray, alive: BoolArray, goal: float, *, clips: bool
    ) -> tuple[Box, Found]:
        """The boxes, which are never clipped, and `Found` of them; updates `alive`."""
        from tasks.core.bounds.box_kernel import Found

        whole, boxes = boxes, Box(boxes.lower[:, self.free], boxes.upper[:, self.free])
        known = [
            found.intersected(each)
            for found, each in zip(forward_bounds(self.network, boxes), self.hidden, strict=True)
        ]
        hidden = preactivation_bounds(self.network, boxes, "crown", known=known, widest=CROWN_UNITS)
        depth = len(self.network.layers) - 1
        rows = linear_lower_bounds(self.network, depth, self.rows, hidden, boxes) + self.offsets
        rows = rows - np.abs(rows) * SUM_ROUNDING
        excess = np.maximum.reduceat(rows, self.starts[:-1], axis=1)
        excess = np.where(np.isnan(excess), -np.inf, excess)
        closes = alive & (excess > goal)
        closed = np.where(closes, excess, np.inf).min(axis=1)
        alive &= ~closes
        lower = np.where(alive, excess, np.inf).min(axis=1)
        slopes = self._slopes(rows, alive, excess, hidden)
        radius = (boxes.upper - boxes.lower) / 2
        points = (whole.upper + whole.lower) / 2
        points[:, self.free] -= np.sign(slopes) * radius
        scores = np.nan_to_num(np.abs(slopes)) * radius
        width = np.where(scores.max(axis=1, keepdims=True) > 0, scores, radius)
        return whole, Found(lower, closed, np.flatnonzero(self.free)[width.argmax(axis=1)], points)

    def _slopes(
        self, rows: FloatArray, alive: BoolArray, excess: FloatArray, hidden: Sequence[Bounds]
    ) -> FloatArray:
        """By the inputs, of the linear bound on the greatest row of each box's worst region."""
        worst = np.where(alive, excess, np.inf).argmin(axis=1)
        greatest = [
            int(start + rows[box, start:end].argmax())
            for box, (start, end) in enumerate(
                zip(self.starts[worst], self.starts[worst + 1], strict=True)
            )
        ]
        coefficients = self.network.layers[-1].matrix.backward(self.rows[greatest])
        for layer, activation, bounds in zip(
            self.network.layers[-2::-1], self.network.activations[::-1], hidden[::-1], strict=True
        ):
            lines = Relaxation.of_relus(bounds, activation)
            lower, upper = lines.lower_slope, lines.upper_slope
            if activation.is_curved:
                curves = middle_lines(bounds, activation)
                lower = np.where(activation.curved, curves.lower, lower)
                upper = np.where(activation.curved, curves.upper, upper)
            products = activation.products
            if len(products):  # by both planes alike: the other factor's middle
                (lx, ux), (ly, uy) = bounds.of_factors(activation)
                lower[:, products] = upper[:, products] = (ly + uy) / 2
            moved = coefficients * np.where(coefficients > 0, lower, upper)
            if len(products):
                moved = moved + activation.at_partners(coefficients[:, products] * (lx + ux) / 2)
            coefficients = layer.matrix.backward(np.nan_to_num(moved))
        return coefficients
