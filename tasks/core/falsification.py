"""Projected gradient descent on the float64 network: counterexamples for any property.

Only a candidate comes from here; whoever uses it replays it on the deployed model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.core.network import ReluNetwork
from tasks.core.specification import FloatArray, LinfBall, UnsafeRegion

STEP_DECAY = 0.5
STEPS_PER_SIZE = 10


def search(
    network: ReluNetwork,
    box: LinfBall,
    regions: Sequence[UnsafeRegion],
    *,
    num_steps: int,
    num_restarts: int,
    seed: int,
) -> FloatArray | None:
    """The point found deepest in the first region of `box` (one box) that is reached, or None.

    Descends on each region's greatest row (Madry et al. 2018), from the center and from seeded
    uniform points; steps start at a quarter of the box and halve every few steps. Shape (inputs,),
    float64, inside the box. Incomplete: None proves nothing.
    """
    generator = np.random.default_rng(seed)
    width = box.upper - box.lower
    starts = box.lower + generator.random((num_restarts, network.num_inputs)) * width
    starts[0] = (box.lower[0] + box.upper[0]) / 2
    for region in regions:
        points, excess = descend(network, box, region, starts, num_steps=num_steps)
        deepest = int(np.argmin(excess))
        if reaches(network, region, points[deepest]):
            return points[deepest]
    return None


def reaches(network: ReluNetwork, region: UnsafeRegion, point: FloatArray) -> bool:
    """Whether the float64 outputs of `point`, evaluated alone, are in the region.

    In a batch a sum may round otherwise, which decides ties.
    """
    return bool(region.excess(network(point[None]))[0] <= 0)


def descend(
    network: ReluNetwork,
    box: LinfBall,
    region: UnsafeRegion,
    starts: FloatArray,
    *,
    num_steps: int,
) -> tuple[FloatArray, FloatArray]:
    """From each start, shape (n, inputs), the point of least excess met, and that excess (n,)."""
    points = np.clip(starts, box.lower, box.upper)
    step = (box.upper - box.lower) / 4
    best, best_excess = points, np.full(len(points), np.inf)
    for index in range(num_steps + 1):
        values = network(points) @ region.rows.T + region.offsets
        excess = values.max(axis=1)
        better = excess < best_excess
        best, best_excess = np.where(better[:, None], points, best), np.minimum(excess, best_excess)
        gradient = network.gradient(points, region.rows[values.argmax(axis=1)])
        points = np.clip(points - step * np.sign(gradient), box.lower, box.upper)
        if index % STEPS_PER_SIZE == STEPS_PER_SIZE - 1:
            step, points = step * STEP_DECAY, best
    return best, best_excess
