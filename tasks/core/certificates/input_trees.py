"""Trees over the inputs: boxes that CROWN excludes by itself, as a checker will bound them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from tasks.checker.certificate import CROWN, NOTHING
from tasks.core.arrays import BoolArray
from tasks.core.bounds.linear import linear_lower_bounds, preactivation_bounds
from tasks.core.bounds.relaxations import Bounds
from tasks.core.certificates.writing import BoxProof, TreeNode
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search.record import Record

BATCH = 256


def input_tree(
    network: ReluNetwork,
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
        left = np.flatnonzero(~_excluded(network, regions, Box(lower, upper)))
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


def _excluded(network: ReluNetwork, regions: Sequence[UnsafeRegion], boxes: Box) -> BoolArray:
    """Whether CROWN in each box by itself excludes all regions."""
    depth, rows = len(network.layers) - 1, np.concatenate([region.rows for region in regions])
    offsets = np.concatenate([region.offsets for region in regions])
    ends = np.cumsum([len(region.offsets) for region in regions])
    result = np.zeros(len(boxes), dtype=bool)
    for start in range(0, len(boxes), BATCH):
        some = boxes[start : start + BATCH]
        own = preactivation_bounds(network, some, "crown")
        excess = linear_lower_bounds(network, depth, rows, own, some) + offsets
        excess -= np.abs(excess) * 2.0**-50
        parts = np.split(excess, ends[:-1], axis=1)
        result[start : start + BATCH] = np.all([part.max(axis=1) > 0 for part in parts], axis=0)
    return result
