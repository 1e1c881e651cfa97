"""Sound bounds on a `ReluNetwork` over boxes: intervals and backward linear bounds (CROWN).

Rounding errors are added as `rounding` derives them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tasks.core.arrays import BoolArray, FloatArray
from tasks.core.bounds.relaxations import Bounds, Relaxation, activation_box
from tasks.core.bounds.rounding import HUGE, UNDERFLOW, Magnitudes, RoundingScales, gamma
from tasks.core.networks.activation import Activation
from tasks.core.networks.matrices import Matrix
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box, Ellipsoid
from tasks.core.properties.specification import margin_rows

Method = Literal["interval", "crown"]

PlaneTerms = Callable[[FloatArray], tuple[FloatArray, FloatArray]]

CHUNK_ENTRIES = 2**22  # of a batch of coefficient matrices: 32 MB, and a few such live at once


def preactivation_bounds(
    network: ReluNetwork, ball: Box, method: Method, deadline: float = np.inf
) -> list[Bounds]:
    """Sound bounds on the inputs of every ReLU layer, over each box of the batch.

    `interval` propagates boxes (Gowal et al. 2018); `crown` intersects that with backward linear
    bounds layer by layer, so it is never looser. What `crown` has not come to at `deadline`, in
    seconds of `time.monotonic`, keeps its interval bounds.
    """
    before = _Before(network, ball)
    for depth in range(len(network.layers) - 1):
        bounds = interval_step(network, depth, before.hidden, ball)
        if method == "crown" and depth > 0:  # for the first layer the interval is already exact
            bounds = _crown_step(network, before, bounds, deadline)
        before.append(bounds)
    return before.hidden


def _crown_step(network: ReluNetwork, before: _Before, interval: Bounds, deadline: float) -> Bounds:
    """`interval` with the units that it leaves unstable in some box bounded backwards as well."""
    depth = len(before.hidden)
    open_units = np.flatnonzero(interval.unstable(network.activations[depth]).any(axis=0))
    lower, upper = interval.lower.copy(), interval.upper.copy()
    size = max(1, CHUNK_ENTRIES // (2 * _widest(network, depth)))
    for start in range(0, len(open_units), size):
        if time.monotonic() > deadline:
            break
        units = open_units[start : start + size]
        rows = np.zeros((2 * len(units), lower.shape[1]))
        places = np.arange(len(units))
        rows[places, units], rows[len(units) + places, units] = 1, -1
        both = before.lower_bounds(rows)
        lower[:, units] = np.maximum(lower[:, units], both[:, : len(units)])
        upper[:, units] = np.minimum(upper[:, units], -both[:, len(units) :])
    return Bounds(lower, upper)


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
    """Whether every margin is proved positive, (batch,): by intervals, else by CROWN-IBP."""
    labels = np.asarray(labels)
    hidden = preactivation_bounds(network, ball, "interval")
    rows = margin_rows(labels, network.num_outputs)
    lower = interval_lower_bounds(network, rows, hidden, ball)
    left = np.flatnonzero(~(lower > 0).all(axis=1))
    if len(left):
        near = [bounds[left] for bounds in hidden]
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

    def append(self, bounds: Bounds) -> None:
        """Goes on to the next layer, with bounds on the hidden layer between."""
        activation = self.network.activations[len(self.hidden)]
        self.hidden.append(bounds)
        self.relaxations.append(Relaxation.of(bounds, activation))
        self.magnitudes.append(bounds)

    def lower_bounds(self, rows: FloatArray) -> FloatArray:
        """See `linear_lower_bounds`: of rows over the layer's outputs."""
        num_rows = rows.shape[-2]
        size = max(1, CHUNK_ENTRIES // (num_rows * _widest(self.network, len(self.hidden))))
        result = np.empty((len(self.ball), num_rows))
        for start in range(0, len(self.ball), size):
            some = slice(start, start + size)
            boxes = self.ball[some]
            result[some] = backward_bounds(
                self.network,
                np.broadcast_to(
                    rows[some] if rows.ndim == 3 else rows, (len(boxes), *rows.shape[-2:])
                ),
                [bounds[some] for bounds in self.hidden],
                [relaxation[some] for relaxation in self.relaxations],
                boxes,
                self.magnitudes.scales(some),
            )
        return result


@np.errstate(over="ignore", invalid="ignore")
def backward_bounds(
    network: ReluNetwork,
    rows: FloatArray,
    hidden: Sequence[Bounds],
    relaxations: Sequence[Relaxation],
    ball: Box,
    scales: RoundingScales,
    split_terms: Sequence[FloatArray] | None = None,
    split_offsets: Sequence[FloatArray] | None = None,
    planes: PlaneTerms | None = None,
) -> FloatArray:
    """Rows (batch, m, units) over the outputs of layer `len(hidden)`, to bounds (batch, m).

    `hidden`, `ball` and `scales` may have a batch of 1 for all. `split_terms`, (batch, units) for
    each hidden layer, are multipliers of the constraints of split ReLUs times their signs: where
    `sign * z >= 0` holds and the multiplier is not negative, `f >= f - multiplier * sign * z`, so
    the bound holds wherever the splits do (Wang et al. 2021, "Beta-CROWN", theorem 3.1). Where
    `sign * (z - p) >= 0` holds instead, `split_offsets` are the terms times p. `planes`
    gives, for the negative coefficients (batch, m, units) of the first layer's activations, rows
    over the inputs and constants that bound part of their sum from below, where the relaxation
    has upper lines of zero.
    """
    depth = len(hidden)
    coefficients = rows
    constant, best = np.zeros(rows.shape[:2]), np.full(rows.shape[:2], -np.inf)
    direct: FloatArray | float = 0.0
    for index in range(depth, -1, -1):
        layer = network.layers[index]
        constant += coefficients @ layer.bias - _dot(np.abs(coefficients), scales.affine[index])
        coefficients = _times(coefficients, layer.matrix)
        if index == 0:
            coefficients = coefficients + direct
            last = _concrete(coefficients, ball, scales.inputs) + constant
            return _held(np.maximum(best, last))
        activation, relaxation = network.activations[index - 1], relaxations[index - 1]
        box = activation_box(hidden[index - 1], activation)
        best = np.maximum(best, _concrete(coefficients, box, scales.relu[index - 1]) + constant)
        positive, negative = np.maximum(coefficients, 0), np.minimum(coefficients, 0)
        constant += _dot(negative, relaxation.upper_intercept)
        constant -= _dot(positive - negative, scales.relu[index - 1])
        coefficients = positive * relaxation.lower_slope[:, None, :]
        coefficients += negative * relaxation.upper_slope[:, None, :]
        if activation.is_curved:
            constant += _curved_terms(activation, relaxation, positive, negative, coefficients)
        if planes is not None and index == 1:
            direct, below = planes(negative)
            constant += below
        if split_terms is not None:
            terms = split_terms[index - 1][:, None, :]
            coefficients -= terms
            constant -= _dot(np.abs(terms), scales.relu[index - 1])
            if split_offsets is not None:
                size = np.abs(split_offsets[index - 1])
                own = split_offsets[index - 1] - gamma(size.shape[1] + 8) * size
                constant += own.sum(axis=1)[:, None]
    raise AssertionError("the loop returns at the first layer")


def _curved_terms(
    activation: Activation,
    relaxation: Relaxation,
    positive: FloatArray,
    negative: FloatArray,
    coefficients: FloatArray,
) -> FloatArray:
    """What the heights of curved units' lower lines add; `coefficients` get what partners add."""
    products = activation.products
    if len(products):
        assert relaxation.lower_partner is not None
        assert relaxation.upper_partner is not None
        added = positive[..., products] * relaxation.lower_partner[:, None, products]
        added += negative[..., products] * relaxation.upper_partner[:, None, products]
        coefficients += activation.at_partners(added)
    assert relaxation.lower_height is not None
    return _dot(positive, relaxation.lower_height)


def _held(bounds: FloatArray) -> FloatArray:
    """Lower bounds as far as they prove something: an overflow on the way ends beyond `HUGE`."""
    return np.where(np.abs(bounds) < HUGE, bounds - UNDERFLOW, -np.inf)


def _times(coefficients: FloatArray, matrix: Matrix) -> FloatArray:
    """One large matrix product instead of one for each box: (batch, m, n) to (batch, m, k)."""
    batch, rows, units = coefficients.shape
    if coefficients.strides[0] == 0:  # the same for all boxes
        once = matrix.backward(np.ascontiguousarray(coefficients[0]))
        return np.broadcast_to(once, (batch, *once.shape))
    return matrix.backward(coefficients.reshape(-1, units)).reshape(batch, rows, -1)


def _dot(coefficients: FloatArray, values: FloatArray) -> FloatArray:
    """(batch, m, n) and (batch, n) to (batch, m)."""
    return (coefficients @ values[:, :, None])[..., 0]


def _concrete(coefficients: FloatArray, box: Box, scale: FloatArray) -> FloatArray:
    """Minimum of `coefficients @ x` over the box, less rounding: (batch, m, n) to (batch, m)."""
    center, radius = (box.upper + box.lower) / 2, (box.upper - box.lower) / 2
    least = _dot(coefficients, center) - _dot(np.abs(coefficients), radius + scale)
    if isinstance(box, Ellipsoid):
        within = _dot(coefficients, box.center) - _dot(np.abs(coefficients), scale)
        least = np.maximum(least, within + box.least(coefficients))
    return least


@np.errstate(over="ignore", invalid="ignore")
def interval_step(network: ReluNetwork, depth: int, hidden: Sequence[Bounds], ball: Box) -> Bounds:
    """Bounds on affine layer `depth` from the box of the layer before it.

    Infinite where a weight or a value may reach `HUGE`.
    """
    layer = network.layers[depth]
    box = ball if depth == 0 else activation_box(hidden[depth - 1], network.activations[depth - 1])
    center, radius = (box.upper + box.lower) / 2, (box.upper - box.lower) / 2
    middle, spread = layer(center), layer.absolute.matrix.forward(radius)
    magnitude = layer.absolute(np.abs(center) + radius)
    error = gamma(layer.matrix.shape[1] + 8) * magnitude + UNDERFLOW  # n is the number of inputs
    held = (magnitude < HUGE) & (layer.magnitude < HUGE)
    return Bounds(
        np.where(held, middle - spread - error, -np.inf),
        np.where(held, middle + spread + error, np.inf),
    )
