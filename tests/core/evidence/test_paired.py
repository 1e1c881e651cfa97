"""The paired tests against SciPy's binomial test, and against what must come out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from tasks.core.evidence.paired import (
    BOOTSTRAP,
    MCNEMAR,
    least_significant_fall,
    median_difference,
    share_difference,
)


@pytest.mark.parametrize("seed", range(20))
def test_mcnemar_is_the_binomial_test_of_the_points_that_differ(seed: int) -> None:
    random = np.random.default_rng(seed)
    new, old = random.random((2, 60)) < random.random((2, 1))
    found = share_difference(new, old, 0.05)
    won, lost = int((new & ~old).sum()), int((old & ~new).sum())
    expected = binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert found.p_value == pytest.approx(expected)
    assert found.value == pytest.approx(new.mean() - old.mean())
    assert found.significant == (expected < 0.05)
    assert (found.method, found.points) == (MCNEMAR, 60)


def test_equal_models_do_not_differ() -> None:
    right = np.arange(10) % 2 == 0
    found = share_difference(right, right, 0.05)
    assert (found.value, found.p_value, found.significant) == (0, 1, False)


@pytest.mark.parametrize("significance", [0.05, 0.01, 0.3])
def test_least_significant_fall_is_where_the_test_turns(significance: float) -> None:
    least = least_significant_fall(significance)
    old = np.ones(50, dtype=bool)
    for lost, significant in ((least - 1, False), (least, True)):
        new = np.arange(50) >= lost
        assert share_difference(new, old, significance).significant is significant


def test_bootstrap_sees_a_shift_of_every_point_and_not_a_swap() -> None:
    old = np.random.default_rng(0).uniform(0.01, 0.1, 40)
    shifted = median_difference(old + 0.02, old, 0.05)
    assert shifted.significant
    assert shifted.value == pytest.approx(0.02)
    assert shifted.interval is not None
    assert shifted.interval[0] > 0
    assert shifted.method == BOOTSTRAP
    noise = np.random.default_rng(1).normal(0, 0.001, 40)
    assert not median_difference(old + noise, old, 0.05).significant


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    random, covered = np.random.default_rng(2), 0
    for _ in range(60):
        base = random.normal(0, 1, 30)
        noise = random.normal(0, 1, (2, 30))
        found = median_difference(base + noise[0], base + noise[1], 0.1)
        assert found.interval is not None
        covered += found.interval[0] <= 0 <= found.interval[1]
    assert covered >= 48  # 54 expected; fewer than 48 has a chance of 1%
