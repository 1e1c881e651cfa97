"""Projected gradient descent on the float64 network: counterexamples for any property.

Only a candidate comes from here; whoever uses it replays it on the deployed model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain
from tasks.core.properties.specification import UnsafeRegion

STEP_DECAY = 0.5
STEPS_PER_SIZE = 10


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
    """The point found deepest in the first region of `box` (one box) that is reached, or None.

    Descends on each region's greatest row (Madry et al. 2018), from seeded uniform points, the
    first of which is the center unless `from_center` is false; steps start at a quarter of the box
    and halve every few steps. Shape (inputs,), float64, inside the box, and valid in `domain`. Ends
    with what it has at `deadline`, in seconds of `time.monotonic`.
    Incomplete: None proves nothing.
    """
    if not regions:
        return None
    generator = np.random.default_rng(seed)
    width = box.upper - box.lower
    starts = box.lower + generator.random((num_restarts, network.num_inputs)) * width
    if from_center:
        starts[0] = (box.lower[0] + box.upper[0]) / 2
    rows, offsets = padded_rows(regions)
    points, excess = _descend(
        network,
        box,
        np.repeat(rows, num_restarts, axis=0),
        np.repeat(offsets, num_restarts, axis=0),
        np.tile(starts, (len(regions), 1)),
        num_steps,
        deadline,
        domain,
    )
    deepest = excess.reshape(len(regions), num_restarts).argmin(axis=1)
    for place, region in enumerate(regions):
        point = points[place * num_restarts + deepest[place]]
        if is_valid(domain, point) and reaches(network, region, point):
            return point
    return None


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
) -> tuple[FloatArray, FloatArray]:
    """See `descend`: with rows (n, m, outputs) and offsets (n, m) for each start, or for all.

    In a domain the points next to those on the way are looked at, with whole numbers.
    """
    points = np.clip(starts, box.lower, box.upper)
    step = (box.upper - box.lower) / 4
    best, best_excess = points, np.full(len(points), np.inf)
    for index in range(num_steps + 1):
        seen = points if domain is None else domain.nearest(points)
        preactivations = network.preactivations(seen)
        values = (rows @ preactivations[-1][:, :, None])[..., 0] + offsets
        excess = values.max(axis=1)
        if domain is not None:
            excess = np.where(domain.contains(seen), excess, np.inf)
        better = excess < best_excess
        best, best_excess = np.where(better[:, None], seen, best), np.minimum(excess, best_excess)
        if index == num_steps or time.monotonic() > deadline:
            break
        greatest = values.argmax(axis=1)
        direction = rows[np.arange(len(points)) if len(rows) > 1 else 0, greatest]
        gradient = network.gradient(preactivations, direction)
        points = np.clip(points - step * np.sign(gradient), box.lower, box.upper)
        if index % STEPS_PER_SIZE == STEPS_PER_SIZE - 1:
            step, points = step * STEP_DECAY, best
    return best, best_excess
