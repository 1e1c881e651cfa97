"""How far the interval certificate reaches on clean data: what a service can promise beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tasks.core.arrays import Float32Array, FloatArray, IntArray, Mask
from tasks.core.guard.certificate import CertificateRuntime

POINTS = 2000  # of the test set, drawn at random: a share is known to about a hundredth
STEPS = 32  # between 0 and twice the greatest radius of interest
CONFIDENCE = 0.999


@dataclass(frozen=True, eq=False)
class CleanRadii:
    """Of test points as they are drawn in service: the greatest radius proved, and if it is right.

    Attributes:
        radii: (n,), of a grid; 0 where none is proved.
        labels: (n,), as served.
        right: (n,).
    """

    radii: FloatArray
    labels: IntArray
    right: Mask

    def accepted(self, epsilon: float) -> float:
        """The share that is proved at epsilon, or at the grid's next radius above it."""
        return float((self.radii >= epsilon).mean())

    @property
    def half_accepted_to(self) -> float:
        """The greatest epsilon at which half of the points are proved; 0 where there is none."""
        return float(np.sort(self.radii)[len(self.radii) // 2])

    def most_flagged(self, epsilon: float) -> float:
        """The rate at which intervals leave clean inputs open is at most this.

        With confidence 99.9% (Clopper and Pearson 1934); the ladder leaves fewer open.
        """
        count = len(self.radii)
        open_ones = int((self.radii < epsilon).sum())
        if open_ones == count:
            return 1.0
        return float(stats.beta.ppf(CONFIDENCE, open_ones + 1, count - open_ones))


def radii_grid(epsilons: Sequence[float]) -> FloatArray:
    """Ascending: the radii of interest, their doubles (see `guaranteed service`), and steps."""
    top = 2 * max(epsilons)
    wanted = np.array([*epsilons, *(2 * epsilon for epsilon in epsilons)])
    grid = np.unique(np.concatenate([wanted, np.linspace(0, top, STEPS + 1)]))
    return grid[grid > 0]


def clean_radii(
    certificate: CertificateRuntime,
    inputs: Float32Array,
    labels: IntArray,
    epsilons: Sequence[float],
    seed: int,
) -> CleanRadii:
    """By bisection on the grid, of at most `POINTS` of the inputs."""
    chosen = np.random.default_rng(seed).permutation(len(inputs))[:POINTS]
    inputs, labels = inputs[chosen], labels[chosen]
    grid = radii_grid(epsilons)
    proved = np.zeros(len(inputs), dtype=np.int64)  # so many radii of the grid
    open_below = np.full(len(inputs), len(grid))
    served = certificate.certified(inputs, grid[:1]).labels
    while (proved < open_below).any():
        middle = (proved + open_below + 1) // 2
        for count in np.unique(middle[proved < open_below]):
            at = np.flatnonzero((middle == count) & (proved < open_below))
            held = certificate.certified(inputs[at], grid[count - 1 : count]).margins
            is_proved = held[:, 0] > 0
            proved[at[is_proved]] = count
            open_below[at[~is_proved]] = count - 1
    radii = np.concatenate([[0.0], grid])[proved]
    return CleanRadii(radii, served, served == labels)
