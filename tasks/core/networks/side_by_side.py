"""Networks side by side, as one: each reads some of the inputs, and its outputs stand in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from tasks.core.arrays import IntArray
from tasks.core.networks.activation import Activation
from tasks.core.networks.block_matrix import stored
from tasks.core.networks.matrices import Matrix
from tasks.core.networks.network import Affine, ReluNetwork, Roundings


def side_by_side(networks: Sequence[ReluNetwork], columns: Sequence[IntArray]) -> ReluNetwork:
    """The network from z to (networks[0](z[columns[0]]), networks[1](z[columns[1]]), …).

    Its weights are the networks' own: in exact arithmetic it is the same function. The columns of
    one network are different places; all of them together are every place up to the greatest.
    What a shallower network gives passes through the layers that others have more.
    """
    num_inputs = 1 + max(int(places.max()) for places in columns)
    return fed(networks, [selecting(places, num_inputs) for places in columns])


def fed(networks: Sequence[ReluNetwork], maps: Sequence[sparse.csr_array]) -> ReluNetwork:
    """The network from z to (networks[0](maps[0] @ z), …), the maps of shape (inputs, points).

    Every column of a map has at most a single 1 and zeros, so that no weight is rounded.
    """
    depth = max(len(network.layers) for network in networks)
    deep = [_deepened(network, depth) for network in networks]
    absolute = [list(map(Roundings.absolute_of, each.roundings, each.layers)) for each in deep]
    return ReluNetwork(
        _joined([each.layers for each in deep], maps),
        roundings=tuple(
            Roundings(max(each.count for each in step), max(each.gain for each in step), own)
            for step, own in zip(
                zip(*(each.roundings for each in deep), strict=True),
                _joined(absolute, maps),
                strict=True,
            )
        ),
        activations=tuple(
            map(Activation.joined, zip(*(each.activations for each in deep), strict=True))
        ),
    )


def paired(network: ReluNetwork, columns: IntArray) -> ReluNetwork:
    """The network from (x, y) to (network(x), network(x with y in the place of `columns`))."""
    first = np.arange(network.num_inputs)
    second = first.copy()
    second[columns] = network.num_inputs + np.arange(len(columns))
    return side_by_side([network, network], [first, second])


def selecting(places: IntArray, num_inputs: int) -> sparse.csr_array:
    """The matrix S with `S @ z` the inputs at these places, (places, inputs)."""
    rows = np.arange(len(places))
    return sparse.csr_array((np.ones(len(places)), (rows, places)), shape=(len(places), num_inputs))


def _deepened(network: ReluNetwork, depth: int) -> ReluNetwork:
    """With layers that pass on, which float32 computes without any rounding."""
    more, size = depth - len(network.layers), network.num_outputs
    if not more:
        return network
    same = Affine(stored(sparse.eye_array(size, format="csr")), np.zeros(size))
    passing = (Activation.of_relus(np.ones(size, dtype=bool)),)
    return ReluNetwork(
        network.layers + (same,) * more,
        roundings=network.roundings + (Roundings(0, 1.0),) * more,
        activations=network.activations + passing * more,
    )


def _joined(
    layers: Sequence[Sequence[Affine]], maps: Sequence[sparse.csr_array]
) -> tuple[Affine, ...]:
    """The layers of all networks, step by step; only the first ones share inputs."""
    steps = list(zip(*layers, strict=True))
    first = [layer.matrix.sparse() @ each for layer, each in zip(steps[0], maps, strict=True)]
    matrices = [sparse.vstack(first, format="csr")]
    matrices += [
        sparse.block_diag([layer.matrix.sparse() for layer in step], format="csr")
        for step in steps[1:]
    ]
    return tuple(
        Affine(_without_zeros(matrix), np.concatenate([layer.bias for layer in step]))
        for matrix, step in zip(matrices, steps, strict=True)
    )


def _without_zeros(matrix: sparse.csr_array) -> Matrix:
    kept = sparse.csr_array(matrix)
    kept.eliminate_zeros()
    return stored(kept)
