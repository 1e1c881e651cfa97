"""Two copies of a network as one: what a small change of the input does to every output."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.errors import CertiflowError
from tasks.core.networks.network import Affine, ReluNetwork, Roundings
from tasks.core.networks.side_by_side import selecting
from tasks.core.pairs.near_pairs import NearPairs
from tasks.core.queries.twin import Twin


def twin_network(network: ReluNetwork, pairs: NearPairs, *, clipped: bool = True) -> ReluNetwork:
    """The network from (x, d) to `network(clip(x + d, box)) - network(x)`.

    Over `pairs.points` its inputs are exactly the pairs, and only there does the equality hold. If
    not `clipped`, x + d itself is the second point: pairs that leave the box are looked at as well,
    so that a proof counts, and is much easier, but a pair may not.

    The second copy is carried as its difference from the first (see `verification.twin`), in real
    numbers exactly. What rounding does to the model itself is in neither copy.

    Raises `CertiflowError` when the pairs are not of the network's inputs.
    """
    if pairs.domain.num_inputs != network.num_inputs:
        raise CertiflowError(
            f"the pairs are of {pairs.domain.num_inputs} inputs: expected {network.num_inputs}, "
            "those of the network"
        )
    twin = _clipped(pairs) if clipped else _loose(pairs)
    bounds = preactivation_bounds(network, pairs.box if clipped else pairs.widened, "crown")
    for depth, (linear, bound) in enumerate(zip(network.linear, bounds, strict=True)):
        twin.hidden_layer((network, network), depth, (bound[0], bound[0]), linear)
    return twin.difference(network)


def _loose(pairs: NearPairs) -> Twin:
    """x and x + d."""
    size, free = len(pairs.box.lower[0]), len(pairs.columns)
    first = selecting(np.arange(size), size + free)
    moved = selecting(pairs.columns, size).T @ selecting(size + np.arange(free), size + free)
    return Twin(first, first + moved)


def _clipped(pairs: NearPairs) -> Twin:
    """x and clip(x + d) = x + d - relu(x + d - hi) + relu(lo - x - d)."""
    start, columns = _loose(pairs), pairs.columns
    lower, upper = pairs.box.lower[0, columns], pairs.box.upper[0, columns]
    (size, points), free = start.first.shape, len(columns)
    moved = start.second[columns]
    bias = np.concatenate([np.zeros(points), -upper, lower])
    same = sparse.eye_array(points, format="csr")
    clip = Affine(sparse.vstack([same, moved, -moved]).toarray(), bias)
    over, under = (
        selecting(columns, size).T @ selecting(points + place + np.arange(free), points + 2 * free)
        for place in (0, free)
    )
    kept = selecting(np.arange(points), points + 2 * free)
    twin = Twin(start.first @ kept, start.second @ kept - over + under)
    twin.layers, twin.roundings = [clip], [Roundings.of(clip)]
    twin.linear = [np.arange(len(bias)) < points]
    return twin
