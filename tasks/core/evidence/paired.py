"""Whether two models differ on the same points by more than the points' choice explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from tasks.core.arrays import FloatArray

MCNEMAR = "exact McNemar"
BOOTSTRAP = "paired bootstrap"
RESAMPLES = 10_000
BATCH = 500  # resamples at a time: memory stays small for large samples


@dataclass(frozen=True)
class Difference:
    """New beside old, on the same points.

    Attributes:
        new, old: the shares right, or the medians.
        points: how many both were measured on.
        method: `MCNEMAR` (with `p_value`) or `BOOTSTRAP` (with `interval`).
        significant: beyond sampling error: p below the significance asked for, or an interval of
            that confidence without 0.
    """

    new: float
    old: float
    points: int
    method: str
    significant: bool
    p_value: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def value(self) -> float:
        """New minus old."""
        return self.new - self.old


def share_difference(
    new: NDArray[np.bool_], old: NDArray[np.bool_], significance: float
) -> Difference:
    """Of two shares of the same points, shape (n,), by McNemar's exact two-sided test.

    Only the points where the two differ count: were the models equally good, each would be as
    likely won as lost (McNemar 1947; Dietterich 1998 recommends it for classifiers).
    """
    won, lost = int((new & ~old).sum()), int((old & ~new).sum())
    p_value = min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))
    return Difference(
        new=float(new.mean()),
        old=float(old.mean()),
        points=len(new),
        method=MCNEMAR,
        significant=p_value < significance,
        p_value=p_value,
    )


def least_significant_fall(significance: float) -> int:
    """The fewest points, all lost and none won, that `share_difference` calls significant."""
    lost = 1
    while 2 * 0.5**lost >= significance:
        lost += 1
    return lost


def median_difference(new: FloatArray, old: FloatArray, significance: float) -> Difference:
    """Of two medians over the same points, shape (n,), with a percentile bootstrap interval.

    The points are drawn with replacement, both models' values of a point together (Efron and
    Tibshirani 1993), from a fixed seed.
    """
    random, count = np.random.default_rng(0), len(new)
    medians = []
    for _ in range(RESAMPLES // BATCH):
        drawn = random.integers(count, size=(BATCH, count))
        medians.append(_median(new[drawn]) - _median(old[drawn]))
    tails = [significance / 2, 1 - significance / 2]
    low, high = (float(edge) for edge in np.quantile(np.concatenate(medians), tails))
    return Difference(
        new=float(_median(new)),
        old=float(_median(old)),
        points=count,
        method=BOOTSTRAP,
        significant=not low <= 0 <= high,
        interval=(low, high),
    )


def _median(values: FloatArray) -> FloatArray:
    """Along the last axis; of the two in the middle the lower, as in `radius_summary`."""
    medians: FloatArray = np.quantile(values, 0.5, axis=-1, method="lower")
    return medians
