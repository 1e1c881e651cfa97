"""Projected gradient descent on the float64 network: counterexamples for any property.

Only a candidate comes from here; whoever uses it replays it on the deployed model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from tasks.core.arrays import BoolArray, FloatArray, IntArray
from tasks.core.networks.network import ReluNetwork
from tasks.core.networks.threads import in_threads, parts
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain
from tasks.core.properties.specification import UnsafeRegion

STEP_DECAY = 0.5
STEPS_PER_SIZE = 10
FACE_SHARE = 0.25
MOST_SAMPLES = 4096
MOST_VALUES = 2**20  # of units at all samples, or at the starts of one thread


def search(
    network: ReluNetwork,
    box: Box,
    regions: Sequence[UnsafeRegion],
    *,
    domain: Domain | None = None,
    num_steps: int,
    num_restarts: int,
    seed: int,
    deadline: float = np.inf,
    from_center: bool = True,
) -> FloatArray | None:
    """`search_from` the same seeded points for each region, by turns in the box and its corners.

    The first is the center unless `from_center` is false.
    """
    generator = np.random.default_rng(seed)
    shares = generator.random((num_restarts, network.num_inputs))
    shares[1::2] = np.round(shares[1::2])
    starts = box.lower + shares * (box.upper - box.lower)
    if from_center:
        starts[0] = (box.lower[0] + box.upper[0]) / 2
    return search_from(
        network,
        box,
        regions,
        np.tile(starts, (len(regions), 1)),
        np.repeat(np.arange(len(regions)), num_restarts),
        domain=domain,
        num_steps=num_steps,
        deadline=deadline,
    )


def search_from(
    network: ReluNetwork,
    box: Box,
    regions: Sequence[UnsafeRegion],
    starts: FloatArray,
    targets: IntArray,
    *,
    domain: Domain | None = None,
    num_steps: int,
    deadline: float = np.inf,
) -> FloatArray | None:
    """The point found deepest in the first region of `box` (one box) that is reached, or None.

    Descends on the greatest row (Madry et al. 2018) of the region at `targets`, (n,), from each
    start, (n, inputs); steps start at a quarter of the box and halve every few steps. All points on
    the way are held against all regions: where outputs are flat around one, a descent on another
    may lead into it. Shape (inputs,), float64, inside the box, and valid in `domain`. Ends with
    what it has at `deadline`, in seconds of `time.monotonic`. Incomplete: None proves nothing.
    Large networks are descended on in float32.
    """
    if not regions:
        return None
    rows, offsets = padded_rows(regions)
    descent, dtype = (network.single(), np.float32) if network.is_large else (network, np.float64)

    def descended(some: slice) -> _Deepest:
        deepest, mine = _Deepest(regions, network.num_inputs), targets[some]
        given = rows[mine], offsets[mine], starts[some]
        _descend(descent, box, *given, num_steps, deadline, domain, deepest, dtype)
        return deepest

    found = in_threads(descended, parts(len(starts), max(1, MOST_VALUES // _size(network))))
    for place, region in enumerate(regions):
        deepest = min(found, key=lambda each: each.excess[place])
        point = deepest.points[place]
        if is_valid(domain, point) and reaches(network, region, point):
            return point
    return None


def deep_samples(
    network: ReluNetwork,
    box: Box,
    regions: Sequence[UnsafeRegion],
    domain: Domain | None,
    generator: np.random.Generator,
    count: int,
) -> tuple[FloatArray, IntArray]:
    """Of some thousand points on the box's faces those nearest to a region, and which: (count, …).

    Many counterexamples lie where some inputs are at their ends: each input is at either end with
    a chance of `FACE_SHARE`. Larger networks get fewer points.
    """
    most = max(count, min(MOST_SAMPLES, MOST_VALUES // _size(network)))
    shares = generator.random((most, box.lower.size))
    shares = np.clip((shares - FACE_SHARE) / (1 - 2 * FACE_SHARE), 0, 1)
    points = np.clip(box.lower + shares * (box.upper - box.lower), box.lower, box.upper)
    if domain is not None:
        points = domain.nearest(points)
    outputs = network(points)
    excess = np.stack([region.excess(outputs) for region in regions], axis=1)
    some = np.argsort(excess.min(axis=1))[:count]
    return points[some], excess[some].argmin(axis=1)


def _size(network: ReluNetwork) -> int:
    """How many values there are at one point."""
    return network.num_inputs + sum(len(layer.bias) for layer in network.layers)


class _Deepest:
    """Of all points seen the one of least excess for each region: (regions, inputs)."""

    def __init__(self, regions: Sequence[UnsafeRegion], num_inputs: int) -> None:
        self.regions = regions
        self.points = np.full((len(regions), num_inputs), np.nan)
        self.excess = np.full(len(regions), np.inf)

    def see(self, points: FloatArray, outputs: FloatArray, counts: BoolArray) -> None:
        """Points (n, inputs) with their outputs, of which those marked count."""
        for place, region in enumerate(self.regions):
            excess = np.where(counts, region.excess(outputs), np.inf)
            best = int(excess.argmin())
            if excess[best] < self.excess[place]:
                self.points[place], self.excess[place] = points[best], excess[best]


def is_valid(domain: Domain | None, point: FloatArray) -> bool:
    """Whether there is such an input; without a domain every point is one."""
    return domain is None or bool(domain.contains(point[None])[0])


def padded_rows(regions: Sequence[UnsafeRegion]) -> tuple[FloatArray, FloatArray]:
    """Rows (regions, m, outputs) and offsets (regions, m): of all regions, their last repeated."""
    most = max(len(region.rows) for region in regions)
    places = [np.minimum(np.arange(most), len(region.rows) - 1) for region in regions]
    pairs = list(zip(regions, places, strict=True))
    return (
        np.stack([region.rows[place] for region, place in pairs]),
        np.stack([region.offsets[place] for region, place in pairs]),
    )


def reaches(network: ReluNetwork, region: UnsafeRegion, point: FloatArray) -> bool:
    """Whether the float64 outputs of `point`, evaluated alone, are finite and in the region.

    In a batch a sum may round otherwise, which decides ties.
    """
    outputs = network(point[None])
    return bool(np.isfinite(outputs).all() and region.excess(outputs)[0] <= 0)


def descend(
    network: ReluNetwork,
    box: Box,
    region: UnsafeRegion,
    starts: FloatArray,
    *,
    domain: Domain | None = None,
    num_steps: int,
    deadline: float = np.inf,
) -> tuple[FloatArray, FloatArray]:
    """From each start, shape (n, inputs), the point of least excess met, and that excess (n,).

    In a domain among its valid points; the excess is infinite where none was met. Ends with what it
    has at `deadline`, in seconds of `time.monotonic`.
    """
    rows, offsets = region.rows[None], region.offsets[None]
    return _descend(network, box, rows, offsets, starts, num_steps, deadline, domain)


def _descend(
    network: ReluNetwork,
    box: Box,
    rows: FloatArray,
    offsets: FloatArray,
    starts: FloatArray,
    num_steps: int,
    deadline: float,
    domain: Domain | None = None,
    deepest: _Deepest | None = None,
    dtype: type[np.floating] = np.float64,
) -> tuple[FloatArray, FloatArray]:
    """See `descend`: with rows (n, m, outputs) and offsets (n, m) for each start, or for all.

    In a domain the points next to those on the way are looked at, with whole numbers; `deepest`
    sees all points. `dtype` is the network's.
    """
    points = np.clip(starts, box.lower, box.upper)
    step = (box.upper - box.lower) / 4
    best, best_excess = points, np.full(len(points), np.inf)
    for index in range(num_steps + 1):
        seen = points if domain is None else domain.nearest(points)
        preactivations = network.preactivations(seen, dtype)
        values = (rows @ preactivations[-1][:, :, None])[..., 0] + offsets
        counts = np.ones(len(seen), dtype=bool) if domain is None else domain.contains(seen)
        excess = np.where(counts, values.max(axis=1), np.inf)
        if deepest is not None:
            deepest.see(seen, preactivations[-1], counts)
        better = excess < best_excess
        best, best_excess = np.where(better[:, None], seen, best), np.minimum(excess, best_excess)
        if index == num_steps or time.monotonic() > deadline:
            break
        greatest = values.argmax(axis=1)
        direction = rows[np.arange(len(points)) if len(rows) > 1 else 0, greatest]
        gradient = network.gradient(preactivations, direction.astype(dtype))
        points = np.clip(points - step * np.sign(gradient), box.lower, box.upper)
        if index % STEPS_PER_SIZE == STEPS_PER_SIZE - 1:
            step, points = step * STEP_DECAY, best
    return best, best_excess
