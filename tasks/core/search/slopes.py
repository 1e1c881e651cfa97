"""Branch and bound on the inputs for a bound on the slope along one of them.

Two points that differ in one input alone are joined by a line: where the slope is bounded in every
part of a box, so is what the output falls by between any two of its points (see `bounds.slopes`).
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.bounds.slopes import slope_bounds
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box

BATCH = 256
MOST_BOXES = 100_000  # proofs come far sooner, or not at all, and each open box is kept


@dataclass(frozen=True)
class SlopeSearch:
    """How a search ended: the least slope over all parts of the box, sound, and their number."""

    lower: float
    boxes: int


def search_slope(
    network: ReluNetwork,
    row: FloatArray,
    column: int,
    box: Box,
    needed: float,
    deadline: float,
    is_enough: Callable[[Box], bool],
) -> SlopeSearch:
    """Whether `row @ outputs` rises along the input `column` by more than `needed` per unit.

    A `lower` above `needed` is a proof. Parts of the box that are not proved are halved along the
    input on which their open phases depend most, the steepest fall first. It ends without a proof
    at a part that cannot be halved, whose slope is what the bound says; when `is_enough` says so of
    the part that is halved next; at the deadline, in `time.monotonic`; or after `MOST_BOXES`.
    """
    order, boxes, count, closed = itertools.count(), box, 0, np.inf
    heap = list[tuple[float, int, Box, int]]()
    while True:
        found = slope_bounds(network, row, column, boxes)
        splits, count = _splits(boxes, found.dependence), count + len(boxes)
        closed = min(closed, found.lower[found.lower > needed].min(initial=np.inf))
        for place in np.flatnonzero(~(found.lower > needed)).tolist():
            part = boxes[place : place + 1]
            heapq.heappush(heap, (found.lower[place], next(order), part, int(splits[place])))
        if not heap:
            return SlopeSearch(closed, count)
        if is_enough(heap[0][2]) or (splits < 0)[~(found.lower > needed)].any():
            break
        if count > MOST_BOXES or time.monotonic() > deadline:
            break
        taken = [heapq.heappop(heap) for _ in range(min(BATCH, len(heap)))]
        boxes = _halves([(part, split) for _, _, part, split in taken])
    return SlopeSearch(heap[0][0], count)


def _splits(boxes: Box, dependence: FloatArray) -> IntArray:
    """For each box the input to halve, or -1 where nothing is to be gained."""
    gains = np.nan_to_num(dependence * (boxes.upper - boxes.lower), nan=0.0)
    middle = boxes.lower + (boxes.upper - boxes.lower) / 2
    gains[~((boxes.lower < middle) & (middle < boxes.upper))] = 0
    return np.where(gains.max(axis=1) > 0, gains.argmax(axis=1), -1).astype(np.int64)


def _halves(parts: list[tuple[Box, int]]) -> Box:
    """Both halves of each box along its input; they share their border."""
    lower = np.repeat(np.concatenate([box.lower for box, _ in parts]), 2, axis=0)
    upper = np.repeat(np.concatenate([box.upper for box, _ in parts]), 2, axis=0)
    rows, splits = 2 * np.arange(len(parts)), np.array([split for _, split in parts])
    low, high = lower[rows, splits], upper[rows, splits]
    middle = low + (high - low) / 2
    upper[rows, splits] = lower[rows + 1, splits] = middle
    return Box(lower, upper)
