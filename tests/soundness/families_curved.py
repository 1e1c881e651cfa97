"""Networks with sigmoids, products, a softmax and the like, against the densest samples.

No number is exact here. What is proved may not be more than what any sample shows, but for the
samples' own rounding; what is falsified must be so in float64.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.bounds.linear import (
    Method,
    interval_lower_bounds,
    linear_lower_bounds,
    preactivation_bounds,
)
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.inputs import InputSearch
from tasks.core.search.ladder import decide
from tasks.core.search.outcome import Search
from tasks.core.search.phases import PhaseSearch, optimised_root
from tasks.core.verdicts import Verdict
from tests.curved_networks import curved_network
from tests.soundness.findings import Finding

SECONDS = 0.3
GRID = 121  # points along each of two inputs
ROUNDING = 1e-11  # of a sample's value, relative to what is summed


def curved(rng: np.random.Generator, folder: Path) -> list[Finding]:
    """One network over one box of one or two inputs, and a region close to being reached."""
    inputs = int(rng.integers(1, 3))
    network = curved_network(rng, inputs)
    center, radius = rng.normal(size=(1, inputs)), 10.0 ** rng.uniform(-3, 0.3, size=(1, inputs))
    box = Box(center - radius, center + radius)
    points = _grid(box)
    rows = rng.normal(size=(int(rng.integers(1, 3)), network.num_outputs))
    values = network(points) @ rows.T
    gap = float(rng.uniform(-0.1, 0.3)) * (float(np.ptp(values)) + 1e-3)
    offsets = np.full(len(rows), gap - float(values.max(axis=1).min()))
    region = UnsafeRegion(box, rows, offsets)
    found = _Asked(network, region, points)
    return [found.bounds("interval"), found.bounds("crown"), *found.searches(), found.ladder()]


def _grid(box: Box) -> FloatArray:
    axes = [np.linspace(*ends, GRID) for ends in zip(box.lower[0], box.upper[0], strict=True)]
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=1)
    return np.clip(grid, box.lower, box.upper)


class _Asked:
    """What each engine says, and what the samples say of that."""

    def __init__(self, network: ReluNetwork, region: UnsafeRegion, points: FloatArray) -> None:
        self.network, self.region, self.points = network, region, points
        *self.values, self.outputs = network.preactivations(points)
        excess = region.excess(self.outputs)
        size = np.abs(self.outputs).max() * np.abs(region.rows).sum() + np.abs(region.offsets).max()
        self.least, self.rounding = float(excess.min()), ROUNDING * (1 + float(size))

    def bounds(self, method: Method) -> Finding:
        region, network = self.region, self.network
        hidden = preactivation_bounds(network, region.box, method)
        for depth, (found, each) in enumerate(zip(self.values, hidden, strict=True)):
            room = ROUNDING * (1 + np.abs(found).max())
            if (found < each.lower - room).any() or (found > each.upper + room).any():
                return Finding("curved", "wrong", f"{method}: a value of layer {depth} is outside")
        if method == "interval":
            lower = interval_lower_bounds(network, region.rows, hidden, region.box)
        else:
            depth = len(network.layers) - 1
            lower = linear_lower_bounds(network, depth, region.rows, hidden, region.box)
        return self._at_most(method, float((lower[0] + region.offsets).max()))

    def searches(self) -> list[Finding]:
        network, region = self.network, self.region
        hidden = preactivation_bounds(network, region.box, "crown")
        root = optimised_root(network, region.box, [region], hidden, 8, time.monotonic() + SECONDS)
        found = [self._at_most("alpha_crown", float(root.root_lower[0]))]
        kinds: list[Callable[..., PhaseSearch | InputSearch]] = [PhaseSearch, InputSearch]
        for kind in kinds:
            search = kind(network, region.box, [region], hidden).run(time.monotonic() + SECONDS)
            found.append(self._searched(getattr(kind, "__name__", "search"), search))
        return found

    def ladder(self) -> Finding:
        prop = Property((self.region,))
        answer = decide(self.network, prop, timeout_seconds=2 * SECONDS, with_marabou=False)
        if answer.verdict is Verdict.ROBUST:
            return self._at_most("ladder", float(answer.margin or 0.0))
        if answer.verdict is Verdict.FALSIFIED:
            return self._reaches("ladder", answer.candidates[0])
        return Finding("curved", "undecided", f"ladder: {answer.reason}")

    def _searched(self, engine: str, search: Search) -> Finding:
        if search.candidate is not None:
            return self._reaches(engine, search.candidate)
        found = self._at_most(engine, search.lower)
        if search.proved or found.status == "wrong":
            return found
        return Finding("curved", "undecided", f"{engine}: {search.reason}")

    def _at_most(self, engine: str, lower: float) -> Finding:
        if lower <= self.least + self.rounding or lower == np.inf:
            return Finding("curved", "right")
        words = f"{engine}: {lower!r} is proved, yet the excess is {self.least!r} at a sample"
        return Finding("curved", "wrong", words)

    def _reaches(self, engine: str, point: FloatArray) -> Finding:
        box = self.region.box
        inside = ((point >= box.lower) & (point <= box.upper)).all()
        if inside and self.region.excess(self.network(point[None]))[0] <= 0:
            return Finding("curved", "right")
        return Finding("curved", "wrong", f"{engine}: falsified by a point that does not show it")
