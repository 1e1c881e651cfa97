"""Twins are both networks exactly, and what their bounds say is never exceeded."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.bounds.linear import linear_lower_bounds, preactivation_bounds
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.networks.side_by_side import side_by_side
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.queries.changes import plain
from tasks.core.queries.twin import are_alike, twin
from tests.networks import (
    KINDS,
    Kind,
    box,
    exactly,
    random_network,
    random_network_of,
    sampled_points,
)
from tests.oracle import least_excess


def near(
    generator: np.random.Generator, network: ReluNetwork, moved: float, lowered: float = 0.0
) -> ReluNetwork:
    """With weights moved, and a share put so far below that no float64 is the difference."""
    layers = []
    for layer in network.layers:
        weight = layer.weight * (1 + moved * generator.normal(size=layer.weight.shape))
        weight = np.where(generator.random(weight.shape) < lowered, weight * 1e-17, weight)
        bias = layer.bias + moved * generator.normal(size=len(layer.bias)) + 1e-18
        layers.append(Affine(weight, bias))
    return replace(network, layers=tuple(layers), roundings=())


def columns_of(generator: np.random.Generator, num_inputs: int) -> list[IntArray]:
    """The second network shares all inputs, some or none."""
    second = np.arange(num_inputs)
    own = generator.permutation(num_inputs)[: int(generator.integers(num_inputs + 1))]
    second[own] = num_inputs + np.arange(len(own))
    return [np.arange(num_inputs), second]


def twins(networks: list[ReluNetwork], columns: list[IntArray], where: Box) -> ReluNetwork:
    region = UnsafeRegion(where, np.zeros((1, 1)), np.zeros(1))
    form = plain(columns, Property((region,)))
    return twin(networks, form.maps, form.boxes)


def crown(network: ReluNetwork, where: Box, rows: FloatArray) -> FloatArray:
    hidden = preactivation_bounds(network, where, "crown")
    return linear_lower_bounds(network, len(network.layers) - 1, rows, hidden, where)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_twins_are_both_networks_without_any_rounding(kind: Kind) -> None:
    for seed in range(4):
        generator = np.random.default_rng(seed)
        network = random_network_of(generator, kind, "few")
        networks = [network, near(generator, network, 10.0 ** -(5 * seed), 0.2)]
        columns = columns_of(generator, network.num_inputs)
        count = 1 + max(int(places.max()) for places in columns)
        where = box([-0.5] * count, generator.uniform(-0.4, 0.7, count).tolist())
        carried = twins(networks, columns, where)
        for point in sampled_points(generator, where, 4):
            exact = [Fraction(value) for value in point.tolist()]
            expected = [
                value
                for each, places in zip(networks, columns, strict=True)
                for value in exactly(each, [exact[place] for place in places])
            ]
            assert exactly(carried, exact) == expected


def test_bounds_of_the_difference_hold_and_are_tight() -> None:
    """Against the exact greatest difference, and against both networks bounded apart."""
    for seed in range(6):
        generator = np.random.default_rng(seed)
        network = random_network(generator, (3, 6, 5, 2))
        networks = [network, near(generator, network, 1e-3)]
        same = [np.arange(3)] * 2
        where = box([0.0] * 3, [0.5] * 3)
        row = np.array([[1.0, 0.0, -1.0, 0.0]])
        side = side_by_side(networks, same)
        least = least_excess(side, UnsafeRegion(where, row, np.zeros(1)))
        (found,), (apart,) = (
            crown(twins(networks, same, where), where, row),
            crown(side, where, row),
        )
        assert apart < found <= least + 1e-5


def test_equal_networks_on_equal_inputs_do_not_differ() -> None:
    network = random_network(np.random.default_rng(0), (4, 12, 12, 3))
    where = box([-1.0] * 4, [1.0] * 4)
    rows = np.hstack([np.eye(3), -np.eye(3)])
    lower = crown(twins([network] * 2, [np.arange(4)] * 2, where), where, rows)
    assert (np.abs(lower) < 1e-10).all()
    apart = crown(side_by_side([network] * 2, [np.arange(4)] * 2), where, rows)
    assert (apart < -0.1).all()


def test_networks_whose_units_are_all_inactive() -> None:
    dead = Affine(np.zeros((3, 2)), np.full(3, -1.0))
    networks = [ReluNetwork((dead, Affine(np.ones((1, 3)), np.array([c])))) for c in (0.5, 0.25)]
    where = box([0.0, 0.0], [1.0, 1.0])
    carried = twins(networks, [np.arange(2)] * 2, where)
    np.testing.assert_array_equal(carried(where.upper), [[0.5, 0.25]])
    assert crown(carried, where, np.array([[1.0, -1.0]]))[0] == pytest.approx(0.25)


def test_only_two_networks_of_the_same_units_are_alike() -> None:
    generator = np.random.default_rng(0)
    network = random_network(generator, (2, 3, 2))
    assert are_alike([network, random_network(generator, (4, 3, 2))])
    linear = ReluNetwork(network.layers, (np.array([True, False, False]),))
    for others in (
        [linear],
        [random_network(generator, (2, 4, 2))],
        [random_network(generator, (2, 3, 3, 2))],
        [],
        [network, network],
    ):
        assert not are_alike([network, *others])
