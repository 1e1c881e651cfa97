"""Two networks of one structure as one, whose second copy is carried as its change from the first.

As in Wang et al. 2022 ("Efficient Global Robustness Certification of Neural Networks via
Interleaving Twin-Network Encoding"), linear bounds then see how small the change is; of two
networks bounded apart, they see two large values.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import sparse

from tasks.core.arrays import BoolArray, FloatArray, IntArray
from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.bounds.relaxations import Bounds
from tasks.core.networks.block_matrix import stored
from tasks.core.networks.network import Affine, ReluNetwork, Roundings
from tasks.core.networks.side_by_side import selecting
from tasks.core.properties.box import Box

Block = tuple[sparse.csr_array, FloatArray, bool | BoolArray]  # weights, biases, which units pass
Sums = tuple[sparse.csr_array, FloatArray]  # what errors of a block are relative to


def are_alike(networks: Sequence[ReluNetwork]) -> bool:
    """Whether there are two of ReLUs, with the same units in the same layers."""
    if len(networks) != 2 or any(network.is_curved for network in networks):
        return False
    first, second = (
        ([layer.matrix.shape[0] for layer in network.layers], network.linear)
        for network in networks
    )
    return first[0] == second[0] and all(map(np.array_equal, first[1], second[1]))


def twin(
    networks: Sequence[ReluNetwork], maps: Sequence[sparse.csr_array], boxes: Sequence[Box]
) -> ReluNetwork:
    """`fed` of two networks that are alike, the same function where inputs are in their boxes.

    A unit whose input is z in the first network and z + D in the second differs after its ReLU, p
    in the first, by exactly

        relu(z + D) - p = relu(D - n) - relu(-D) + relu(-D - p),    n = relu(-z),

    where each of the three terms lies between 0 and |D|. So a hidden layer becomes two: (p, n, D,
    relu(-D)) and (p, relu(D - n), relu(-D), relu(-D - p)). Units that are active in both networks
    all over the box pass z and D; units that are active in neither are left out.

    The equality is one of real numbers, without rounding: each weight is one of the networks', its
    negative, 1, -1, or the difference of two weights as one or two float64 numbers whose sum it is
    (see `_difference`). What float32 rounding does to the models is not in it, but what float64's
    did where the networks' layers were folded is (see `ReluNetwork.sums`): the errors of z and of D
    are counted apart, that of D with those of both networks.
    """
    builder = Twin(*maps)
    bounds = [
        preactivation_bounds(network, box, "crown")
        for network, box in zip(networks, boxes, strict=True)
    ]
    one, other = networks
    for depth, linear in enumerate(one.linear):
        builder.hidden_layer(
            (one, other), depth, (bounds[0][depth][0], bounds[1][depth][0]), linear
        )
    return builder.finished(one, other)


class Twin:
    """The layers so far, and how the last one's activations give the two networks' values.

    `first` and `second` map the activations to them, (units, activations), and have at most a
    single 1 or -1 in each column: what is multiplied with them is not rounded.
    """

    def __init__(self, first: sparse.csr_array, second: sparse.csr_array) -> None:
        self.first, self.second = first, second
        self.layers: list[Affine] = []
        self.roundings: list[Roundings] = []
        self.linear: list[BoolArray] = []

    def hidden_layer(
        self,
        networks: tuple[ReluNetwork, ReluNetwork],
        depth: int,
        bounds: tuple[Bounds, Bounds],
        linear: BoolArray,
    ) -> None:
        """Two layers for one of each network; `linear` marks the units that pass in both."""
        layers = [network.layers[depth] for network in networks]
        active = linear | ((bounds[0].lower >= 0) & (bounds[1].lower >= 0))
        inactive = ~linear & (bounds[0].upper <= 0) & (bounds[1].upper <= 0)
        inactive[:1] &= not inactive.all()  # a layer of no units would be a shape for nobody
        passing, switching = np.flatnonzero(active), np.flatnonzero(~active & ~inactive)
        value, bias = layers[0].matrix.sparse() @ self.first, layers[0].bias
        change, shift, rest, last = _difference(
            (layers[1].matrix.sparse() @ self.second, layers[1].bias), (value, bias)
        )
        is_split = (abs(rest).sum(axis=1) > 0) | (last != 0)
        whole = ~is_split[switching]  # units whose change is known before the second layer
        split = np.concatenate([passing, switching])
        split = split[is_split[split]]
        size, both, folds = self._sums(networks, depth)
        self._add(
            [
                (value[passing], bias[passing], True),
                (change[passing], shift[passing], True),
                (value[switching], bias[switching], False),
                (-value[switching], -bias[switching], False),
                (change[switching], shift[switching], True),
                (-change[switching], -shift[switching], False),
                (rest[split], last[split], True),
            ],
            [
                *(_rows(each, passing) for each in (size, both)),
                *(_rows(each, switching) for each in (size, size, both, both)),
                (abs(rest[split]), np.abs(last[split])),
            ],
            folds,
        )
        few, many = len(passing), len(switching)
        kept, moved, positive, negative, difference, fall, rest = _identity(
            few, few, many, many, many, many, len(split)
        )
        moved = moved + _where_equal(passing, split) @ rest
        difference = difference + _where_equal(switching, split) @ rest
        either = sparse.diags_array(whole.astype(float)), sparse.diags_array(~whole * -1.0)
        still, zero = np.zeros(few), np.zeros(many)
        self._add(
            [
                (kept, still, True),
                (moved, still, True),
                (positive, zero, True),
                (difference - negative, zero, False),
                (either[0] @ fall + either[1] @ difference, zero, whole),
                (-difference - positive, zero, False),
            ]
        )
        kept, moved, positive, rise, fall, under = _identity(few, few, many, many, many, many)
        width = len(bias)
        passed, switched = selecting(passing, width).T, selecting(switching, width).T
        self.first = passed @ kept + switched @ positive
        self.second = self.first + passed @ moved + switched @ (rise - fall + under)

    def finished(self, first: ReluNetwork, second: ReluNetwork) -> ReluNetwork:
        """The outputs of both, in the last affine layer."""
        ends = [(first, self.first), (second, self.second)]
        blocks = [
            (net.layers[-1].matrix.sparse() @ each, net.layers[-1].bias) for net, each in ends
        ]
        sums = [
            (net.sums(-1)[0].matrix.sparse() @ abs(each), net.sums(-1)[0].bias)
            for net, each in ends
        ]
        return self._ended(blocks, sums, max(net.sums(-1)[1] for net, _ in ends))

    def difference(self, network: ReluNetwork) -> ReluNetwork:
        """The second's outputs less the first's, where both are of this network."""
        last, (whole, folds), change = (
            network.layers[-1],
            network.sums(-1),
            self.second - self.first,
        )
        none = np.zeros(len(last.bias))
        block = last.matrix.sparse() @ change, none
        return self._ended([block], [(whole.matrix.sparse() @ abs(change), none)], folds)

    def _sums(
        self, networks: tuple[ReluNetwork, ReluNetwork], depth: int
    ) -> tuple[Sums, Sums, int]:
        """Of the first network's values and of the change, and how often folding rounded."""
        (one, some), (other, more) = (network.sums(depth) for network in networks)
        size = one.matrix.sparse() @ abs(self.first), one.bias
        both = size[0] + other.matrix.sparse() @ abs(self.second), one.bias + other.bias
        return size, both, max(some, more)

    def _ended(self, blocks: list[Sums], sums: list[Sums], folds: int) -> ReluNetwork:
        """With the last layer, which is given in blocks."""
        self._add([(*each, True) for each in blocks], sums, folds)
        return ReluNetwork((*self.layers,), (*self.linear[:-1],), (*self.roundings,))

    def _add(self, blocks: list[Block], sums: list[Sums] | None = None, folds: int = 0) -> None:
        """A layer; without `sums` nothing was folded into it."""
        matrices, biases, passes = zip(*blocks, strict=True)
        layer, absolute = _stacked(matrices, biases), None
        if sums is not None:
            absolute = _stacked(*zip(*sums, strict=True))
        self.layers.append(layer)
        own = Roundings.of(layer)
        self.roundings.append(Roundings(own.count + folds, own.gain, absolute))
        masks = [
            np.broadcast_to(each, bias.shape) for each, bias in zip(passes, biases, strict=True)
        ]
        self.linear.append(np.concatenate(masks))


def _stacked(matrices: Sequence[sparse.csr_array], biases: Sequence[FloatArray]) -> Affine:
    matrix = sparse.vstack(matrices, format="csr")
    matrix.eliminate_zeros()
    return Affine(stored(matrix), np.concatenate(biases))


def _rows(sums: Sums, units: IntArray) -> Sums:
    return sums[0][units], sums[1][units]


def _difference(
    greater: tuple[sparse.csr_array, FloatArray], lesser: tuple[sparse.csr_array, FloatArray]
) -> tuple[sparse.csr_array, FloatArray, sparse.csr_array, FloatArray]:
    """Weights and biases of the difference, and of what rounding takes from it.

    Both together are it exactly (Knuth 1969, TwoSum; overflow aside, which gives no finite weight).
    """
    found = []
    for a, b in zip(greater, lesser, strict=True):
        total = a - b
        virtual = total - a
        found += [total, (a - (total - virtual)) - (b + virtual)]
    return found[0], found[2], found[1], found[3]


def _identity(*counts: int) -> list[sparse.csr_array]:
    """The identity's rows, so many in each part."""
    ends = np.cumsum([0, *counts])
    whole = sparse.eye_array(ends[-1], format="csr")
    return [whole[start:end] for start, end in pairwise(ends)]


def _where_equal(units: IntArray, split: IntArray) -> sparse.csr_array:
    """A row for each of the units, with a 1 where it stands among `split`."""
    return sparse.csr_array((units[:, None] == split[None]).astype(float))
