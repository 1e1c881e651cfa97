"""The search for a bound on the slope: what it proves holds, and it ends where it must."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.bounds.slopes import slope_bounds
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.search.slopes import SlopeSearch, search_slope
from tests.networks import box, hand_computed, random_network

ROW = np.array([1.0, -1.0])
BOX = box([-1.0, -1.0], [1.0, 1.0])


def searched(
    network: ReluNetwork,
    column: int,
    needed: float,
    *,
    deadline: float = np.inf,
    enough: bool = False,
    where: Box = BOX,
) -> SlopeSearch:
    return search_slope(network, ROW, column, where, needed, deadline, lambda part: enough)


def test_a_box_that_is_proved_at_once_is_one() -> None:
    found = searched(hand_computed(), 1, -0.5)
    assert found.boxes == 1
    assert found.lower == pytest.approx(0.0, abs=1e-9)


def test_halves_prove_what_the_whole_does_not() -> None:
    """relu(x1 + x2) - relu(x1 + x2 - 1) never falls: where one opens the other is shut."""
    network = ReluNetwork(
        (Affine(np.ones((2, 2)), np.array([0.0, -1.0])), Affine(np.eye(2), np.zeros(2)))
    )
    assert slope_bounds(network, ROW, 0, BOX).lower[0] < -0.9
    found = searched(network, 0, -0.1)
    assert found.lower > -0.1
    assert found.boxes > 1


def test_what_is_proved_is_never_undercut() -> None:
    """Between random points of the whole box, whatever their distance."""
    proved = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        network = random_network(generator, (2, 5, 4, 2))
        needed = float(generator.uniform(-0.6, 0))
        found = searched(network, 0, needed)
        if not found.lower > needed:
            continue
        proved += 1
        first = generator.uniform(-1, 1, (4000, 2))
        other = first.copy()
        other[:, 0] = generator.uniform(first[:, 0], 1)
        rise = (network(other) - network(first)) @ ROW
        assert (rise >= found.lower * (other - first)[:, 0] - 1e-9).all()
    assert proved > 10


@pytest.mark.parametrize("start", np.linspace(-0.97, 0.93, 39))
def test_no_narrow_fall_is_overlooked(start: float) -> None:
    """x rises by 1, but by -1 from `start` on for 0.03."""
    steps = np.array([2.0, -start, -start - 0.03])
    network = ReluNetwork(
        (
            Affine(np.array([[1.0, 0.0]] * 3), steps),
            Affine(np.array([[1.0, -2.0, 2.0], [0.0, 0.0, 0.0]]), np.zeros(2)),
        )
    )
    assert searched(network, 0, -0.5).lower == pytest.approx(-1.0)


def test_it_ends_at_a_part_that_falls() -> None:
    """Without a deadline: the slope along x1 is -1 wherever the second unit alone is active."""
    found = searched(hand_computed(), 0, -0.5)
    assert found.lower == pytest.approx(-1.0)


def test_a_deadline_that_has_passed_leaves_one_bound() -> None:
    found = searched(hand_computed(), 0, -0.5, deadline=0.0)
    assert found.boxes == 1
    assert found.lower == pytest.approx(-1.0)


def test_it_ends_when_enough_is_seen() -> None:
    assert searched(hand_computed(), 0, -0.5, enough=True).boxes == 1


def test_a_single_point_cannot_be_halved() -> None:
    point = Box(np.zeros((1, 2)), np.zeros((1, 2)))  # where both phases are open
    assert not searched(hand_computed(), 0, 1.5, where=point).lower > 1.5
