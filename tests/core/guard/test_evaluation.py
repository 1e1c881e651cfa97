"""How far an accepted wrong answer lies: what two balls that do not meet say of their centers."""

from __future__ import annotations

import numpy as np

from tasks.core.guard.clean import CleanRadii
from tasks.core.guard.evaluation import evasion_distances
from tasks.core.properties.domain import Domain, Feature

CLEAN = CleanRadii(
    np.array([0.3, 0.1, 0.2, 0.05, 0.3]), np.zeros(5), np.array([True, True, True, True, False])
)


def test_radii_add_up_where_all_between_two_inputs_is_an_input() -> None:
    """Of those that are right and accepted at 0.1."""
    found = evasion_distances(CLEAN, 0.1, Domain((2, 2)))
    np.testing.assert_allclose(found, [0.4, 0.2, 0.3])


def test_whole_numbers_step_from_one_ball_into_the_other() -> None:
    """0 and 1 lie 1 apart, and each alone in its ball of 0.6, though 0.6 + 0.6 is more."""
    whole = Domain.of_table([Feature(name="count", kind="integer", upper=1)])
    clean = CleanRadii(np.array([0.6]), np.zeros(1), np.array([True]))
    assert evasion_distances(clean, 0.6, whole) == [0.6]
