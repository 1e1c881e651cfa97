"""Whether two models differ on the same points by more than the points' choice explains."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tasks.core.arrays import FloatArray, Mask

MCNEMAR = "exact McNemar"
BOOTSTRAP = "paired bootstrap"
RESAMPLES = 10_000
COMMON, GATE = "common", "gate"
BATCH = 500  # resamples at a time: memory stays small for large samples
SEED = 0


@dataclass(frozen=True)
class Difference:
    """New beside old, on the same points.

    Attributes:
        new, old: the shares right, or the medians.
        points: how many both were measured on.
        sample: which these are: `COMMON`, those that both runs looked at, or `GATE`, those that
            both models were judged on at the gate.
        method: `MCNEMAR` (with `p_value`) or `BOOTSTRAP` (with `interval`).
        significant: beyond sampling error: p below the significance asked for, or an interval of
            that confidence without 0; never of a single point.
    """

    new: float
    old: float
    points: int
    method: str
    significant: bool
    p_value: float | None = None
    interval: tuple[float, float] | None = None
    sample: str = COMMON

    @property
    def value(self) -> float:
        """New minus old."""
        return self.new - self.old

    @property
    def reversed(self) -> Difference:
        """The same seen from the other side."""
        return replace(self, new=self.old, old=self.new, interval=_negated(self.interval))


def _negated(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (-interval[1], -interval[0])


def share_difference(new: Mask, old: Mask, significance: float) -> Difference:
    """Of two shares of the same points, shape (n,), by McNemar's exact two-sided test.

    Only the points where the two differ count: were the models equally good, each would be as
    likely won as lost (McNemar 1947; Dietterich 1998 recommends it for classifiers).
    """
    p_value = mcnemar(int((new & ~old).sum()), int((old & ~new).sum()))
    return Difference(
        new=float(new.mean()),
        old=float(old.mean()),
        points=len(new),
        method=MCNEMAR,
        significant=p_value < significance,
        p_value=p_value,
    )


def mcnemar(won: int, lost: int) -> float:
    """The exact two-sided p-value of so many points won and lost; 1 where there are none."""
    from scipy.stats import binomtest  # takes half a second, which not every command needs

    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def least_significant_fall(significance: float) -> int:
    """The fewest points, all lost and none won, that `share_difference` calls significant."""
    lost = 1
    while mcnemar(0, lost) >= significance:
        lost += 1
    return lost


def median_difference(new: FloatArray, old: FloatArray, significance: float) -> Difference:
    """Of two medians over the same points, shape (n,), with a percentile bootstrap interval.

    The points are drawn with replacement, both models' values of a point together (Efron and
    Tibshirani 1993), from a fixed seed. A single point has no interval.
    """
    interval = _bootstrapped(new, old, significance) if len(new) > 1 else None
    return Difference(
        new=float(_median(new)),
        old=float(_median(old)),
        points=len(new),
        method=BOOTSTRAP,
        significant=interval is not None and not interval[0] <= 0 <= interval[1],
        interval=interval,
    )


def _bootstrapped(new: FloatArray, old: FloatArray, significance: float) -> tuple[float, float]:
    from scipy.stats import bootstrap

    found = bootstrap(
        (new, old),
        lambda one, other, axis: _median(one, axis) - _median(other, axis),
        n_resamples=RESAMPLES,
        batch=BATCH,
        vectorized=True,
        paired=True,
        confidence_level=1 - significance,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


def _median(values: FloatArray, axis: int = -1) -> FloatArray:
    """Along the axis; of the two in the middle the lower, as in `radius_summary`."""
    medians: FloatArray = np.quantile(values, 0.5, axis=axis, method="lower")
    return medians
