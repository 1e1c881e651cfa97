"""Sound bounds on a `ReluNetwork` over boxes: intervals and backward linear bounds (CROWN).

Rounding errors are added as `rounding` derives them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tasks.core.arrays import BoolArray, FloatArray, IntArray
from tasks.core.bounds.backward import Surroundings, through_affine
from tasks.core.bounds.precision import (
    DOUBLE,
    SINGLE,
    Precision,
    matrices_up_to,
    single_roundings,
    unit_precision,
)
from tasks.core.bounds.relaxations import Bounds, Relaxation, activation_box
from tasks.core.bounds.rounding import HUGE, UNDERFLOW, Magnitudes, RoundingScales, gamma
from tasks.core.networks.matrices import Backward
from tasks.core.networks.network import ReluNetwork
from tasks.core.networks.threads import in_threads
from tasks.core.properties.box import Box
from tasks.core.properties.specification import margin_rows

Method = Literal["interval", "crown"]

CHUNK_BYTES = 2**22  # of coefficients at once, which caches hold
PARTS_AT_ONCE = 8  # of that size, shared by threads; each holds its tables


def preactivation_bounds(
    network: ReluNetwork,
    ball: Box,
    method: Method,
    deadline: float = np.inf,
    known: Sequence[Bounds] = (),
    widest: int | None = None,
) -> list[Bounds]:
    """Sound bounds on the inputs of every hidden layer, over each box of the batch.

    `interval` propagates boxes (Gowal et al. 2018); `crown` intersects that with backward linear
    bounds layer by layer, so it is never looser. What `crown` has not come to at `deadline`, in
    seconds of `time.monotonic`, keeps its interval bounds. `known`, of all layers, is never left;
    layers of more than `widest` units keep that, too.
    """
    return _bounded(network, ball, method, deadline, known, widest).hidden


def row_bounds(
    network: ReluNetwork,
    ball: Box,
    rows: FloatArray,
    known: Sequence[Bounds],
    widest: int | None,
    deadline: float = np.inf,
) -> tuple[FloatArray, list[Bounds], list[Relaxation]]:
    """`linear_lower_bounds` on the outputs, (batch, m), the hidden bounds behind them, their lines.

    For `known`, `widest` and `deadline` see `preactivation_bounds` of `crown`.
    """
    before = _bounded(network, ball, "crown", deadline, known, widest)
    return before.lower_bounds(rows), before.hidden, before.relaxations


def _bounded(
    network: ReluNetwork,
    ball: Box,
    method: Method,
    deadline: float,
    known: Sequence[Bounds],
    widest: int | None,
) -> _Before:
    """Of all hidden layers; see `preactivation_bounds`."""
    before = _Before(network, ball)
    for depth in range(len(network.layers) - 1):
        bounds = interval_step(network, depth, before.hidden, ball)
        bounds = bounds.intersected(known[depth]) if known else bounds
        is_narrow = widest is None or len(network.layers[depth].bias) <= widest
        if method == "crown" and depth > 0 and is_narrow:  # the first layer's interval is exact
            is_open = bounds.unstable(network.activations[depth])
            bounds = bounds.intersected(before.unit_bounds(is_open, deadline))
        before.append(bounds)
    return before


def _entries(precision: Precision) -> int:
    """How many coefficients at once."""
    return CHUNK_BYTES // np.dtype(precision.dtype).itemsize


def _widest(network: ReluNetwork, depth: int) -> int:
    """The most values that a layer up to `depth` reads or gives."""
    return max(max(layer.matrix.shape) for layer in network.layers[: depth + 1])


def margin_lower_bounds(
    network: ReluNetwork, ball: Box, labels: ArrayLike, hidden: list[Bounds]
) -> FloatArray:
    """Sound lower bounds on every margin: (batch, classes - 1), in `adversary_classes` order.

    Positive proves that class away; not complete. With `hidden` from intervals this is CROWN-IBP
    (Zhang et al. 2020), with `hidden` from CROWN it is CROWN.
    """
    return linear_lower_bounds(
        network, len(network.layers) - 1, margin_rows(labels, network.num_outputs), hidden, ball
    )


def certified(network: ReluNetwork, ball: Box, labels: ArrayLike) -> BoolArray:
    """Whether every margin is proved positive, (batch,): by intervals, CROWN-IBP or CROWN."""
    labels = np.asarray(labels)
    hidden = preactivation_bounds(network, ball, "interval")
    rows = margin_rows(labels, network.num_outputs)
    lower = interval_lower_bounds(network, rows, hidden, ball)
    for method in ("interval", "crown"):
        left = np.flatnonzero(~(lower > 0).all(axis=1))
        if len(left) == 0:
            break
        near = [bounds[left] for bounds in hidden]
        if method == "crown" and len(hidden) > 1:  # one layer's intervals are exact already
            near = preactivation_bounds(network, ball[left], "crown")
        lower[left] = margin_lower_bounds(network, ball[left], labels[left], near)
    return np.asarray((lower > 0).all(axis=1))


def interval_lower_bounds(
    network: ReluNetwork, rows: FloatArray, hidden: Sequence[Bounds], ball: Box
) -> FloatArray:
    """Like `linear_lower_bounds` on the outputs, but from the last hidden layer's box alone."""
    box = activation_box(hidden[-1], network.activations[-1]) if hidden else ball
    last = ReluNetwork(network.layers[-1:], roundings=network.roundings[-1:])
    return linear_lower_bounds(last, 0, rows, [], box)


def linear_lower_bounds(
    network: ReluNetwork, depth: int, rows: FloatArray, hidden: list[Bounds], ball: Box
) -> FloatArray:
    """Sound lower bounds on `rows @ z`, z the outputs of affine layer `depth` (counted from 0).

    Args:
        rows: shape (m, units), or (batch, m, units) with other rows for each box.
        hidden: bounds on the ReLU layers before `depth`.

    Returns:
        Shape (batch, m): the best of the bounds that the backward pass meets on its way, among them
        the interval bound (at the last hidden layer's box) and CROWN's (at the input box).
    """
    before = _Before(network, ball)
    for bounds in hidden[:depth]:
        before.append(bounds)
    return before.lower_bounds(rows)


class _Before:
    """What lies before an affine layer, and all that backward passes from it share."""

    def __init__(self, network: ReluNetwork, ball: Box) -> None:
        self.network, self.ball = network, ball
        self.hidden: list[Bounds] = []
        self.relaxations: list[Relaxation] = []
        self.magnitudes = Magnitudes(network, ball)
        self.precision = unit_precision(network)

    def append(self, bounds: Bounds) -> None:
        """Goes on to the next layer, with bounds on the hidden layer between."""
        activation = self.network.activations[len(self.hidden)]
        self.hidden.append(bounds)
        self.relaxations.append(Relaxation.of(bounds, activation))
        self.magnitudes.append(bounds)

    def surroundings(self, scales: RoundingScales) -> Surroundings:
        """Of all boxes."""
        return Surroundings.of(self.network, self.hidden, self.relaxations, self.ball, scales)

    def lower_bounds(self, rows: FloatArray) -> FloatArray:
        """See `linear_lower_bounds`: of rows over the layer's outputs."""
        network, depth, num_rows = self.network, len(self.hidden), rows.shape[-2]
        rows = np.broadcast_to(rows, (len(self.ball), *rows.shape[-2:]))
        scales, result = self.magnitudes.scales(), np.empty((len(self.ball), num_rows))
        around = self.surroundings(scales)
        matrices = [layer.matrix for layer in network.layers]
        size = max(1, _entries(DOUBLE) // (num_rows * _widest(network, depth)))
        for start in range(0, len(self.ball), size):
            some = slice(start, start + size)
            flat = rows[some].reshape(-1, rows.shape[-1])
            owners = np.repeat(np.arange(len(self.ball))[some], num_rows)
            constant = through_affine(network, depth, flat, scales.affine[depth][owners])
            coefficients = matrices[depth].backward(flat)
            bounds = around.lower_bounds(matrices, coefficients, owners, constant)
            result[some] = bounds.reshape(-1, num_rows)
        return result

    def unit_bounds(self, chosen: BoolArray, deadline: float) -> Bounds:
        """Of the layer's units that are `chosen`, (batch, units); infinite for others.

        What is not come to at `deadline` is infinite as well.
        """
        bounds = Bounds(np.full(chosen.shape, -np.inf), np.full(chosen.shape, np.inf))
        depth, is_single = len(self.hidden), self.precision is SINGLE
        scales = self.magnitudes.scales(
            single_roundings(self.network, depth) if is_single else None
        )
        around = self.surroundings(scales)
        layer, scale = self.network.layers[depth], scales.affine[depth]

        def bound(part: _Part) -> None:
            if time.monotonic() > deadline:
                return
            bias, lost = layer.bias[part.units], scale[part.boxes, part.units]
            both = part.around.lower_bounds(
                part.matrices,
                np.concatenate([part.rows, -part.rows]).astype(self.precision.dtype),
                np.tile(part.owners, 2),
                np.concatenate([bias - lost, -bias - lost]),
                precision=self.precision,
            )
            bounds.lower[part.boxes, part.units] = both[: len(bias)]
            bounds.upper[part.boxes, part.units] = -both[len(bias) :]

        parts = self._parts(chosen, around)
        while some := list(islice(parts, PARTS_AT_ONCE)):
            in_threads(bound, some)
        return bounds

    def _parts(self, chosen: BoolArray, around: Surroundings) -> Iterator[_Part]:
        """Of units that read little of the layers before, cone after cone; else of whole layers."""
        depth = len(self.hidden)
        found = self.network.cones(depth)
        if found is None:
            whole = matrices_up_to(self.network, depth, self.precision)
            boxes, units = np.nonzero(chosen)
            size = max(1, _entries(self.precision) // (2 * _widest(self.network, depth)))
            for start in range(0, len(units), size):
                some = slice(start, start + size)
                rows = whole[-1].rows(units[some])
                yield _Part(around, whole, boxes[some], units[some], boxes[some], rows)
            return
        for cone in found:
            at = chosen[:, cone.units]  # (boxes, places, f)
            boxes, places = np.nonzero(at.any(axis=2))
            entries = _entries(self.precision)
            size = max(1, entries // (2 * cone.units.shape[1] * cone.width))
            for start in range(0, len(boxes), size):
                box, place = boxes[start : start + size], places[start : start + size]
                owners, filters = np.nonzero(at[box, place])
                near = around.within(box, [read[place] for read in cone.reads])
                units = cone.units[place[owners], filters]
                mine = cone.single if self.precision is SINGLE else cone.matrices
                rows = cone.matrices[-1].rows(filters)
                matrices = cone.backwards(place, np.tile(owners, 2), mine)  # of both bounds
                yield _Part(near, matrices, box[owners], units, owners, rows)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some units of some boxes, (n,) each, and their weights (n, what they read)."""

    around: Surroundings
    matrices: Sequence[Backward]
    boxes: IntArray
    units: IntArray
    owners: IntArray
    rows: FloatArray


@np.errstate(over="ignore", invalid="ignore")
def interval_step(network: ReluNetwork, depth: int, hidden: Sequence[Bounds], ball: Box) -> Bounds:
    """Bounds on affine layer `depth` from the box of the layer before it.

    Infinite where a weight or a value may reach `HUGE`.
    """
    layer = network.layers[depth]
    box = ball if depth == 0 else activation_box(hidden[depth - 1], network.activations[depth - 1])
    center, radius = (box.upper + box.lower) / 2, (box.upper - box.lower) / 2
    middle, spread = layer(center), layer.absolute.matrix.forward(radius)
    whole, folds = network.sums(depth)
    magnitude = whole(np.abs(center) + radius)
    # n is the number of inputs
    error = gamma(layer.matrix.shape[1] + folds + 8) * magnitude + UNDERFLOW
    held = (magnitude < HUGE) & (max(layer.magnitude, whole.magnitude) < HUGE)
    return Bounds(
        np.where(held, middle - spread - error, -np.inf),
        np.where(held, middle + spread + error, np.inf),
    )
