"""What a share of sampled points says of all points."""

from __future__ import annotations

import math

CONFIDENCE = 0.95
METHOD = "Clopper-Pearson"
NARROW = 0.05  # an interval of this width or less is told with a decimal


def share_interval(count: int, points: int) -> tuple[float, float]:
    """Where the share of all points lies, of which `count` of `points` drawn at random have it.

    Exact (Clopper and Pearson 1934): it holds the truth in at least 95 of 100 samples, also small
    ones and shares of 0 or 1.
    """
    from scipy.stats import binomtest  # takes half a second, which not every command needs

    found = binomtest(count, points).proportion_ci(confidence_level=CONFIDENCE, method="exact")
    return float(found.low), float(found.high)


def interval_text(low: float, high: float) -> str:
    """In percent, rounded outwards, so that it claims no more: `36-81%`."""
    scale = 1000 if high - low <= NARROW else 100
    edges = math.floor(scale * low), math.ceil(scale * high)
    return "-".join(f"{edge * 100 / scale:g}" for edge in edges) + "%"
