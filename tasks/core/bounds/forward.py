"""Bounds by affine forms of few inputs, carried forwards: c + A t + d with t in [-1, 1], |d| <= e.

A pass costs as much as one of points for each input, where backward bounds cost one for each unit:
for few inputs and many units it is by far the tightest that can be had in little time (affine
arithmetic, Stolfi and de Figueiredo 1997, with one remainder in the place of new symbols; Singh et
al. 2018, "Fast and Effective Robustness Certification", keep the symbols).

An activation is replaced by one slope and the range of what is left, h(z) - slope z, which goes to
the remainder. What rounding changes in a step is at most gamma times the magnitudes that are
summed; it goes there as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.bounds.curve_lines import least_height, middle_slopes
from tasks.core.bounds.linear import interval_step
from tasks.core.bounds.relaxations import Bounds
from tasks.core.bounds.rounding import HUGE, UNDERFLOW, gamma
from tasks.core.networks.activation import Activation
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box

STEP = 2.0**-48  # relative, of the few roundings of an activation's step and of a range
MOST_ENTRIES = 2**24  # of the forms of a batch at a time


@np.errstate(over="ignore", invalid="ignore")
def forward_bounds(network: ReluNetwork, boxes: Box) -> list[Bounds]:
    """Sound bounds on the inputs of every activation, no looser than intervals but by rounding."""
    size = max(1, MOST_ENTRIES // (network.num_inputs * max(len(a.bias) for a in network.layers)))
    parts = [
        _forward(network, boxes[slice(start, start + size)])
        for start in range(0, max(len(boxes), 1), size)
    ]
    return [
        Bounds(
            np.concatenate([each.lower for each in layer]),
            np.concatenate([each.upper for each in layer]),
        )
        for layer in zip(*parts, strict=True)
    ]


@np.errstate(over="ignore", invalid="ignore")
def input_shares(
    network: ReluNetwork, boxes: Box, hidden: Sequence[Bounds]
) -> Iterator[FloatArray]:
    """How much each input has to do with each unit of a layer: (batch, inputs, units), of each.

    The parts of |A|, which say what would be gained by a thinner box; they prove nothing.
    """
    forms = _Forms.of(boxes)
    for depth, (activation, bounds) in enumerate(zip(network.activations, hidden, strict=False)):
        forms = forms.through(network, depth)
        yield np.abs(forms.slopes) / np.maximum(forms.spread, UNDERFLOW)[:, None]
        forms = forms.bent(activation, bounds)


def _forward(network: ReluNetwork, boxes: Box) -> list[Bounds]:
    hidden = list[Bounds]()
    forms = _Forms.of(boxes)
    for depth, activation in enumerate(network.activations):
        forms = forms.through(network, depth)
        bounds = interval_step(network, depth, hidden, boxes).intersected(forms.bounds())
        hidden.append(bounds)
        forms = forms.bent(activation, bounds)
    return hidden


@dataclass(frozen=True, eq=False)
class _Forms:
    """`slopes`, (batch, inputs, units), are A; `center` and `rest`, (batch, units), c and e."""

    slopes: FloatArray
    center: FloatArray
    rest: FloatArray

    @classmethod
    def of(cls, boxes: Box) -> _Forms:
        center, radius = (boxes.upper + boxes.lower) / 2, (boxes.upper - boxes.lower) / 2
        slopes = radius[:, :, None] * np.eye(radius.shape[1])
        rounding = STEP * (np.abs(center) + radius) + UNDERFLOW
        return cls(slopes, center, rounding)

    @property
    def spread(self) -> FloatArray:
        """The sum of |A| over the inputs."""
        return np.abs(self.slopes).sum(axis=1)

    def bounds(self) -> Bounds:
        """The range of the forms; infinite where a number may reach `HUGE`."""
        reach = (self.spread + self.rest) * (1 + STEP * self.slopes.shape[1])
        reach = reach + STEP * np.abs(self.center) + UNDERFLOW
        held = np.abs(self.center) + reach < HUGE
        return Bounds(
            np.where(held, self.center - reach, -np.inf),
            np.where(held, self.center + reach, np.inf),
        )

    def through(self, network: ReluNetwork, depth: int) -> _Forms:
        """The forms of the outputs of affine layer `depth`."""
        layer, (whole, folds) = network.layers[depth], network.sums(depth)
        batch, inputs, units = self.slopes.shape
        slopes = layer.matrix.forward(self.slopes.reshape(batch * inputs, units))
        slopes = slopes.reshape(batch, inputs, layer.matrix.shape[0])
        size = whole(np.abs(self.center) + self.spread + self.rest)
        rest = layer.absolute.matrix.forward(self.rest)
        rest = rest + gamma(layer.matrix.shape[1] + folds + inputs + 8) * size + UNDERFLOW
        rest = np.where(max(layer.magnitude, whole.magnitude) < HUGE, rest, np.inf)
        return _Forms(slopes, layer(self.center), rest)

    def bent(self, activation: Activation, bounds: Bounds) -> _Forms:
        """The forms of what becomes of values within these bounds."""
        slope, low, high = _one_slope(activation, bounds)
        slopes, center = self.slopes * slope[:, None], self.center * slope
        rest, spread = self.rest * np.abs(slope), self.spread * np.abs(slope)
        products = activation.products
        if len(products):
            partners = activation.partners[products]
            other = (bounds.lower[:, products] + bounds.upper[:, products]) / 2
            slopes[:, :, products] += self.slopes[:, :, partners] * other[:, None]
            center[:, products] += self.center[:, partners] * other
            rest[:, products] += self.rest[:, partners] * np.abs(other)
            spread[:, products] += self.spread[:, partners] * np.abs(other)
        moved, left = (low + high) / 2, (high - low) / 2
        size = np.abs(self.center * slope) + np.abs(center) + spread + rest
        size = size + np.abs(low) + np.abs(high)
        return _Forms(slopes, center + moved, rest + left + STEP * size + UNDERFLOW)


def _one_slope(activation: Activation, bounds: Bounds) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A slope for each unit, and a lower and upper bound on h(z) - slope z, (batch, units) each.

    Of a product, with the middle of its own value times the partner's taken off as well.
    """
    lower, upper = bounds.lower, bounds.upper
    active = (lower >= 0) | activation.linear
    unstable = bounds.unstable(activation)
    chord = upper / np.where(unstable, upper - lower, 1)
    slope = np.where(unstable, chord, active.astype(np.float64))
    high = np.maximum(-slope * lower, (1 - slope) * upper) * (1 + STEP)
    low, high = np.zeros_like(high), np.where(unstable, high, 0.0)
    for curve, units in activation.curves():
        ends = lower[:, units].ravel(), upper[:, units].ravel()
        both = middle_slopes(curve, *ends, 1) / 2 + middle_slopes(curve, *ends, -1) / 2
        shape = (len(lower), len(units))
        slope[:, units] = both.reshape(shape)
        low[:, units] = least_height(curve, *ends, both, 1).reshape(shape)
        high[:, units] = -least_height(curve, *ends, both, -1).reshape(shape)
    products = activation.products
    if len(products):
        (lx, ux), (ly, uy) = bounds.of_factors(activation)
        x, y = (lx + ux) / 2, (ly + uy) / 2
        # x y - y0 x - x0 y = (x - x0) (y - y0) - x0 y0
        left = (np.maximum(ux - x, x - lx)) * (np.maximum(uy - y, y - ly)) * (1 + STEP)
        left = left + STEP * np.abs(x * y) + UNDERFLOW
        slope[:, products] = y
        low[:, products], high[:, products] = -x * y - left, -x * y + left
    return slope, low, high
