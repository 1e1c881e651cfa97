"""Bounds of batches of boxes by CROWN, for input splitting where the kernel does not serve.

The kernel (`bounds.box_kernel`) knows ReLUs, and networks that fit in padded arrays; this one
computes every box's hidden bounds anew: by affine forms of the few inputs that are split, then by
CROWN, of curved networks in narrow layers alone. A large network's box takes a second, and is worth
it: with units settled on the way, each part of a box takes less than the box did, and halving the
input behind most of what the relaxations lose soon leaves little to lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.arrays import BoolArray, FloatArray, IntArray
from tasks.core.bounds.forward import forward_bounds, input_shares
from tasks.core.bounds.linear import row_bounds
from tasks.core.bounds.relaxations import Bounds, Relaxation
from tasks.core.networks.network import ReluNetwork
from tasks.core.networks.threads import in_threads, parts
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search.outcome import PhaseArray

if TYPE_CHECKING:
    from tasks.core.bounds.box_kernel import Found

SUM_ROUNDING = 2.0**-52  # of a bound and an offset
AT_ONCE = 64  # boxes of a thread, whose numbers caches hold
BATCH = 256  # boxes of a curved network; of a large one, one box is a batch
CROWN_UNITS = 128  # of a curved layer; with more, the bounds of affine forms are all there are


class BatchedBoxes:
    """The regions of one box, to be bounded over its parts; what the box fixes is folded away.

    `phases` are the units', (units,) of all hidden layers; of curved units they say nothing. After
    `deadline`, in seconds of `time.monotonic`, bounds are loose.
    """

    def __init__(
        self,
        network: ReluNetwork,
        box: Box,
        regions: Sequence[UnsafeRegion],
        hidden: Sequence[Bounds],
        deadline: float,
    ) -> None:
        self.free = box.upper[0] > box.lower[0]
        self.free[:1] |= not self.free.any()
        self.network, self.hidden = network.fixed(self.free, box.lower[0]), list(hidden)
        self.deadline = deadline
        self.at_once = BATCH if network.is_curved else 1
        self.widest = CROWN_UNITS if network.is_curved else None
        self.ends = np.cumsum([0, *(len(activation) for activation in network.activations)])
        self.phases = self._phases(hidden)[0]
        self.rows = np.concatenate([region.rows for region in regions])
        self.offsets = np.concatenate([region.offsets for region in regions])
        self.starts = np.cumsum([0, *(len(region.rows) for region in regions)])

    def bounds(
        self, boxes: Box, phases: PhaseArray, alive: BoolArray, goal: float, *, clips: bool
    ) -> tuple[Box, Found]:
        """The boxes, which are never clipped, and `Found` of them; updates `phases` and `alive`."""
        from tasks.core.bounds.box_kernel import Found

        found = in_threads(
            lambda some: self._bounded(boxes[some], phases[some], alive[some], goal),
            parts(max(1, len(boxes)), AT_ONCE),
        )
        return boxes, Found(*(np.concatenate(each) for each in zip(*found, strict=True)))

    def _bounded(
        self, boxes: Box, phases: PhaseArray, alive: BoolArray, goal: float
    ) -> tuple[FloatArray, FloatArray, IntArray, FloatArray]:
        """`Found` of some of them."""
        whole, boxes = boxes, Box(boxes.lower[:, self.free], boxes.upper[:, self.free])
        known = [
            found.intersected(each)
            for found, each in zip(
                forward_bounds(self.network, boxes), self._known(phases), strict=True
            )
        ]
        rows, hidden, lines = row_bounds(
            self.network, boxes, self.rows, known, self.widest, self.deadline
        )
        phases[:] = self._phases(hidden)
        rows = rows + self.offsets
        rows = rows - np.abs(rows) * SUM_ROUNDING
        excess = np.maximum.reduceat(rows, self.starts[:-1], axis=1)
        excess = np.where(np.isnan(excess), -np.inf, excess)
        closes = alive & (excess > goal)
        closed = np.where(closes, excess, np.inf).min(axis=1)
        alive &= ~closes
        lower = np.where(alive, excess, np.inf).min(axis=1)
        slopes, lost = self._carried(self._worst(rows, alive, excess), hidden, lines)
        radius = (boxes.upper - boxes.lower) / 2
        points = (whole.upper + whole.lower) / 2
        points[:, self.free] -= np.sign(slopes) * radius
        scores = np.abs(slopes) * radius
        for each, shares in zip(lost, input_shares(self.network, boxes, hidden), strict=True):
            scores += np.matmul(shares, each[:, :, None])[:, :, 0]
        scores = np.nan_to_num(scores)
        width = np.where(scores.max(axis=1, keepdims=True) > 0, scores, radius)
        return lower, closed, np.flatnonzero(self.free)[width.argmax(axis=1)], points

    def _phases(self, hidden: Sequence[Bounds]) -> PhaseArray:
        """(batch, units)."""
        signs = [
            np.where(activation.curved, 0, 1 * (bounds.lower >= 0) - (bounds.upper <= 0))
            for bounds, activation in zip(hidden, self.network.activations, strict=True)
        ]
        nothing = np.zeros((len(hidden[0].lower) if hidden else 1, 0))
        return np.concatenate([nothing, *signs], axis=1).astype(np.int8)

    def _known(self, phases: PhaseArray) -> list[Bounds]:
        """Of the whole box, and what phases add to that."""
        known = list[Bounds]()
        for bounds, (start, end) in zip(self.hidden, pairwise(self.ends), strict=True):
            signs = phases[:, start:end]
            lower = np.where(signs > 0, np.maximum(bounds.lower, 0), bounds.lower)
            upper = np.where(signs < 0, np.minimum(bounds.upper, 0), bounds.upper)
            known.append(Bounds(lower, upper))
        return known

    def _worst(self, rows: FloatArray, alive: BoolArray, excess: FloatArray) -> FloatArray:
        """The greatest row of each box's worst region, (batch, outputs)."""
        worst = np.where(alive, excess, np.inf).argmin(axis=1)
        greatest = [
            int(start + rows[box, start:end].argmax())
            for box, (start, end) in enumerate(
                zip(self.starts[worst], self.starts[worst + 1], strict=True)
            )
        ]
        return self.rows[greatest]

    def _carried(
        self, rows: FloatArray, hidden: Sequence[Bounds], lines: Sequence[Relaxation]
    ) -> tuple[FloatArray, list[FloatArray]]:
        """Slopes of the bound by the inputs, and what each unit's lines may lose of it.

        (batch, inputs), and (batch, units) of each hidden layer.
        """
        coefficients, lost = self.network.layers[-1].matrix.backward(rows), list[FloatArray]()
        for depth in range(len(hidden) - 1, -1, -1):
            activation, line = self.network.activations[depth], lines[depth]
            gaps = line.gaps(hidden[depth], activation)
            lost.append(np.nan_to_num(np.abs(coefficients) * gaps, posinf=0.0))
            down = coefficients > 0
            moved = coefficients * np.where(down, line.lower_slope, line.upper_slope)
            if line.lower_partner is not None and line.upper_partner is not None:
                partner = np.where(down, line.lower_partner, line.upper_partner)
                products = activation.products
                moved = moved + activation.at_partners((coefficients * partner)[:, products])
            coefficients = self.network.layers[depth].matrix.backward(np.nan_to_num(moved))
        return coefficients, lost[::-1]
