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
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.networks.side_by_side import selecting
from tasks.core.properties.box import Box

Block = tuple[sparse.csr_array, FloatArray, bool | BoolArray]  # weights, biases, which units pass


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
    (see `_difference`). What float32 rounding does to the models is not in it.
    """
    builder = Twin(*maps)
    bounds = [
        preactivation_bounds(network, box, "crown")
        for network, box in zip(networks, boxes, strict=True)
    ]
    one, other = networks
    for place, linear in enumerate(one.linear):
        builder.hidden_layer(
            (one.layers[place], other.layers[place]),
            (bounds[0][place][0], bounds[1][place][0]),
            linear,
        )
    return builder.finished(one.layers[-1], other.layers[-1])


class Twin:
    """The layers so far, and how the last one's activations give the two networks' values.

    `first` and `second` map the activations to them, (units, activations), and have at most a
    single 1 or -1 in each column: what is multiplied with them is not rounded.
    """

    def __init__(self, first: sparse.csr_array, second: sparse.csr_array) -> None:
        self.first, self.second = first, second
        self.layers: list[Affine] = []
        self.linear: list[BoolArray] = []

    def hidden_layer(
        self, layers: tuple[Affine, Affine], bounds: tuple[Bounds, Bounds], linear: BoolArray
    ) -> None:
        """Two layers for one of each network; `linear` marks the units that pass in both."""
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
        self._add(
            [
                (value[passing], bias[passing], True),
                (change[passing], shift[passing], True),
                (value[switching], bias[switching], False),
                (-value[switching], -bias[switching], False),
                (change[switching], shift[switching], True),
                (-change[switching], -shift[switching], False),
                (rest[split], last[split], True),
            ]
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

    def finished(self, first: Affine, second: Affine) -> ReluNetwork:
        """The outputs of both, in the last affine layer."""
        matrix = sparse.vstack(
            [first.matrix.sparse() @ self.first, second.matrix.sparse() @ self.second],
            format="csr",
        )
        last = Affine(stored(matrix), np.concatenate([first.bias, second.bias]))
        return ReluNetwork((*self.layers, last), (*self.linear,))

    def difference(self, last: Affine) -> ReluNetwork:
        """The second's outputs less the first's, of two that end with the same affine layer."""
        matrix = last.matrix.sparse() @ (self.second - self.first)
        none = np.zeros(len(last.bias))
        return ReluNetwork((*self.layers, Affine(stored(matrix), none)), (*self.linear,))

    def _add(self, blocks: list[Block]) -> None:
        matrices, biases, passes = zip(*blocks, strict=True)
        matrix = sparse.vstack(matrices, format="csr")
        matrix.eliminate_zeros()
        self.layers.append(Affine(stored(matrix), np.concatenate(biases)))
        masks = [
            np.broadcast_to(each, bias.shape) for each, bias in zip(passes, biases, strict=True)
        ]
        self.linear.append(np.concatenate(masks))


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
