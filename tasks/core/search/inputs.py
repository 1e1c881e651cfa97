"""Branch and bound on the inputs, for networks with few of them (ACAS Xu has five).

Complete but for time and rounding: a box whose bounds leave a region open is halved along the input
on which its loosest relaxations depend most (after ReluVal's and Neurify's sensitivity, Wang et al.
2018); the box with the least bound goes first. Boxes are clipped by their bounds first, unless a
record is kept: a certificate's boxes are halves.

In a domain only valid inputs count. Whole numbers are split between two of them, so that they end
at one each, and boxes that hold no valid input are closed: where all inputs are whole numbers it is
complete, with relations and without.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import BoolArray, FloatArray, IntArray
from tasks.core.bounds.relaxations import Bounds
from tasks.core.bounds.rounding import rounding_scales
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search.batched_boxes import BatchedBoxes
from tasks.core.search.outcome import BestFirst, PhaseArray, Search, worst_first
from tasks.core.search.record import Record

if TYPE_CHECKING:
    from tasks.core.bounds.box_kernel import Found

MOST_PADDED = 2**26  # weights in the kernel's arrays: half a gigabyte


class InputSearch(BestFirst):
    """See `BestFirst`.

    In `heap`: (bound, order, box's lower and upper, phases, open regions, input to split, its place
    in the record, if there is one).
    """

    def __init__(
        self,
        network: ReluNetwork,
        box: Box,
        regions: Sequence[UnsafeRegion],
        hidden: Sequence[Bounds],
        goal: float = 0.0,
        domain: Domain | None = None,
        record: Record | None = None,
        deadline: float = np.inf,
    ) -> None:
        """No box's bounds take longer than to `deadline`, in seconds of `time.monotonic`."""
        super().__init__(network, box, regions, goal)
        self.record = record
        self.domain = domain
        self.whole = np.zeros(network.num_inputs, dtype=bool)
        if domain is not None:
            self.whole |= domain.whole
        self.padded: _Padded | BatchedBoxes
        if network.is_curved or _padded_size(network) > MOST_PADDED:
            self.padded = BatchedBoxes(network, box, regions, hidden, deadline)
        else:
            self.padded = _Padded(network, box, regions, hidden, self.whole)

    def run(self, deadline: float) -> Search:
        """Bounds and halves until all is closed, a point is found, or the deadline passes."""
        if self.subproblems == 0:
            alive = np.ones((1, len(self.regions)), dtype=bool)
            places = np.zeros(1, dtype=np.int64)
            if self.record is not None:
                self.record.roots = self.record.places(1)
            self._bound(self.box, self.padded.phases[None], alive, np.full(1, -np.inf), places)
        while self.goes_on(deadline):
            self._bound(*self._halves())
            self.attacks(deadline, self.domain)
        lower = min((entry[0] for entry in self.heap), default=np.inf)
        return self.ended(lower, "input splitting", " boxes", "too thin to split")

    def _halves(self) -> tuple[Box, PhaseArray, BoolArray, FloatArray, IntArray]:
        """Both halves of the boxes with the least bounds, these, and the halves' places."""
        batch = worst_first(self.heap, self.padded.at_once)
        lower = np.repeat(np.concatenate([box.lower for _, _, box, *_ in batch]), 2, axis=0)
        upper = np.repeat(np.concatenate([box.upper for _, _, box, *_ in batch]), 2, axis=0)
        phases = np.repeat(np.stack([entry[3] for entry in batch]), 2, axis=0)
        alive = np.repeat(np.stack([entry[4] for entry in batch]), 2, axis=0)
        rows, split = 2 * np.arange(len(batch)), np.array([entry[5] for entry in batch])
        low, high = lower[rows, split], upper[rows, split]
        whole, middle = self.whole[split], (low + high) / 2
        middle = np.where(whole, np.floor(middle), middle)
        known = np.repeat(np.array([entry[0] for entry in batch]), 2)
        thin = np.where(whole, low == high, ~((middle > low) & (middle < high)))
        ended = known[rows][thin]
        self.stuck += int((~(ended > 0)).sum())
        self.closed_lower = min(self.closed_lower, float(ended.min(initial=np.inf)))
        upper[rows, split], lower[rows + 1, split] = middle, np.where(whole, middle + 1, middle)
        keep, places = np.repeat(~thin, 2), np.zeros(2 * len(batch), dtype=np.int64)
        if self.record is not None:
            parents = [entry[6] for entry in batch]
            places[:] = self.record.split(parents, split.tolist(), middle.tolist())
        return Box(lower[keep], upper[keep]), phases[keep], alive[keep], known[keep], places[keep]

    def _bound(
        self,
        boxes: Box,
        phases: PhaseArray,
        alive: BoolArray,
        known: FloatArray,
        places: IntArray,
    ) -> None:
        """Queues the boxes that stay open.

        `alive` marks regions open in the parent box, `known` bounds their excess there.
        """
        boxes, found = self.padded.bounds(
            boxes, phases, alive, self.goal.reachable, clips=self.record is None
        )
        lower, closed, split, points = found
        lower = np.fmax(lower, known)
        self.subproblems += len(boxes)
        self.closed_lower = min(self.closed_lower, float(closed.min(initial=np.inf)))
        # NaN is not above zero: such a box stays open, and nothing is proved of it
        is_open = alive.any(axis=1)
        if self.domain is not None:
            is_open &= ~self.domain.excludes(boxes)
        if self.record is not None:
            excluded = np.where(is_open, lower, np.inf)
            for row in np.flatnonzero(excluded > 0).tolist():
                self.record.exclude(int(places[row]), None)
        rows = np.flatnonzero(is_open)
        self._try_points(np.concatenate([points[rows], (boxes.lower + boxes.upper)[rows] / 2]))
        for row in rows.tolist():
            one = boxes[slice(row, row + 1)]
            cut = self._split(one, int(split[row]))
            entry = (phases[row].copy(), alive[row].copy(), cut, int(places[row]))
            heapq.heappush(self.heap, (float(lower[row]), next(self.order), one, *entry))

    def _split(self, box: Box, proposed: int) -> int:
        """The input proposed, or the widest one where that one is a single number already."""
        width = (box.upper - box.lower)[0]
        return proposed if width[proposed] > 0 else int(width.argmax())

    def _try_points(self, points: FloatArray) -> None:
        points = np.clip(points, self.box.lower, self.box.upper)
        if self.domain is not None:
            points = self.domain.nearest(points)
            points = points[self.domain.contains(points)]
        if len(points) == 0:
            return
        outputs = self.network(points)
        for place, region in enumerate(self.regions):
            self.met(place, points, region.excess(outputs))


def _padded_size(network: ReluNetwork) -> int:
    widths = [network.num_inputs, *(len(layer.bias) for layer in network.layers)]
    return len(network.layers) * max(widths) ** 2


class _Padded:
    """The network, what holds of it over the box, and the regions in arrays, for the kernel.

    `phases` are the units' in the box, (layers - 1, w).
    """

    at_once = 256  # boxes

    def __init__(
        self,
        network: ReluNetwork,
        box: Box,
        regions: Sequence[UnsafeRegion],
        hidden: Sequence[Bounds],
        whole: BoolArray,
    ) -> None:
        from tasks.core.bounds.box_kernel import PaddedBounds, PaddedNetwork, PaddedRegions

        self.whole, depth = whole, len(network.layers)
        widths = np.array([network.num_inputs, *(len(a.bias) for a in network.layers)])
        square, units = (int(widths.max()),) * 2, (max(depth - 1, 1), int(widths.max()))
        scales = rounding_scales(network, hidden, box)
        weights = [layer.weight for layer in network.layers]
        active = [(b.lower[0] >= 0) | n for b, n in zip(hidden, network.linear, strict=True)]
        inactive = [bounds.upper[0] <= 0 for bounds in hidden]
        self.network = PaddedNetwork(
            weights=_padded(weights, (depth, *square)),
            biases=_padded([layer.bias for layer in network.layers], (depth, units[1])),
            widths=widths,
            affine_scales=_padded([scale[0] for scale in scales.affine], (depth, units[1])),
            relu_scales=_padded([scale[0] for scale in scales.relu], units),
            input_scales=scales.inputs[0],
        )
        self.root = PaddedBounds(
            _padded([bounds.lower[0] for bounds in hidden], units),
            _padded([bounds.upper[0] for bounds in hidden], units),
        )
        phases = [np.where(a, 1, np.where(b, -1, 0)) for a, b in zip(active, inactive, strict=True)]
        self.phases = _padded(phases, units).astype(np.int8)
        self.regions = PaddedRegions(
            np.concatenate([region.rows for region in regions]),
            np.concatenate([region.offsets for region in regions]),
            np.cumsum([0, *(len(region.rows) for region in regions)]),
            max(len(region.rows) for region in regions),
        )

    def bounds(
        self, boxes: Box, phases: PhaseArray, alive: BoolArray, goal: float, *, clips: bool
    ) -> tuple[Box, Found]:
        """What clipping leaves of the boxes, and `Found` of it; updates `phases` and `alive`."""
        from tasks.core.bounds.box_kernel import Found, bound_boxes

        count = len(boxes)
        found = Found(
            lower=np.empty(count),
            closed=np.empty(count),
            split=np.zeros(count, dtype=np.int64),
            points=np.zeros(boxes.lower.shape),
        )
        parts = boxes.lower.copy(), boxes.upper.copy()
        bound_boxes(
            self.network,
            self.root,
            self.regions,
            goal,
            clips,
            self.whole,
            *parts,
            phases,
            alive,
            found,
        )
        return Box(*parts), found


def _padded(parts: Sequence[NDArray[Any]], shape: tuple[int, ...]) -> FloatArray:
    """The arrays one after another along the first axis of `shape`, zeros around them."""
    result = np.zeros(shape)
    for place, part in enumerate(parts):
        result[place][tuple(map(slice, part.shape))] = part
    return result
