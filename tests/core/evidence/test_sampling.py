"""The intervals of sampled shares, from their definition and from beta quantiles."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy.special import betaincinv

from tasks.core.evidence.sampling import interval_text, share_interval


def at_least(count: int, points: int, share: float) -> float:
    """How likely so many or more are, when each point has it with the probability `share`."""
    terms = (comb(points, k) * share**k * (1 - share) ** (points - k) for k in range(points + 1))
    return sum(list(terms)[count:])


@pytest.mark.parametrize(("count", "points"), [(2, 4), (1, 20), (12, 20), (19, 20), (87, 100)])
def test_edges_are_the_shares_that_a_count_is_just_too_rare_for(count: int, points: int) -> None:
    low, high = share_interval(count, points)
    assert at_least(count, points, low) == pytest.approx(0.025)
    assert 1 - at_least(count + 1, points, high) == pytest.approx(0.025)


@pytest.mark.parametrize("points", [1, 5, 20, 100, 10_000])
def test_edges_are_beta_quantiles(points: int) -> None:
    for count in {0, 1, points // 3, points - 1, points}:
        low, high = share_interval(count, points)
        assert low == pytest.approx(
            betaincinv(count, points - count + 1, 0.025) if count else 0.0, abs=1e-9
        )
        assert high == pytest.approx(
            betaincinv(count + 1, points - count, 0.975) if count < points else 1.0, abs=1e-9
        )


def test_it_holds_the_truth_in_95_of_100_samples_whatever_the_truth() -> None:
    points = 20
    intervals = [share_interval(count, points) for count in range(points + 1)]
    for share in np.linspace(0, 1, 101):
        held = sum(
            comb(points, count) * share**count * (1 - share) ** (points - count)
            for count, (low, high) in enumerate(intervals)
            if low <= share <= high
        )
        assert held >= 0.95 - 1e-12


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.3605, 0.8088, "36-81%"),
        (0.0, 0.1685, "0-17%"),
        (0.8316, 1.0, "83-100%"),
        (0.96501, 0.9721, "96.5-97.3%"),
        (0.5, 0.54, "50-54%"),
    ],
)
def test_text_is_rounded_outwards(low: float, high: float, text: str) -> None:
    assert interval_text(low, high) == text
