"""Two copies of a network as one: what a small change of the input does to every output."""

from __future__ import annotations

import numpy as np

from tasks.core.arrays import BoolArray, FloatArray
from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.bounds.relaxations import Bounds
from tasks.core.errors import CertiflowError
from tasks.core.networks.activation import Activation
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.pairs.near_pairs import NearPairs


def twin_network(network: ReluNetwork, pairs: NearPairs, *, clipped: bool = True) -> ReluNetwork:
    """The network from (x, d) to `network(clip(x + d, box)) - network(x)`.

    Over `pairs.points` its inputs are exactly the pairs, and only there does the equality hold. If
    not `clipped`, x + d itself is the second point: pairs that leave the box are looked at as well,
    so that a proof counts, and is much easier, but a pair may not.

    The second copy is carried as its difference from the first, as in Wang et al. 2022 ("Efficient
    Global Robustness Certification of Neural Networks via Interleaving Twin-Network Encoding"), so
    that linear bounds see how small it is. With p = relu(z), n = relu(-z), a unit whose input
    differs by D differs after its ReLU by exactly

        relu(z + D) - relu(z) = relu(D - n) - relu(-D) + relu(-D - p)

    and each of the three terms lies between 0 and |D|. So a hidden layer becomes two: (p, n, D,
    relu(-D)) and (p, relu(D - n), relu(-D), relu(-D - p)). Units that never change phase in the
    box pass p = z and D, or are left out.

    The equality is one of real numbers, without rounding: each weight is one of the network's, or
    its negative, or 1, -1 or 0, since what is multiplied with a layer's matrix has a single 1 or -1
    in each column. What rounding does to the model itself is in neither copy.

    Raises `CertiflowError` when the pairs are not of the network's inputs.
    """
    if pairs.domain.num_inputs != network.num_inputs:
        raise CertiflowError(
            f"the pairs are of {pairs.domain.num_inputs} inputs: expected {network.num_inputs}, "
            "those of the network"
        )
    builder = _Builder(pairs, clipped=clipped)
    bounds = preactivation_bounds(network, pairs.box if clipped else pairs.widened, "crown")
    for layer, linear, bound in zip(network.layers[:-1], network.linear, bounds, strict=True):
        builder.hidden_layer(layer, bound[0], linear)
    return builder.finished(network.layers[-1])


class _Builder:
    """The layers so far, and how the last one's activations give the two copies' values.

    `value` maps the activations to the first copy's, `change` to the second's less the first's.
    """

    def __init__(self, pairs: NearPairs, *, clipped: bool) -> None:
        """x and d pass; clip(x + d) - x = d - relu(x + d - hi) + relu(lo - x - d)."""
        lower, upper = pairs.box.lower[0], pairs.box.upper[0]
        size, free = len(lower), len(pairs.columns)
        each, moved = np.eye(size), np.eye(size)[pairs.columns]
        still, same = np.zeros((size, free)), np.eye(free)
        if not clipped:
            self.layers: list[Affine] = []
            self.linear: list[BoolArray] = []
            self.value = Affine(np.hstack([each, still]), np.zeros(size))
            self.change = np.hstack([0 * each, moved.T])
            return
        first = np.block([[each, still], [0 * moved, same], [moved, same], [-moved, -same]])
        bounds = [-upper[pairs.columns], lower[pairs.columns]]
        bias = np.concatenate([np.zeros(size + free), *bounds])
        self.layers, self.linear = [Affine(first, bias)], [np.arange(len(bias)) < size + free]
        self.value = Affine(np.hstack([each, np.zeros((size, 3 * free))]), np.zeros(size))
        self.change = np.hstack([0 * each, moved.T, -moved.T, moved.T])

    def hidden_layer(self, layer: Affine, bounds: Bounds, linear: BoolArray) -> None:
        """Two layers for one; no constant reaches `change`, since biases cancel."""
        value, change = layer.after(self.value), layer.matrix.forward(self.change.T).T
        passing = np.flatnonzero(linear | (bounds.lower >= 0))
        switching = np.flatnonzero(bounds.unstable(Activation.of_relus(linear)))
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
