"""How steeply an output rises along one input: linear bounds on the slope over boxes.

Along an input e a ReLU network is piecewise linear, and where it has a derivative that is
W_L D_{L-1} ... D_1 W_1 e, each D diagonal: 1 where a unit is active, 0 where it is not. Over a box
a unit that never changes phase has its entry, the others have any from 0 to 1. With t in [a, b]
before a layer's D, low = min(a, 0) and high = max(b, 0), what comes out of it lies between

    (low high - low t) / (high - low)   and   (high t - low high) / (high - low),

lines that go backwards through the layers as CROWN's do (Shi et al. 2022, "Efficiently Computing
Local Lipschitz Constants of Neural Networks via Bound Propagation", do so for norms). Bounds on the
outputs of two points must tell apart what lies as close as it likes; a bound on the slope need not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.bounds.relaxations import Bounds
from tasks.core.bounds.rounding import HUGE, UNDERFLOW, gamma
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box

_Lines = tuple[FloatArray, FloatArray, FloatArray, FloatArray]  # the next four of a `_Step`
EXTRA = 16  # roundings of an interval's ends, a line and a sum of constants, beside those of W


@dataclass(frozen=True, eq=False)
class SlopeBounds:
    """What is known of the slope over each of a batch of boxes.

    Attributes:
        lower: sound, (batch,); -inf where a number may leave what float64 can be trusted with.
        dependence: how much it depends on each input through units that may change phase, per
            unit of the input, (batch, inputs); all zero where no unit may.
    """

    lower: FloatArray
    dependence: FloatArray


@np.errstate(over="ignore", invalid="ignore")
def slope_bounds(
    network: ReluNetwork, row: FloatArray, column: int, boxes: Box, deadline: float = np.inf
) -> SlopeBounds:
    """Of `row @ outputs`, row (outputs,), along the input at `column`.

    From a point of a box to another that is greater in this input alone, the row rises by at least
    `lower` times their distance, in exact arithmetic.
    """
    hidden = preactivation_bounds(network, boxes, "crown", deadline)
    steps = _forward(network, column, hidden, len(boxes))
    coefficients = np.tile(row, (len(boxes), 1))
    constant, best = np.zeros(len(boxes)), np.full(len(boxes), -np.inf)
    more = EXTRA + 4 * len(network.layers)  # each layer after adds to the constant at most so often
    dependences = list[FloatArray]()
    for layer, step in zip(network.layers[::-1], steps[::-1], strict=True):
        constant -= (np.abs(coefficients) * step.rounding).sum(axis=1)
        coefficients = layer.matrix.backward(coefficients)
        size, slopes = np.abs(coefficients), step.slopes
        constant -= gamma(size.shape[1] + more) * (size * slopes.magnitude).sum(axis=1)
        ends = np.where(coefficients > 0, slopes.lower, slopes.upper)
        best = np.fmax(best, (coefficients * ends).sum(axis=1) + constant)
        constant += (size * step.low * step.upper_line).sum(axis=1)
        dependences.append(size * (step.high - step.low))
        coefficients *= np.where(coefficients > 0, step.lower_line, step.upper_line)
    dependence = dependences[0]
    for layer, own in zip(network.layers[-2::-1], dependences[1:], strict=True):
        dependence = layer.absolute.matrix.backward(dependence) + own
    lower = np.where(np.abs(best) < HUGE, best - UNDERFLOW, -np.inf)
    return SlopeBounds(lower, dependence)


@dataclass(frozen=True, eq=False)
class _Step:
    """What an affine layer reads, (batch, inputs of the layer), and how its own sums round.

    Attributes:
        slopes: bounds on what it reads, after D.
        low, high: as in the module's words, of units that may change phase; 0 for others.
        lower_line, upper_line: how steep the lines are; for the others D itself.
        rounding: (batch, outputs of the layer).
    """

    slopes: Bounds
    low: FloatArray
    high: FloatArray
    lower_line: FloatArray
    upper_line: FloatArray
    rounding: FloatArray


def _forward(
    network: ReluNetwork, column: int, hidden: Sequence[Bounds], count: int
) -> list[_Step]:
    """A step for each layer, by intervals."""
    along, none = np.zeros((2, count, network.num_inputs))
    along[:, column] = 1
    steps = [_step(network, 0, Bounds(along, along), (none, none, none, none))]
    for depth, (bounds, linear) in enumerate(zip(hidden, network.linear, strict=True)):
        before = _affine(network.layers[depth], steps[-1])
        is_open = bounds.unstable(network.activations[depth])
        entry = ((bounds.lower >= 0) | linear).astype(np.float64)
        low = np.where(is_open, np.minimum(before.lower, 0), 0)
        high = np.where(is_open, np.maximum(before.upper, 0), 0)
        width = np.where(high > low, high - low, 1)
        after = Bounds(
            np.where(is_open, low, entry * before.lower),
            np.where(is_open, high, entry * before.upper),
        )
        lines = (np.where(is_open, -low / width, entry), np.where(is_open, high / width, entry))
        steps.append(_step(network, depth + 1, after, (low, high, *lines)))
    return steps


def _step(network: ReluNetwork, depth: int, slopes: Bounds, lines: _Lines) -> _Step:
    layer, (whole, folds) = network.layers[depth], network.sums(depth)
    factor = gamma(sum(layer.matrix.shape) + folds + EXTRA)
    rounding = factor * whole.matrix.forward(slopes.magnitude) + UNDERFLOW
    if not max(layer.magnitude, whole.magnitude) < HUGE:
        rounding = np.full_like(rounding, np.inf)
    return _Step(slopes, *lines, rounding)


def _affine(layer: Affine, step: _Step) -> Bounds:
    """Of W times what the layer reads; infinite where a number may reach `HUGE`."""
    lower, upper = step.slopes.lower, step.slopes.upper
    middle = layer.matrix.forward((lower + upper) / 2)
    reach = layer.absolute.matrix.forward((upper - lower) / 2) + step.rounding
    is_safe = np.abs(middle) + reach < HUGE
    return Bounds(
        np.where(is_safe, middle - reach, -np.inf), np.where(is_safe, middle + reach, np.inf)
    )
