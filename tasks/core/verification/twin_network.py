"""Two copies of a network as one: what a small change of the input does to every output."""

from __future__ import annotations

import numpy as np

from tasks.core.arrays import BoolArray, FloatArray
from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.bounds.relaxations import Bounds
from tasks.core.errors import CertiflowError
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box


def twin_network(
    network: ReluNetwork, domain: Box, delta: float, *, clipped: bool = True
) -> ReluNetwork:
    """The network from (x, d) to `network(clip(x + d, domain)) - network(x)`.

    Over `twin_box(domain, delta)` its inputs are exactly the pairs of points of `domain` (one box)
    at an L-infinity distance of at most `delta`, and only there does the equality hold. If not
    `clipped`, x + d itself is the second point: pairs that leave the domain by up to `delta` are
    looked at as well, so that a proof counts, and is much easier, but a pair may not.

    The second copy is carried as its difference from the first, as in Wang et al. 2022 ("Efficient
    Global Robustness Certification of Neural Networks via Interleaving Twin-Network Encoding"), so
    that linear bounds see how small it is. With p = relu(z), n = relu(-z), a unit whose input
    differs by D differs after its ReLU by exactly

        relu(z + D) - relu(z) = relu(D - n) - relu(-D) + relu(-D - p)

    and each of the three terms lies between 0 and |D|. So a hidden layer becomes two: (p, n, D,
    relu(-D)) and (p, relu(D - n), relu(-D), relu(-D - p)). Units that never change phase in
    `domain` pass p = z and D, or are left out.

    Raises:
        CertiflowError: the domain is not one box of the network's inputs, or delta is negative.
    """
    if domain.lower.shape != (1, network.num_inputs) or (domain.lower > domain.upper).any():
        raise CertiflowError(
            f"the domain has shape {domain.lower.shape}: expected one box of "
            f"{network.num_inputs} inputs, its lower bounds not above its upper ones"
        )
    if not delta >= 0:
        raise CertiflowError(f"delta is {delta:g}: expected a number that is not negative")
    builder = _Builder(domain, delta, clipped=clipped)
    reach = domain if clipped else widened(domain, delta)
    bounds = preactivation_bounds(network, reach, "crown")
    for layer, linear, bound in zip(network.layers[:-1], network.linear, bounds, strict=True):
        builder.hidden_layer(layer, bound[0], linear)
    return builder.finished(network.layers[-1])


def widened(domain: Box, delta: float) -> Box:
    """A box that holds x + d for every x of the domain, in exact arithmetic."""
    lower, upper = domain.lower - delta, domain.upper + delta
    return Box(np.nextafter(lower, -np.inf), np.nextafter(upper, np.inf))


def twin_box(domain: Box, delta: float) -> Box:
    """The box of (x, d): the domain and [-delta, delta] for each input."""
    change = np.full_like(domain.lower, delta)
    return Box(np.hstack([domain.lower, -change]), np.hstack([domain.upper, change]))


class _Builder:
    """The layers so far, and how the last one's activations give the two copies' values.

    `value` maps the activations to the first copy's, `change` to the second's less the first's.
    """

    def __init__(self, domain: Box, delta: float, *, clipped: bool) -> None:
        """x and d pass; clip(x + d) - x = d - relu(x + d - hi) + relu(lo - x - d)."""
        lower, upper = domain.lower[0], domain.upper[0]
        if not clipped:
            self.layers: list[Affine] = []
            self.linear: list[BoolArray] = []
            each, zero = np.eye(len(lower)), np.zeros((len(lower), len(lower)))
            self.value = Affine(np.hstack([each, zero]), np.zeros(len(lower)))
            self.change = np.hstack([zero, each])
            return
        size, free = len(lower), np.flatnonzero((lower < upper) & (delta > 0))
        each, none = np.eye(size), np.zeros(size)
        moved, still = each[free], np.zeros((len(free), size))
        first = np.vstack(
            [
                np.hstack([each, 0 * each]),
                np.hstack([still, moved]),
                np.hstack([moved, moved]),
                np.hstack([-moved, -moved]),
            ]
        )
        bias = np.concatenate([none, none[free], -upper[free], lower[free]])
        linear = np.arange(len(bias)) < size + len(free)
        self.layers, self.linear = [Affine(first, bias)], [linear]
        self.value = Affine(np.hstack([each, np.zeros((size, 3 * len(free)))]), none)
        columns = moved.T
        self.change = np.hstack([0 * each, columns, -columns, columns])

    def hidden_layer(self, layer: Affine, bounds: Bounds, linear: BoolArray) -> None:
        """Two layers for one; no constant reaches `change`, since biases cancel."""
        value, change = layer.after(self.value), layer.matrix.forward(self.change.T).T
        passing = np.flatnonzero(linear | (bounds.lower >= 0))
        switching = np.flatnonzero(bounds.unstable(linear))
        weights = value.weight
        p, n = weights[switching], value.bias[switching]
        self._add(
            [
                (weights[passing], value.bias[passing], True),
                (change[passing], np.zeros(len(passing)), True),
                (p, n, False),
                (-p, -n, False),
                (change[switching], np.zeros(len(switching)), True),
                (-change[switching], np.zeros(len(switching)), False),
            ]
        )
        few, many = len(passing), len(switching)
        kept, kept_change, positive, negative, difference, fall = np.split(
            np.eye(2 * few + 4 * many), np.cumsum([few, few, many, many, many])
        )
        still, zero = np.zeros(few), np.zeros(many)
        self._add(
            [
                (kept, still, True),
                (kept_change, still, True),
                (positive, zero, True),
                (difference - negative, zero, False),
                (fall, zero, True),
                (-difference - positive, zero, False),
            ]
        )
        width = len(layer.bias)
        weight, self.change = np.zeros((2, width, 2 * few + 4 * many))
        weight[passing, np.arange(few)] = 1
        self.change[passing, few + np.arange(few)] = 1
        start = 2 * few + np.arange(many)
        weight[switching, start] = 1
        for place, sign in ((1, 1.0), (2, -1.0), (3, 1.0)):
            self.change[switching, start + place * many] = sign
        self.value = Affine(weight, np.zeros(width))

    def finished(self, last: Affine) -> ReluNetwork:
        """The difference of the outputs, in the last affine layer."""
        weight = last.matrix.forward(self.change.T).T
        return ReluNetwork((*self.layers, Affine(weight, np.zeros(len(weight)))), (*self.linear,))

    def _add(self, blocks: list[tuple[FloatArray, FloatArray, bool]]) -> None:
        """A layer of blocks of units: weights, biases and whether they pass the ReLU by."""
        weights, biases, passes = zip(*blocks, strict=True)
        self.layers.append(Affine(np.vstack(weights), np.concatenate(biases)))
        counts = [len(bias) for bias in biases]
        self.linear.append(np.repeat(np.array(passes), counts))
