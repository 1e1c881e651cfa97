"""Two copies of a network on inputs that differ in some columns."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.networks.side_by_side import paired
from tests.networks import KINDS, Kind, random_network_of


@pytest.mark.parametrize("kind", KINDS)
def test_both_copies_are_the_network(kind: Kind) -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        network = random_network_of(generator, kind, "few")
        count = int(generator.integers(1, min(3, network.num_inputs) + 1))
        columns = generator.choice(network.num_inputs, count, replace=False)
        both = paired(network, columns)
        x = generator.normal(size=(7, network.num_inputs))
        y = generator.normal(size=(7, count))
        other = x.copy()
        other[:, columns] = y
        found = both(np.hstack([x, y]))
        expected = np.hstack([network(x), network(other)])
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        assert [each.count for each in both.roundings] == [e.count for e in network.roundings]
        for layer, roundings in zip(both.layers, both.roundings, strict=True):
            assert roundings.absolute is not None
            excess = np.abs(layer.weight) - roundings.absolute.weight
            assert excess.max() <= 1e-12
