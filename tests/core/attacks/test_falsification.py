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
def test_many_regions_find_what_each_alone_does(seed: int) -> None:
    """Of one, two and three rows; what is found together is a point of a region, in the box."""
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
    if all(point is None for point in alone):
        assert found is None or any(falsification.reaches(network, r, found) for r in regions)
        return
    assert found is not None
    assert ball.contains(found[None])[0]
    assert any(falsification.reaches(network, region, found) for region in regions)


def test_a_descent_on_one_region_finds_another() -> None:
    """y2 is flat for x above -0.5, so that no descent on it moves; one on y1 = x passes into it."""
    hidden = Affine(np.array([[1.0], [-1.0]]), np.array([0.0, -0.5]))
    output = Affine(np.array([[1.0, 0.0], [0.0, -8.0]]), np.zeros(2))
    network = ReluNetwork((hidden, output), (np.array([True, False]),))
    ball = box([-1.0], [1.0])
    flat = UnsafeRegion(ball, np.array([[0.0, 1.0]]), np.ones(1))  # reached from x = -0.625 down
    never = UnsafeRegion(ball, np.array([[1.0, 0.0]]), np.full(1, 3.0))
    for regions, is_found in (([flat], False), ([never], False), ([flat, never], True)):
        found = falsification.search(network, ball, regions, num_steps=20, num_restarts=1, seed=0)
        assert (found is not None) == is_found


def test_deep_samples_are_on_faces_and_the_nearest_to_a_region() -> None:
    """The only counterexample is a corner, which no uniform point comes near to."""
    network = ReluNetwork((Affine(np.ones((1, 6)), np.zeros(1)),))
    ball = box([0.0] * 6, [1.0] * 6)
    regions = [
        UnsafeRegion(ball, np.array([[1.0]]), np.array([0.0])),  # all at 0
        UnsafeRegion(ball, np.array([[1.0]]), np.array([9.0])),
    ]
    points, targets = falsification.deep_samples(
        network, ball, regions, None, np.random.default_rng(0), 5
    )
    assert points.shape == (5, 6)
    assert ball.lower.min() <= points.min() <= points.max() <= ball.upper.max()
    assert (targets == 0).all()
    assert points[0].sum() == 0
    assert (np.diff(points.sum(axis=1)) >= 0).all()


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


def test_starts_in_parts_find_what_they_find_together(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    network = random_network(generator, (6, 9, 9, 4))
    ball = ball_around(generator.uniform(0.3, 0.7, (1, 6)), 0.2)
    outputs = network(ball.lower + generator.random((500, 6)) * 0.4)
    regions = [
        UnsafeRegion(ball, np.eye(4)[[unit]], -np.quantile(outputs[:, [unit]], [share]))
        for unit, share in ((0, 0.0), (1, 0.3))
    ]
    found = []
    for most_values in (2**20, 1):
        monkeypatch.setattr(falsification, "MOST_VALUES", most_values)
        found.append(
            falsification.search(network, ball, regions, num_steps=20, num_restarts=4, seed=0)
        )
    assert found[0] is not None
    np.testing.assert_allclose(found[1], found[0], atol=1e-12)


def test_a_large_network_is_descended_on_in_float32_and_judged_in_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1 + 1e-9 is 1 in float32, where it would reach what lies at 1."""
    monkeypatch.setattr("tasks.core.networks.network.LARGE", -1)
    network = ReluNetwork((Affine(np.ones((1, 1)), np.array([1.0 + 1e-9])),))
    (outputs,) = network.single().preactivations(np.zeros((1, 1)), np.float32)
    assert outputs.dtype == np.float32
    reached = UnsafeRegion(box([-1.0], [1.0]), np.eye(1), np.array([-0.5]))
    found = falsification.search(
        network, reached.box, [reached], num_steps=9, num_restarts=1, seed=0
    )
    assert found is not None
    missed = UnsafeRegion(box([0.0], [1.0]), np.eye(1), np.array([-1.0]))
    assert missed.excess(outputs)[0] == 0
    assert not falsification.search(
        network, missed.box, [missed], num_steps=9, num_restarts=1, seed=0
    )
