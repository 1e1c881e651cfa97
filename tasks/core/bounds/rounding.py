"""What rounding can do to a bound that is computed in float64.

Every bound holds in exact arithmetic for what the model's steps make of its weights, of which the
float64 network is folded (see `ReluNetwork.sums`). A dot product of n terms errs by at
most gamma(n) = n·u / (1 - n·u) times the sum of the terms' magnitudes, in whatever order it is
summed (Higham 2002, "Accuracy and Stability of Numerical Algorithms", eq. 3.5); n is taken from the
shape of the layer's matrix, which no way of storing it exceeds (see `matrices`). The backward pass
replaces one linear function of a layer's values by another, so what rounding changed in a step is
at most gamma times `|coefficients|` times the greatest magnitudes of what they multiply; the sum
over the steps is subtracted from the bound.

At the ends of float64 errors are not relative. Below 2^-1022 a product loses up to 2^-1075 more:
lost in coefficients, that is multiplied by values of at most `HUGE` < 2^499, so that 2^60
operations lose less than 2^-515 < `UNDERFLOW`, which every bound gives up; lost in a scale of the
rounding error, it is multiplied by coefficients of any size, so every scale is larger by `tiny`.
Above, sums of finite numbers become infinite, and a chord's slope zero: where a weight or a value
may reach `HUGE`, or a bound does, nothing is proved.

Rows may be carried in float32 as well (see `precision`): coefficients and weights, while lines,
bounds and their sums stay in float64. How often a term of a product is rounded is asked of what
stores the weights: sums of sums of few terms err by little. A number below 2^-126 may be flushed to
zero. Lost in coefficients, that is multiplied by values below 2^40, so that 2^40 operations lose
less than 2^-40; lost in weights, it is multiplied by coefficients of any size, but up to 2^26
values below 2^40 times 2^-126 are less than 2^-60.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.bounds.precision import DOUBLE, SINGLE, Precision
from tasks.core.bounds.relaxations import Bounds, activation_box, curved_reach
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box

UNIT_ROUNDOFF = 2.0**-53
SINGLE_ROUNDOFF = 2.0**-24
HUGE = DOUBLE.huge  # of weights and values: the product of two is still a float64
UNDERFLOW = DOUBLE.underflow


def gamma(terms: int) -> float:
    """Relative rounding error of a sum of `terms` products, doubled.

    The doubling covers that the error bound itself is computed in float64.
    """
    return 2 * terms * UNIT_ROUNDOFF / (1 - 2 * terms * UNIT_ROUNDOFF)


def single_gamma(roundings: int) -> float:
    """Relative error of a sum in float32 each term of which is rounded so often.

    A little more, for the error bound's own rounding.
    """
    share = roundings * SINGLE_ROUNDOFF * (1 + 2.0**-20)
    return share / (1 - share) if share < 1 else np.inf


@dataclass(frozen=True, eq=False)
class RoundingScales:
    """The greatest magnitudes that a backward pass multiplies, times their gamma.

    `affine[k]`, (batch, outputs of layer k), belongs to the coefficients before layer k;
    `relu[k]`, (batch, units of hidden layer k), to those around its activation; `inputs` to those
    at the input box.
    """

    affine: list[FloatArray]
    relu: list[FloatArray]
    inputs: FloatArray


class Magnitudes:
    """The greatest magnitudes in boxes, layer after layer: the first is known, `append` adds one.

    A step through W multiplies |coefficients| with |W| |h| + |b|, h the activations it reads, W and
    b as they were before what is folded into them cancelled; one
    through a ReLU with |z|: slopes are at most 1, an intercept is at most |z|, and the chord's own
    four roundings are relative to |z|. Through a curved unit it is what its lines may reach.
    """

    def __init__(self, network: ReluNetwork, ball: Box) -> None:
        self.network = network
        self.inputs = np.maximum(np.abs(ball.lower), np.abs(ball.upper))
        self.affine = [self._reach(0, self.inputs)]
        self.relu: list[FloatArray] = []

    def append(self, bounds: Bounds) -> None:
        """The bounds on the next hidden layer."""
        activation, magnitude = self.network.activations[len(self.relu)], bounds.magnitude
        values = np.where(activation.linear, magnitude, np.maximum(bounds.upper, 0))
        if activation.is_curved:
            magnitude = np.maximum(magnitude, curved_reach(bounds, activation))
            box = activation_box(bounds, activation)
            values = np.maximum(np.abs(box.lower), np.abs(box.upper))
        self.relu.append(magnitude)
        self.affine.append(self._reach(len(self.relu), values))

    @np.errstate(over="ignore", invalid="ignore")
    def _reach(self, depth: int, values: FloatArray) -> FloatArray:
        return self.network.sums(depth)[0](values)

    @np.errstate(over="ignore", invalid="ignore")
    def scales(self, single: Sequence[int] | None = None) -> RoundingScales:
        """The scales for a backward pass from the last layer appended to.

        `single`: see `precision.single_roundings`; None of one in float64. Infinite where a weight
        or a value may be so huge that nothing is proved.
        """
        counts, held = ([0] * len(self.affine), DOUBLE) if single is None else (single, SINGLE)
        return RoundingScales(
            [self._affine_scale(*each, held) for each in enumerate(counts)],
            [_scaled(each, self._gamma(each.shape[1]), held) for each in self.relu],
            _scaled(self.inputs, self._gamma(self.network.num_inputs), held),
        )

    def _affine_scale(self, depth: int, roundings: int, held: Precision) -> FloatArray:
        layer, reach = self.network.layers[depth], self.affine[depth]
        whole, folds = self.network.sums(depth)
        is_held = max(layer.magnitude, whole.magnitude) < held.huge
        reach = reach if is_held else np.full_like(reach, np.inf)
        # At most so many products a sum, forwards or backwards.
        terms = sum(layer.matrix.shape) + folds
        # Before they meet W h, slopes are rounded as well, and so are weights.
        narrow = 0 if held is DOUBLE else roundings + 2
        return _scaled(reach, self._gamma(terms) + single_gamma(narrow), held)

    def _gamma(self, terms: int) -> float:
        """Constants of all layers may be terms of one sum: two of each unit, one of an input."""
        units = sum(len(layer.bias) for layer in self.network.layers)
        return gamma(terms + 2 * units + self.network.num_inputs + 8)


def rounding_scales(network: ReluNetwork, hidden: Sequence[Bounds], ball: Box) -> RoundingScales:
    """The scales for a backward pass from the layer behind those that `hidden` bounds."""
    magnitudes = Magnitudes(network, ball)
    for bounds in hidden:
        magnitudes.append(bounds)
    return magnitudes.scales()


def _scaled(magnitudes: FloatArray, factor: float, held: Precision) -> FloatArray:
    """The rounding error of numbers up to `magnitudes`; NaN is not below `huge` either."""
    return np.where(magnitudes < held.huge, magnitudes * factor + held.tiny, np.inf)


@np.errstate(over="ignore", invalid="ignore")
def evaluation_error(
    network: ReluNetwork, rows: FloatArray, hidden: Sequence[Bounds], ball: Box
) -> FloatArray:
    """How far rounding can move `rows @ network(x)` for any x of a box: rows (m, outputs), (b, m).

    Errors of one layer pass through the next as |W| times themselves; ReLU does not enlarge them.
    Not finite where a value may reach `HUGE`, nor for a curved network, whose units may.
    """
    if network.is_curved:
        return np.full((len(ball), len(rows)), np.inf)
    depth = len(network.layers) - 1
    scales = rounding_scales(network, hidden, ball)
    error = np.zeros((len(ball), network.num_inputs))
    for layer, scale in zip(network.layers, scales.affine, strict=True):
        error = layer.absolute.matrix.forward(error) + scale
    last = hidden[-1] if depth else Bounds(ball.lower, ball.upper)
    box = activation_box(last, network.activations[-1]) if depth else ball
    values = np.maximum(np.abs(box.lower), np.abs(box.upper))
    layer = network.layers[-1]
    outputs = layer.absolute(values)
    total: FloatArray = (error + gamma(network.num_outputs + 4) * outputs) @ np.abs(rows).T
    return total + UNDERFLOW
