"""Linear bounds over L2 balls: exact on linear maps, sound on networks, mostly beyond the box's."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.bounds.linear import linear_lower_bounds, preactivation_bounds
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box, Ellipsoid
from tests.networks import random_network


def bounds(network: ReluNetwork, ball: Box) -> FloatArray:
    hidden = preactivation_bounds(network, ball, "crown")
    return linear_lower_bounds(network, len(network.layers) - 1, np.eye(3), hidden, ball)


def test_exact_on_linear_maps() -> None:
    generator = np.random.default_rng(0)
    network = random_network(generator, (5, 3))
    center, scales = generator.normal(size=(4, 5)), np.array([1.0, 2.0, 0.0, 0.5, 1.0])
    everything = Box(np.full((4, 5), -9.0), np.full((4, 5), 9.0))
    ball = Ellipsoid.within(everything, center, scales, 0.7)
    norms = np.linalg.norm(network.layers[0].weight * scales, axis=1)
    exact = network(center) - 0.7 * norms
    found = bounds(network, ball)
    assert (found <= exact).all()
    np.testing.assert_allclose(found, exact, rtol=1e-9)


def test_sound_and_mostly_better_than_the_box() -> None:
    generator = np.random.default_rng(1)
    better = 0
    for _ in range(30):
        network = random_network(generator, (6, 8, 5, 3))
        center = generator.uniform(-0.5, 0.5, size=(3, 6))
        scales = generator.uniform(0, 1, 6) * (generator.random(6) < 0.8)
        domain = Box(np.full((3, 6), -0.6), np.full((3, 6), 0.6))
        ball = Ellipsoid.within(domain, center, scales, 0.5)
        found = bounds(network, ball)
        directions = generator.normal(size=(3, 400, 6))
        directions /= np.linalg.norm(directions, axis=2, keepdims=True)
        points = center[:, None] + 0.5 * directions * scales
        points = np.clip(points, ball.lower[:, None], ball.upper[:, None])
        for row in range(3):
            assert (found[row] <= network(points[row]).min(axis=0)).all()
        box = bounds(network, Box(ball.lower, ball.upper))
        better += (found > box + 1e-6).sum()
    assert better > 100


@pytest.mark.parametrize(("weight", "radius"), [(1e-165, 1e100), (1e-162, 1e20), (1e-170, 1e140)])
def test_squares_that_are_below_float64_are_not_lost(weight: float, radius: float) -> None:
    network = ReluNetwork((Affine(np.array([[weight]]), np.zeros(1)),))
    everything = Box(np.full((1, 1), -1e149), np.full((1, 1), 1e149))
    ball = Ellipsoid.within(everything, np.zeros((1, 1)), np.ones(1), radius)
    found = linear_lower_bounds(network, 0, np.ones((1, 1)), [], ball)[0, 0]
    exact = -Fraction(weight) * Fraction(radius)
    assert exact * 2 < Fraction(float(found)) <= exact


def test_each_box_keeps_its_own_scales() -> None:
    generator = np.random.default_rng(2)
    network = random_network(generator, (4, 6, 3))
    center, scales = generator.normal(size=(3, 4)), generator.uniform(0.1, 1, size=(3, 4))
    everything = Box(np.full((3, 4), -9.0), np.full((3, 4), 9.0))
    ball = Ellipsoid.within(everything, center, scales, 0.4)
    together = bounds(network, ball)
    for row in range(3):
        np.testing.assert_allclose(bounds(network, ball[row : row + 1])[0], together[row])
    columns = np.array([[3, 0], [1, 2]])
    some = ball.at(np.array([2, 0]), columns)
    np.testing.assert_array_equal(some.scales, scales[[[2], [0]], columns])
