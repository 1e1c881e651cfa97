"""What a share of sampled points says of all points."""

from __future__ import annotations

import math

CONFIDENCE = 0.95
METHOD = "Clopper-Pearson"
DRAWN = "drawn from all classes alike"  # as `datasets.stratified_sample` does
NARROW = 0.05  # an interval of this width or less is told with a decimal


def share_interval(count: int, points: int) -> tuple[float, float]:
    """Where the share of all points lies, of which `count` of `points` drawn at random have it.

    Exact (Clopper and Pearson 1934): it holds the truth in at least 95 of 100 samples, also small
    ones and shares of 0 or 1.
    """
    from scipy.special import betaincinv  # scipy.stats takes half a second to import

    tail = (1 - CONFIDENCE) / 2
    low = betaincinv(count, points - count + 1, tail) if count > 0 else 0.0
    high = betaincinv(count + 1, points - count, 1 - tail) if count < points else 1.0
    return float(low), float(high)


def interval_text(low: float, high: float) -> str:
    """In percent, rounded outwards, so that it claims no more: `36-81%`."""
    scale = 1000 if high - low <= NARROW else 100
    edges = math.floor(scale * low), math.ceil(scale * high)
    return "-".join(f"{edge * 100 / scale:g}" for edge in edges) + "%"
