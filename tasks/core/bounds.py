"""Sound bounds on a `ReluNetwork` over boxes: intervals and backward linear bounds (CROWN).

Every bound holds in exact arithmetic for the float64 network: it is moved outwards by an a-priori
bound on what rounding can have changed (Higham 2002, "Accuracy and Stability of Numerical
Algorithms", eq. 3.5: a dot product of n terms errs by at most n·u/(1 - n·u) times the sum of the
terms' magnitudes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tasks.core.network import ReluNetwork
from tasks.core.specification import FloatArray, LinfBall, adversary_classes

Method = Literal["interval", "crown"]

UNIT_ROUNDOFF = 2.0**-53
CHUNK_ENTRIES = 2**24  # of a batch of coefficient matrices: 128 MB, and a few such live at once


@dataclass(frozen=True, eq=False)
class ReluRelaxation:
    """Lines around relu(z) for z in [lower, upper], elementwise.

    `lower_slope * z <= relu(z) <= upper_slope * z + upper_intercept` (Zhang et al. 2018, "Efficient
    Neural Network Robustness Certification with General Activation Functions"); the lower slope is
    the one of 0 and 1 whose triangle is smaller.
    """

    lower_slope: FloatArray
    upper_slope: FloatArray
    upper_intercept: FloatArray

    @classmethod
    def of(cls, lower: FloatArray, upper: FloatArray) -> ReluRelaxation:
        unstable = (lower < 0) & (upper > 0)
        chord = upper / np.where(unstable, upper - lower, 1)
        active = (lower >= 0).astype(np.float64)
        return cls(
            lower_slope=np.where(unstable, (upper > -lower).astype(np.float64), active),
            upper_slope=np.where(unstable, chord, active),
            upper_intercept=np.where(unstable, -chord * lower, 0),
        )


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds `lower <= z <= upper` on one affine layer's outputs, each (batch, units)."""

    lower: FloatArray
    upper: FloatArray


def preactivation_bounds(network: ReluNetwork, ball: LinfBall, method: Method) -> list[Bounds]:
    """Sound bounds on the inputs of every ReLU layer, over each box of the batch.

    `interval` propagates boxes (Gowal et al. 2018); `crown` intersects that with backward linear
    bounds layer by layer, so it is never looser.
    """
    hidden: list[Bounds] = []
    for depth, layer in enumerate(network.layers[:-1]):
        bounds = _interval_step(network, depth, hidden, ball)
        if method == "crown" and depth > 0:  # for the first layer the interval is already exact
            identity = np.eye(len(layer.bias))
            lower = linear_lower_bounds(network, depth, identity, hidden, ball)
            upper = -linear_lower_bounds(network, depth, -identity, hidden, ball)
            bounds = Bounds(np.maximum(bounds.lower, lower), np.minimum(bounds.upper, upper))
        hidden.append(bounds)
    return hidden


def margin_lower_bounds(
    network: ReluNetwork, ball: LinfBall, labels: ArrayLike, hidden: list[Bounds]
) -> FloatArray:
    """Sound lower bounds on every margin: (batch, classes - 1), in `adversary_classes` order.

    Positive proves that class away; not complete. With `hidden` from intervals this is CROWN-IBP
    (Zhang et al. 2020), with `hidden` from CROWN it is CROWN.
    """
    return linear_lower_bounds(
        network, len(network.layers) - 1, margin_rows(labels, network.num_outputs), hidden, ball
    )


def margin_rows(labels: ArrayLike, num_classes: int) -> FloatArray:
    """Rows C with `C @ logits` the margins: shape (batch, classes - 1, classes)."""
    true = np.asarray(labels, dtype=np.int64)
    rows = -np.eye(num_classes)[adversary_classes(true, num_classes)]
    np.put_along_axis(rows, true[:, None, None], 1.0, axis=2)
    return rows


def linear_lower_bounds(
    network: ReluNetwork, depth: int, rows: FloatArray, hidden: list[Bounds], ball: LinfBall
) -> FloatArray:
    """Sound lower bounds on `rows @ z`, z the outputs of affine layer `depth` (counted from 0).

    Args:
        rows: shape (m, units), or (batch, m, units) with other rows for each box.
        hidden: bounds on the ReLU layers before `depth`.

    Returns:
        Shape (batch, m): the best of the bounds that the backward pass meets on its way, among them
        the interval bound (at the last hidden layer's box) and CROWN's (at the input box).
    """
    num_rows = rows.shape[-2]
    widest = max(layer.weight.shape[1] for layer in network.layers[: depth + 1])
    size = max(1, CHUNK_ENTRIES // (num_rows * widest))
    result = np.empty((len(ball), num_rows))
    for start in range(0, len(ball), size):
        chunk = slice(start, start + size)
        chunk_hidden = [Bounds(bounds.lower[chunk], bounds.upper[chunk]) for bounds in hidden]
        chunk_rows = rows[chunk] if rows.ndim == 3 else rows[None]
        result[chunk] = _backward(network, depth, chunk_rows, chunk_hidden, ball[chunk])
    return result


def _backward(
    network: ReluNetwork, depth: int, rows: FloatArray, hidden: list[Bounds], ball: LinfBall
) -> FloatArray:
    coefficients, constant, best = rows, np.zeros((len(ball), 1)), np.array(-np.inf)
    for index in range(depth, -1, -1):
        layer = network.layers[index]
        constant = constant + coefficients @ layer.bias
        coefficients = coefficients @ layer.weight
        if index == 0:
            return np.maximum(best, _least(coefficients, ball.lower, ball.upper) + constant) - (
                rounding_error(network, depth, rows, hidden, ball)
            )
        before = hidden[index - 1]
        box = _least(coefficients, np.maximum(before.lower, 0), np.maximum(before.upper, 0))
        best = np.maximum(best, box + constant)
        relaxation = ReluRelaxation.of(before.lower, before.upper)
        positive, negative = np.maximum(coefficients, 0), np.minimum(coefficients, 0)
        constant = constant + np.einsum("bmn,bn->bm", negative, relaxation.upper_intercept)
        coefficients = positive * relaxation.lower_slope[:, None, :]
        coefficients += negative * relaxation.upper_slope[:, None, :]
    raise AssertionError("the loop returns at the first layer")


def _least(coefficients: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Minimum of `coefficients @ x` over the box: (batch, m, n) and (batch, n) to (batch, m)."""
    center, radius = (upper + lower) / 2, (upper - lower) / 2
    middle, spread = coefficients @ center[:, :, None], np.abs(coefficients) @ radius[:, :, None]
    return (middle - spread)[..., 0]


def rounding_error(
    network: ReluNetwork, depth: int, rows: FloatArray, hidden: list[Bounds], ball: LinfBall
) -> FloatArray:
    """How far rounding can have moved a bound on `rows @ z` of layer `depth`: (batch, m).

    Every term that the backward pass sums is bounded by the same sums over magnitudes: weights by
    their absolute values, slopes by 1, intercepts by the magnitude of the neuron they belong to
    (`-lower * upper / (upper - lower) <= -lower`), so a ReLU at most doubles a magnitude. Twice the
    count of roundings covers that this bound is itself computed in float64.
    """
    magnitude, roundings = np.maximum(np.abs(ball.lower), np.abs(ball.upper)), 0
    for index, layer in enumerate(network.layers[: depth + 1]):
        if index > 0:
            before = hidden[index - 1]
            intercepts = (before.lower < 0) & (before.upper > 0)
            magnitude = np.where(before.upper <= 0, 0, magnitude) * np.where(intercepts, 2, 1)
        magnitude = magnitude @ np.abs(layer.weight).T + np.abs(layer.bias)
        roundings += layer.weight.shape[1] + 8
    roundings += rows.shape[-1] + 8
    relative = 2 * roundings * UNIT_ROUNDOFF / (1 - 2 * roundings * UNIT_ROUNDOFF)
    error: FloatArray = relative * (np.abs(rows) @ magnitude[:, :, None])[..., 0]
    return error


def _interval_step(
    network: ReluNetwork, depth: int, hidden: list[Bounds], ball: LinfBall
) -> Bounds:
    """Bounds on affine layer `depth` from the box of the layer before it."""
    layer = network.layers[depth]
    box = ball if depth == 0 else _relu_box(hidden[-1])
    center, radius = (box.upper + box.lower) / 2, (box.upper - box.lower) / 2
    middle, spread = layer(center), radius @ np.abs(layer.weight).T
    magnitude = (np.abs(center) + radius) @ np.abs(layer.weight).T + np.abs(layer.bias)
    error = 2 * (layer.weight.shape[1] + 8) * UNIT_ROUNDOFF * magnitude
    return Bounds(middle - spread - error, middle + spread + error)


def _relu_box(bounds: Bounds) -> LinfBall:
    return LinfBall(np.maximum(bounds.lower, 0), np.maximum(bounds.upper, 0))
