"""Affine forms hold at samples, are exact where nothing bends, and no looser than intervals."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.bounds.forward import forward_bounds
from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tests.curved_networks import curved_network
from tests.networks import KINDS, Kind, random_network_of, sampled_points


@np.errstate(invalid="ignore")  # of what overflows
def check(network: ReluNetwork, boxes: Box, generator: np.random.Generator) -> None:
    hidden = forward_bounds(network, boxes)
    plain = preactivation_bounds(network, boxes, "interval")
    for found, interval in zip(hidden, plain, strict=True):
        # Both are steps of intervals from boxes, whose ends are rounded.
        assert (found.lower >= interval.lower - 1e-12 * (1 + np.abs(interval.lower))).all()
        assert (found.upper <= interval.upper + 1e-12 * (1 + np.abs(interval.upper))).all()
    for row in range(len(boxes)):
        values = network.preactivations(sampled_points(generator, boxes, 300, row))[:-1]
        for found, bounds in zip(values, hidden, strict=True):
            known = np.isfinite(found)
            assert (~known | (found >= bounds.lower[row])).all()
            assert (~known | (found <= bounds.upper[row])).all()


def random_boxes(generator: np.random.Generator, inputs: int) -> Box:
    center = generator.normal(size=(3, inputs))
    radius = 10.0 ** generator.uniform(-8, 0.3, size=(3, 1)) * generator.random((3, inputs))
    return Box(center - radius, center + radius)


@pytest.mark.parametrize("seed", range(60))
def test_curved_networks(seed: int) -> None:
    generator = np.random.default_rng(seed)
    check(curved_network(generator, 3), random_boxes(generator, 3), generator)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(10))
def test_networks_of_relus(kind: Kind, seed: int) -> None:
    generator = np.random.default_rng(seed)
    network = random_network_of(generator, kind, "few")
    check(network, random_boxes(generator, network.num_inputs), generator)


def test_what_does_not_bend_is_exact() -> None:
    """x + y and x - y pass, and their sum is 2 x, which intervals do not see."""
    first = Affine(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2))
    network = ReluNetwork(
        (first, Affine(np.ones((1, 2)), np.zeros(1)), Affine(np.eye(1), np.zeros(1))),
        (np.array([True, True]), np.array([True])),
    )
    box = Box(np.array([[-1.0, -5.0]]), np.array([[2.0, 5.0]]))
    bounds = forward_bounds(network, box)[1]
    np.testing.assert_allclose([bounds.lower[0, 0], bounds.upper[0, 0]], [-2, 4], atol=1e-10)


def test_what_overflows_is_infinite() -> None:
    network = ReluNetwork(
        (Affine(np.full((1, 1), 1e160), np.zeros(1)), Affine(np.eye(1), np.zeros(1)))
    )
    (bounds,) = forward_bounds(network, Box(np.array([[-1.0]]), np.array([[1.0]])))
    assert (bounds.lower, bounds.upper) == (-np.inf, np.inf)
