"""Bounds of batches of boxes by CROWN, for input splitting where the kernel does not serve.

The kernel (`bounds.box_kernel`) knows ReLUs, and networks that fit in padded arrays; this one
computes every box's hidden bounds anew, in batches: by affine forms of the few inputs that are
split, of narrow layers by CROWN as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.arrays import BoolArray, FloatArray, IntArray
from tasks.core.bounds.forward import forward_bounds
from tasks.core.bounds.linear import row_bounds
from tasks.core.bounds.relaxations import Bounds, Relaxation
from tasks.core.bounds.threads import in_threads, parts
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search.outcome import PhaseArray

if TYPE_CHECKING:
    from tasks.core.bounds.box_kernel import Found

SUM_ROUNDING = 2.0**-52  # of a bound and an offset
AT_ONCE = 64  # boxes of a thread, whose numbers caches hold
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

        found = in_threads(
            lambda some: self._bounded(boxes[some], alive[some], goal),
            parts(max(1, len(boxes)), AT_ONCE),
        )
        return boxes, Found(*(np.concatenate(each) for each in zip(*found, strict=True)))

    def _bounded(
        self, boxes: Box, alive: BoolArray, goal: float
    ) -> tuple[FloatArray, FloatArray, IntArray, FloatArray]:
        """`Found` of some of them."""
        whole, boxes = boxes, Box(boxes.lower[:, self.free], boxes.upper[:, self.free])
        known = [
            found.intersected(each)
            for found, each in zip(forward_bounds(self.network, boxes), self.hidden, strict=True)
        ]
        rows, lines = row_bounds(self.network, boxes, self.rows, known, CROWN_UNITS)
        rows = rows + self.offsets
        rows = rows - np.abs(rows) * SUM_ROUNDING
        excess = np.maximum.reduceat(rows, self.starts[:-1], axis=1)
        excess = np.where(np.isnan(excess), -np.inf, excess)
        closes = alive & (excess > goal)
        closed = np.where(closes, excess, np.inf).min(axis=1)
        alive &= ~closes
        lower = np.where(alive, excess, np.inf).min(axis=1)
        slopes = self._slopes(rows, alive, excess, lines)
        radius = (boxes.upper - boxes.lower) / 2
        points = (whole.upper + whole.lower) / 2
        points[:, self.free] -= np.sign(slopes) * radius
        scores = np.nan_to_num(np.abs(slopes)) * radius
        width = np.where(scores.max(axis=1, keepdims=True) > 0, scores, radius)
        return lower, closed, np.flatnonzero(self.free)[width.argmax(axis=1)], points

    def _slopes(
        self, rows: FloatArray, alive: BoolArray, excess: FloatArray, lines: Sequence[Relaxation]
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
        for layer, activation, line in zip(
            self.network.layers[-2::-1], self.network.activations[::-1], lines[::-1], strict=True
        ):
            down = coefficients > 0
            moved = coefficients * np.where(down, line.lower_slope, line.upper_slope)
            if line.lower_partner is not None and line.upper_partner is not None:
                partner = np.where(down, line.lower_partner, line.upper_partner)
                products = activation.products
                moved = moved + activation.at_partners((coefficients * partner)[:, products])
            coefficients = layer.matrix.backward(np.nan_to_num(moved))
        return coefficients
