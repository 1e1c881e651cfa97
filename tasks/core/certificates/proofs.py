"""Proofs found once more, with all that a certificate needs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tasks.checker.certificate import CROWN, INTERVALS, MULTIPLIERS, NOTHING
from tasks.checker.network import Network
from tasks.core.arrays import IntArray
from tasks.core.bounds.linear import Method
from tasks.core.certificates.fixed_point import Multipliers, settled
from tasks.core.certificates.input_trees import input_tree
from tasks.core.certificates.writing import BoxProof, TreeNode
from tasks.core.dual.choices import Choices
from tasks.core.dual.tightening import tightened_hidden
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search.box_bounds import FEW_INPUTS, BoxBounds
from tasks.core.search.box_stages import SLOPE_STEPS
from tasks.core.search.record import Record

METHODS: tuple[tuple[Method, int], ...] = (("interval", INTERVALS), ("crown", CROWN))
WHOLE = {kind: BoxProof([[TreeNode(kind)]]) for kind in (INTERVALS, CROWN)}


@np.errstate(over="ignore", invalid="ignore")
def prove(
    network: ReluNetwork,
    regions: Sequence[UnsafeRegion],
    deadline: float,
    read: Network,
) -> BoxProof | None:
    """How the regions of one box are excluded, or None where that is not found in time.

    By intervals or CROWN, then by branch and bound on inputs, where they are few, or on phases.
    `read` is the network as the checker has it, which knows planes of a first layer of one step.
    """
    bounds = BoxBounds(network, regions, None)
    bounds.takes_forms &= network.num_inputs <= FEW_INPUTS  # the checker of phases knows none
    for method, kind in METHODS:
        bounds.bound_hidden(method)
        bounds.lower[:] = -np.inf  # one node has to exclude them all
        bounds.bound_regions(method)
        if bounds.excludes_all:
            return WHOLE[kind]
    if network.num_inputs <= FEW_INPUTS:
        hidden = bounds.whole_hidden
        return input_tree(bounds.whole, read, regions, hidden, bounds.goal(), deadline)
    return _phase_trees(bounds, deadline, with_planes=len(read.layers[0]) == 1)


def _phase_trees(bounds: BoxBounds, deadline: float, *, with_planes: bool) -> BoxProof | None:
    """A tree for each region, with hidden bounds that all share."""
    from tasks.core.search.phases import PhaseSearch

    whole = bounds.whole
    widths = [len(layer.bias) for layer in whole.layers[:-1]]
    starts = np.cumsum([0, *widths])
    units = np.concatenate([s + kept for s, kept in zip(starts, bounds.units, strict=False)])
    sizes = (int(starts[-1]), widths[0])
    rows: list[tuple[IntArray, Multipliers]] = []

    def settle(depth: int, some: NDArray[np.intp], choices: Choices) -> Choices:
        kept = settled(choices)
        mine = starts[depth] + bounds.units[depth][some]
        known = np.concatenate([starts[k] + bounds.units[k] for k in range(depth)])
        written = Multipliers.of(kept, known, bounds.units[0], sizes)
        rows.append((np.concatenate([mine, -1 - mine]), written))
        return kept

    hidden = tightened_hidden(
        bounds.network,
        bounds.box,
        bounds.hidden,
        SLOPE_STEPS,
        deadline,
        settle,
        with_planes=with_planes,
    )
    record = Record(settled)
    search = PhaseSearch(
        bounds.network,
        bounds.box,
        bounds.regions,
        hidden,
        bounds.goal(),
        record,
        with_planes=with_planes,
    )
    if not search.run(deadline).proved:
        return None
    trees, multipliers = [], list[Multipliers]()
    for region, root in enumerate(record.roots):
        tree: list[TreeNode] = []
        waiting: list[tuple[int, tuple[int, ...]]] = [(root, ())]
        ends = _ends(record, root)
        while waiting:
            place, path = waiting.pop()
            if place not in ends:
                split = record.splits[place]
                unit = int(units[split.index])
                tree.append(TreeNode(NOTHING, whole.num_inputs + unit))
                waiting += [(child, (*path, unit)) for child in reversed(split.children)]
                continue
            choices = record.shown[place]
            assert choices is not None
            choices = _folded(choices, len(bounds.regions[region].rows))
            multipliers.append(Multipliers.of(choices, units, bounds.units[0], sizes))
            row = len(multipliers) - 1
            tree.append(TreeNode(MULTIPLIERS, row=row, region=region, path=path))
        trees.append(tree)
    targets = (
        np.concatenate([target for target, _ in rows]) if rows else np.zeros(0, dtype=np.int64)
    )
    return BoxProof(trees, targets, [written for _, written in rows], multipliers)


def _folded(choices: Choices, rows: int) -> Choices:
    """With the weights of a region's own rows: the last one was repeated, see `padded_rows`."""
    weights = choices.weights[:, :rows].copy()
    weights[:, -1] += choices.weights[:, rows:].sum(axis=1)
    return replace(choices, weights=weights)


def _ends(record: Record, root: int) -> set[int]:
    """The nodes that exclude the root's region: as deep as all below them are excluded."""
    order, waiting = [], [root]
    while waiting:
        place = waiting.pop()
        order.append(place)
        if place in record.splits:
            waiting += record.splits[place].children
    ends: dict[int, set[int] | None] = {}
    for place in reversed(order):
        below: set[int] | None = None
        if place in record.splits:
            one, other = (ends[child] for child in record.splits[place].children)
            below = one | other if one is not None and other is not None else None
        if below is None and place in record.shown:
            below = {place}
        ends[place] = below
    whole = ends[root]
    assert whole is not None, "a search that proved its regions left an open leaf"
    return whole
