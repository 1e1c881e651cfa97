"""The paired tests against counts by hand, a plain loop, and what must come out."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from tasks.core.evidence.paired import (
    BOOTSTRAP,
    MCNEMAR,
    least_significant_fall,
    mcnemar,
    median_difference,
    share_difference,
)


def by_hand(won: int, lost: int) -> float:
    """Twice the share of all falls of `won + lost` coins that are as uneven to one side."""
    falls = sum(comb(won + lost, heads) for heads in range(min(won, lost) + 1))
    return min(1.0, 2 * falls / 2 ** (won + lost))


@pytest.mark.parametrize(
    ("won", "lost", "p_value"),
    [(0, 0, 1.0), (3, 3, 1.0), (0, 5, 0.0625), (0, 6, 0.03125), (8, 1, 20 / 512)],
)
def test_mcnemar_by_hand(won: int, lost: int, p_value: float) -> None:
    assert mcnemar(won, lost) == pytest.approx(p_value)
    assert by_hand(won, lost) == pytest.approx(p_value)


@pytest.mark.parametrize("seed", range(20))
def test_mcnemar_counts_the_coins_that_fall_as_unevenly(seed: int) -> None:
    random = np.random.default_rng(seed)
    new, old = random.random((2, 60)) < random.random((2, 1))
    found = share_difference(new, old, 0.05)
    won, lost = int((new & ~old).sum()), int((old & ~new).sum())
    expected = by_hand(won, lost)
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


def test_bootstrap_interval_is_that_of_a_plain_loop() -> None:
    """Resample by resample, in another order of random numbers: the same to sampling error."""
    random = np.random.default_rng(3)
    new, old = random.normal(0.3, 1, 41), random.normal(0, 1, 41)
    medians = []
    for _ in range(4000):
        drawn = random.integers(41, size=41)
        medians.append(np.median(new[drawn]) - np.median(old[drawn]))
    found = median_difference(new, old, 0.1)
    assert found.interval == pytest.approx(np.quantile(medians, [0.05, 0.95]), abs=0.1)
    assert median_difference(new, old, 0.1).interval == found.interval  # the seed is fixed


def test_one_point_tells_nothing_of_sampling_error() -> None:
    found = median_difference(np.array([0.3]), np.array([0.1]), 0.05)
    assert found.value == pytest.approx(0.2)
    assert (found.interval, found.significant) == (None, False)


def test_reversed_is_the_same_seen_from_the_other_side() -> None:
    old = np.random.default_rng(0).uniform(0.01, 0.1, 40)
    found = median_difference(old + 0.02, old, 0.05)
    expected = median_difference(old, old + 0.02, 0.05)
    assert found.reversed.interval == pytest.approx(expected.interval)
    assert (found.reversed.new, found.reversed.old) == (expected.new, expected.old)
