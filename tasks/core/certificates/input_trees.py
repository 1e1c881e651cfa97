"""Trees over the inputs: boxes that CROWN excludes by itself, as a checker will bound them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from tasks.checker.bounds import Choices, hidden_bounds, lower_bounds
from tasks.checker.certificate import CROWN, NOTHING
from tasks.checker.network import Network
from tasks.core.arrays import BoolArray
from tasks.core.bounds.relaxations import Bounds
from tasks.core.certificates.writing import BoxProof, TreeNode
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search.record import Record

BATCH = 64  # boxes, whose arrays caches hold
SPARE = 2.0**-40  # of a bound: sums of other batches come in other orders


def input_tree(
    network: ReluNetwork,
    read: Network,
    regions: Sequence[UnsafeRegion],
    hidden: Sequence[Bounds],
    goal: float,
    deadline: float,
) -> BoxProof | None:
    """A tree whose leaves' own bounds exclude all regions, or None where none is found in time.

    The search bounds a box with what it knows of those around it; leaves whose own bounds are
    looser are halved along their relatively widest input.
    """
    from tasks.core.search.inputs import InputSearch

    root, record = regions[0].box, Record()
    if not InputSearch(network, root, regions, hidden, goal, record=record).run(deadline).proved:
        return None
    (top,) = record.roots
    boxes = _leaves(record, top, root)
    while boxes:
        places, parts = list(boxes), list(boxes.values())
        lower, upper = (np.concatenate([getattr(p, s) for p in parts]) for s in ("lower", "upper"))
        left = np.flatnonzero(~_excluded(read, regions, Box(lower, upper)))
        if len(left) and time.monotonic() > deadline:
            return None
        width = root.upper - root.lower
        widest = ((upper - lower)[left] / np.where(width > 0, width, np.inf)).argmax(axis=1)
        middle = ((lower + upper) / 2)[left, widest]
        parents = [places[at] for at in left]
        record.split(parents, widest.tolist(), middle.tolist())
        boxes = {}
        for place, at in zip(parents, left.tolist(), strict=True):
            boxes |= _leaves(record, place, parts[at])
    return BoxProof([_preorder(record, top)])


def _leaves(record: Record, place: int, box: Box) -> dict[int, Box]:
    """The boxes below a node that are not split, by their places."""
    found, waiting = dict[int, Box](), [(place, box)]
    while waiting:
        place, box = waiting.pop()
        if place not in record.splits:
            found[place] = box
            continue
        split = record.splits[place]
        lower, upper = box.lower.copy(), box.upper.copy()
        upper[0, split.index] = lower[0, split.index] = split.threshold
        waiting += zip(split.children, (Box(box.lower, upper), Box(lower, box.upper)), strict=True)
    return found


def _preorder(record: Record, top: int) -> list[TreeNode]:
    nodes, waiting = list[TreeNode](), [top]
    while waiting:
        place = waiting.pop()
        if place not in record.splits:
            nodes.append(TreeNode(CROWN))
            continue
        split = record.splits[place]
        nodes.append(TreeNode(NOTHING, split.index, split.threshold))
        waiting += reversed(split.children)
    return nodes


def _excluded(read: Network, regions: Sequence[UnsafeRegion], boxes: Box) -> BoolArray:
    """Whether CROWN in each box by itself excludes all regions, as the checker computes it."""
    rows = np.concatenate([region.rows for region in regions])
    offsets = np.concatenate([region.offsets for region in regions])
    ends = np.cumsum([len(region.offsets) for region in regions])
    result = np.zeros(len(boxes), dtype=bool)
    for start in range(0, len(boxes), BATCH):
        some = boxes[start : start + BATCH]
        frame = hidden_bounds(read, some.lower, some.upper, by_crown=True)
        asked = np.broadcast_to(rows, (len(some), *rows.shape))
        excess = lower_bounds(read, asked, frame, Choices()) + offsets
        parts = np.split(excess > SPARE * (1 + np.abs(offsets)), ends[:-1], axis=1)
        result[start : start + BATCH] = np.all([part.any(axis=1) for part in parts], axis=0)
    return result
