"""Branch and bound on the inputs, for networks with few of them (ACAS Xu has five).

Complete but for time and rounding: a box whose bounds leave a region open is halved along the input
on which its loosest relaxations depend most (after ReluVal's and Neurify's sensitivity, Wang et al.
2018); the box with the least bound goes first.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import BoolArray, FloatArray, IntArray
from tasks.core.attacks.falsification import reaches
from tasks.core.bounds.relaxations import Bounds
from tasks.core.bounds.rounding import rounding_scales
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import LinfBall, UnsafeRegion
from tasks.core.search.outcome import Goal, Search, worst_first

BATCH = 256

PhaseArray = NDArray[np.int8]


class InputSearch:
    """The search over one box and the regions that share it; see `Goal` for what `goal` bounds."""

    def __init__(
        self,
        network: ReluNetwork,
        box: LinfBall,
        regions: Sequence[UnsafeRegion],
        hidden: Sequence[Bounds],
        goal: float = 0.0,
    ) -> None:
        self.network, self.box, self.regions, self.goal = network, box, regions, Goal(goal)
        self.padded = _Padded(network, box, regions, hidden)
        # (bound, order, box's lower and upper, phases, open regions, input to split)
        self.heap: list[tuple[float, int, LinfBall, PhaseArray, BoolArray, int]] = []
        self.order = itertools.count()
        self.boxes = 0
        self.stuck = 0
        self.closed_lower = np.inf
        self.candidate: FloatArray | None = None

    def run(self, deadline: float) -> Search:
        """Bounds and halves until all is closed, a point is found, or the deadline passes."""
        if self.boxes == 0:
            alive = np.ones((1, len(self.regions)), dtype=bool)
            self._bound(self.box, self.padded.phases[None], alive, np.full(1, -np.inf))
        while (
            self.candidate is None
            and self.goal.worth_more(self.heap, self.boxes)
            and time.monotonic() < deadline
        ):
            self._bound(*self._halves())
        open_lower = min((entry[0] for entry in self.heap), default=np.inf)
        proved = open_lower > 0 and self.candidate is None and not self.stuck
        reason = "" if proved else f"input splitting: {len(self.heap)} open of {self.boxes} boxes"
        if self.stuck:
            reason += f", {self.stuck} too thin to split"
        lower = float(min(open_lower, self.closed_lower))
        return Search(proved, self.candidate, lower, self.boxes, reason)

    def _halves(self) -> tuple[LinfBall, PhaseArray, BoolArray, FloatArray]:
        """Both halves of the boxes with the least bounds, and these."""
        batch = worst_first(self.heap, BATCH)
        lower = np.repeat(np.concatenate([box.lower for _, _, box, *_ in batch]), 2, axis=0)
        upper = np.repeat(np.concatenate([box.upper for _, _, box, *_ in batch]), 2, axis=0)
        phases = np.repeat(np.stack([entry[3] for entry in batch]), 2, axis=0)
        alive = np.repeat(np.stack([entry[4] for entry in batch]), 2, axis=0)
        rows, split = 2 * np.arange(len(batch)), np.array([entry[5] for entry in batch])
        middle = (lower[rows, split] + upper[rows, split]) / 2
        known = np.repeat(np.array([entry[0] for entry in batch]), 2)
        thin = ~((middle > lower[rows, split]) & (middle < upper[rows, split]))
        ended = known[rows][thin]
        self.stuck += int((~(ended > 0)).sum())
        self.closed_lower = min(self.closed_lower, float(ended.min(initial=np.inf)))
        upper[rows, split], lower[rows + 1, split] = middle, middle
        keep = np.repeat(~thin, 2)
        return LinfBall(lower[keep], upper[keep]), phases[keep], alive[keep], known[keep]

    def _bound(
        self, boxes: LinfBall, phases: PhaseArray, alive: BoolArray, known: FloatArray
    ) -> None:
        """Queues the boxes that stay open.

        `alive` marks regions open in the parent box, `known` bounds their excess there.
        """
        lower, closed, split, points = self.padded.bounds(boxes, phases, alive, self.goal.bound)
        lower = np.fmax(lower, known)
        self.boxes += len(boxes)
        self.closed_lower = min(self.closed_lower, float(closed.min(initial=np.inf)))
        # NaN is not above zero: such a box stays open, and nothing is proved of it
        rows = np.flatnonzero(alive.any(axis=1))
        self._try_points(np.concatenate([points[rows], (boxes.lower + boxes.upper)[rows] / 2]))
        for row in rows.tolist():
            one = boxes[slice(row, row + 1)]
            entry = (phases[row].copy(), alive[row].copy(), int(split[row]))
            heapq.heappush(self.heap, (float(lower[row]), next(self.order), one, *entry))

    def _try_points(self, points: FloatArray) -> None:
        if len(points) == 0:
            return
        points = np.clip(points, self.box.lower, self.box.upper)
        outputs = self.network(points)
        for region in self.regions:
            excess = region.excess(outputs)
            deepest = int(excess.argmin())
            self.goal.least_seen = min(self.goal.least_seen, float(excess[deepest]))
            if reaches(self.network, region, points[deepest]):
                self.candidate = points[deepest]


class _Padded:
    """The network, its rounding scales and the regions in arrays of one width, for the kernel."""

    def __init__(
        self,
        network: ReluNetwork,
        box: LinfBall,
        regions: Sequence[UnsafeRegion],
        hidden: Sequence[Bounds],
    ) -> None:
        depth = len(network.layers)
        self.widths = np.array([network.num_inputs, *(len(a.bias) for a in network.layers)])
        width = int(self.widths.max())
        scales = rounding_scales(network, depth - 1, hidden, box)
        self.weights = np.zeros((depth, width, width))
        self.biases, self.affine_scales = np.zeros((depth, width)), np.zeros((depth, width))
        for index, layer in enumerate(network.layers):
            outputs, inputs = layer.matrix.shape
            self.weights[index, :outputs, :inputs] = layer.weight
            self.biases[index, :outputs] = layer.bias
            self.affine_scales[index, :outputs] = scales.affine[index][0]
        shape = (max(depth - 1, 1), width)
        self.relu_scales = np.zeros(shape)
        self.root_lower, self.root_upper = np.zeros(shape), np.zeros(shape)
        self.phases = np.zeros(shape, dtype=np.int8)
        for index, (bounds, linear) in enumerate(zip(hidden, network.linear, strict=True)):
            units = slice(0, len(linear))
            self.relu_scales[index, units] = scales.relu[index][0]
            self.root_lower[index, units] = bounds.lower[0]
            self.root_upper[index, units] = bounds.upper[0]
            active, inactive = (bounds.lower[0] >= 0) | linear, bounds.upper[0] <= 0
            self.phases[index, units] = np.where(active, 1, np.where(inactive, -1, 0))
        self.input_scales = scales.inputs[0]
        self.rows = np.concatenate([region.rows for region in regions])
        self.offsets = np.concatenate([region.offsets for region in regions])
        self.places = np.repeat(np.arange(len(regions)), [len(region.rows) for region in regions])

    def bounds(
        self, boxes: LinfBall, phases: PhaseArray, alive: BoolArray, goal: float
    ) -> tuple[FloatArray, FloatArray, IntArray, FloatArray]:
        """See `box_kernel.bound_boxes`: bounds, inputs to split and candidates."""
        from tasks.core.bounds.box_kernel import bound_boxes

        count, inputs = boxes.lower.shape
        lower, closed = np.empty(count), np.empty(count)
        split = np.zeros(count, dtype=np.int64)
        points = np.zeros((count, inputs))
        bound_boxes(
            self.weights,
            self.biases,
            self.widths,
            self.affine_scales,
            self.relu_scales,
            self.input_scales,
            self.root_lower,
            self.root_upper,
            self.rows,
            self.offsets,
            self.places,
            goal,
            np.ascontiguousarray(boxes.lower),
            np.ascontiguousarray(boxes.upper),
            phases,
            alive,
            lower,
            closed,
            split,
            points,
        )
        return lower, closed, split, points
