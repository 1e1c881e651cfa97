"""One network twice, side by side, on inputs that differ in a few columns only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from tasks.core.arrays import IntArray
from tasks.core.networks.activation import Activation
from tasks.core.networks.block_matrix import stored
from tasks.core.networks.network import Affine, ReluNetwork, Roundings


def paired(network: ReluNetwork, columns: IntArray) -> ReluNetwork:
    """The network from (x, y) to (network(x), network(x with y in the place of `columns`)).

    Its weights are the network's own: in exact arithmetic the two are the same function.
    """
    layers = [_first(network.layers[0], columns), *map(_twice, network.layers[1:])]
    absolute = map(Roundings.absolute_of, network.roundings, network.layers)
    doubled = [
        _first(each, columns) if place == 0 else _twice(each) for place, each in enumerate(absolute)
    ]
    return ReluNetwork(
        tuple(layers),
        roundings=tuple(
            replace(roundings, absolute=each)
            for roundings, each in zip(network.roundings, doubled, strict=True)
        ),
        activations=tuple(Activation.joined([each, each]) for each in network.activations),
    )


def _first(layer: Affine, columns: IntArray) -> Affine:
    weight = sparse.csc_array(layer.matrix.sparse())
    none = sparse.csc_array((weight.shape[0], len(columns)))
    kept = sparse.lil_array(weight)
    kept[:, columns] = 0
    upper = sparse.hstack([weight, none])
    lower = sparse.hstack([sparse.csc_array(kept), weight[:, columns]])
    return _affine(sparse.vstack([upper, lower], format="csr"), layer)


def _twice(layer: Affine) -> Affine:
    weight = layer.matrix.sparse()
    return _affine(sparse.block_diag([weight, weight], format="csr"), layer)


def _affine(weight: sparse.csr_array, layer: Affine) -> Affine:
    matrix = sparse.csr_array(weight)
    matrix.eliminate_zeros()
    return Affine(stored(matrix), np.tile(layer.bias, 2))
