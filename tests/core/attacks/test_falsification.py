"""Descent stays in its box, treats regions apart, and ends when its time is over."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from tasks.core.attacks import falsification
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.specification import UnsafeRegion
from tests.networks import ball_around, box, convolutional, random_network


def test_the_optimum_of_a_linear_network_is_found() -> None:
    """The least of x - 2 y + 3 over the box is 1 - 2 * 4 + 3 = -4, at a corner."""
    network = ReluNetwork((Affine(np.array([[1.0, -2.0]]), np.array([3.0])),))
    ball = box([1.0, 2.0], [3.0, 4.0])
    region = UnsafeRegion(ball, np.ones((1, 1)), np.array([0.5]))
    points, excess = falsification.descend(
        network, ball, region, np.array([[2.0, 3.0], [9.0, 9.0]]), num_steps=40
    )
    np.testing.assert_allclose(points, [[1.0, 4.0]] * 2)
    np.testing.assert_allclose(excess, [-3.5] * 2)


@pytest.mark.parametrize("seed", range(10))
def test_many_regions_are_searched_as_each_alone(seed: int) -> None:
    """Of one, two and three rows; the first that is reached gives the point."""
    generator = np.random.default_rng(seed)
    network = random_network(generator, (6, 9, 9, 4))
    ball = ball_around(generator.uniform(0.3, 0.7, (1, 6)), 0.2)
    regions = [
        UnsafeRegion(ball, generator.normal(size=(count, 4)), generator.normal(size=count) * 0.3)
        for count in (1, 3, 2, 1)
    ]
    alone = [
        falsification.search(network, ball, [one], num_steps=40, num_restarts=3, seed=seed)
        for one in regions
    ]
    found = falsification.search(network, ball, regions, num_steps=40, num_restarts=3, seed=seed)
    first = next((place for place, point in enumerate(alone) if point is not None), None)
    if first is None:
        assert found is None
        return
    assert found is not None
    assert ball.contains(found[None])[0]
    assert falsification.reaches(network, regions[first], found)
    np.testing.assert_allclose(found, alone[first], atol=1e-9)


def test_no_region_is_reached_by_nothing() -> None:
    network = random_network(np.random.default_rng(0), (3, 2))
    ball = box([0.0] * 3, [1.0] * 3)
    assert falsification.search(network, ball, [], num_steps=3, num_restarts=2, seed=0) is None


def test_the_deadline_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is the least that is done; the start itself is tried even then."""
    ticks = itertools.count()  # the clock is looked at once a step
    monkeypatch.setattr(falsification, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    network = convolutional(np.random.default_rng(0), (28, 28), (16, 32), 100, 10)
    center = np.random.default_rng(1).random((1, 784))
    ball = ball_around(center, 0.1)
    beyond = UnsafeRegion(ball, np.zeros((1, 10)), np.ones(1))
    for deadline in (-1.0, 3.5):
        found = falsification.search(
            network,
            ball,
            [beyond] * 9,
            num_steps=10**9,
            num_restarts=10,
            seed=0,
            deadline=deadline,
        )
        assert found is None
    assert next(ticks) == 1 + 4  # the ticks 0, and 1 to 4
    everywhere = UnsafeRegion(ball, np.zeros((1, 10)), np.zeros(1))
    found = falsification.search(
        network, ball, [everywhere], num_steps=9, num_restarts=1, seed=0, deadline=-1.0
    )
    np.testing.assert_allclose(found, (ball.lower[0] + ball.upper[0]) / 2)
