"""Branch and bound on phases: against the exact oracle, and hidden bounds by optimised choices."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.dual.tightening import tightened_hidden
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.phases import PhaseSearch, optimised_root
from tests.networks import ball_around, box, hand_computed, random_network, sampled_points
from tests.oracle import least_margin

SECONDS = 20.0


def search(network: ReluNetwork, ball: Box, regions: tuple[UnsafeRegion, ...]) -> PhaseSearch:
    return PhaseSearch(network, ball, regions, preactivation_bounds(network, ball, "crown"))


def case(seed: int) -> tuple[ReluNetwork, Box, int]:
    generator = np.random.default_rng(seed)
    depth = int(generator.integers(1, 4))
    widths = tuple(int(width) for width in generator.integers(5, 10, size=depth))
    network = random_network(generator, (8, *widths, 3))
    center = generator.uniform(0.2, 0.8, size=(1, 8))
    ball = ball_around(center, float(generator.uniform(0.05, 0.4)))
    return network, ball, int(network(center).argmax())


def test_agrees_with_the_exact_oracle() -> None:
    proved = broken = 0
    for seed in range(60):
        network, ball, label = case(seed)
        exact = least_margin(network, ball, label)
        if abs(exact) < 1e-4:
            continue
        found = search(network, ball, Property.robustness(ball, label, 3).unsafe).run(
            time.monotonic() + SECONDS
        )
        assert found.proved == (exact > 0)
        assert (found.candidate is None) == found.proved
        if found.proved:
            assert found.lower <= exact + 1e-6
        else:
            assert ball.contains(found.candidate[None])[0]
        proved, broken = proved + found.proved, broken + (not found.proved)
    assert min(proved, broken) >= 10


def test_best_bound_first_and_the_deadline_is_kept() -> None:
    network, ball, label = case(0)
    unsafe = Property.robustness(ball, label, 3).unsafe
    found = search(network, ball, unsafe).run(time.monotonic())
    assert found.subproblems == len(unsafe)  # the roots: nothing was split
    assert not found.proved or found.lower > 0


@pytest.mark.parametrize("seed", range(8))
def test_tightened_hidden_bounds_hold_and_are_narrower(seed: int) -> None:
    network, ball, _ = case(seed)
    hidden = preactivation_bounds(network, ball, "crown")
    tight = tightened_hidden(network, ball, hidden, 10, deadline=np.inf)
    values = network.preactivations(sampled_points(np.random.default_rng(seed), ball, 4000))
    widths = []
    for before, after, layer in zip(hidden, tight, values, strict=False):
        assert (layer >= after.lower).all()
        assert (layer <= after.upper).all()
        assert (after.lower >= before.lower).all()
        assert (after.upper <= before.upper).all()
        widths.append((after.upper - after.lower).sum() / (before.upper - before.lower).sum())
    assert widths[0] == 1
    unstable = hidden[0].unstable(network.activations[0]).any()
    assert len(widths) == 1 or not unstable or min(widths[1:]) < 1


def test_hidden_bounds_stay_as_they_are_once_the_time_is_over() -> None:
    network, ball, _ = case(1)
    hidden = preactivation_bounds(network, ball, "crown")
    assert len(hidden) > 1
    tight = tightened_hidden(network, ball, hidden, 10, deadline=0.0)
    for before, after in zip(hidden, tight, strict=True):
        np.testing.assert_array_equal(after.lower, before.lower)
        np.testing.assert_array_equal(after.upper, before.upper)


def test_optimised_root_is_below_the_exact_margin() -> None:
    for seed in range(20):
        network, ball, label = case(seed)
        regions = Property.robustness(ball, label, 3).unsafe
        hidden = preactivation_bounds(network, ball, "crown")
        root = optimised_root(network, ball, regions, hidden, 15, np.inf)
        assert root.root_lower.min() <= least_margin(network, ball, label) + 1e-7


def test_hand_computed_network_is_settled() -> None:
    ball = box([0.0, 0.0], [1.0, 0.5])
    found = search(hand_computed(), ball, Property.robustness(ball, 0, 2).unsafe).run(
        time.monotonic() + SECONDS
    )
    assert found.proved
    assert 0 < found.lower <= 1  # y0 - y1 is least, 1, where both inputs are at 0 or x2 = 0
