"""Certificates written to files, in the form that `tasks.checker.certificate` describes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.checker.certificate import FORMAT, MULTIPLIERS
from tasks.core.arrays import IntArray
from tasks.core.certificates.fixed_point import Multipliers
from tasks.core.files import written_atomically


@dataclass(frozen=True, eq=False)
class TreeNode:
    """A node of a tree in preorder; `row` is its place in the tree's multipliers, `-1` none.

    `split` is -1, an input, or the number of inputs plus that of a hidden unit.
    """

    kind: int
    split: int = -1
    threshold: float | None = None
    row: int = -1
    region: int = 0
    path: tuple[int, ...] = ()  # hidden units split on the way


@dataclass(frozen=True, eq=False)
class BoxProof:
    """How the regions of one box are excluded.

    `bound_units` and `bounds` are the rows behind the frame's hidden bounds: a unit, or -1 less it
    for its upper bound. `multipliers` are the rows that the trees' nodes refer to.
    """

    trees: list[list[TreeNode]]
    bound_units: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    bounds: Sequence[Multipliers] = ()
    multipliers: list[Multipliers] = field(default_factory=list)


def write_certificate(
    path: Path,
    header: Mapping[str, Any],
    boxes: Mapping[str, NDArray[Any]],
    proofs: Sequence[BoxProof],
) -> None:
    """`proofs` are those of all boxes in order; a box that none of them closes has no tree.

    `header` says the names and the digests, `boxes` are the arrays of boxes unless a VNN-LIB file
    has them.
    """
    nodes = [
        (part, node) for part, proof in enumerate(proofs) for tree in proof.trees for node in tree
    ]
    frames = [part for part, proof in enumerate(proofs) if proof.multipliers]
    own = [
        (part, proofs[part].multipliers[node.row], node)
        for part, node in nodes
        if node.kind == MULTIPLIERS
    ]
    bounds = [row for part in frames for row in proofs[part].bounds]
    numbers = {part: number for number, part in enumerate(frames)}
    arrays: dict[str, Any] = dict(boxes) | {
        "header": np.frombuffer(
            json.dumps({"format": FORMAT} | dict(header)).encode(), dtype=np.uint8
        ),
        "tree_part": _ints([part for part, proof in enumerate(proofs) for _ in proof.trees]),
        "tree_nodes": _ints([len(tree) for proof in proofs for tree in proof.trees]),
        "node_kind": np.array([node.kind for _, node in nodes], dtype=np.int8),
        "node_split": _ints([node.split for _, node in nodes]),
        "threshold": np.array(
            [node.threshold for _, node in nodes if node.threshold is not None], dtype=np.float64
        ),
        "frame_part": _ints(frames),
        "frame_planes": np.array(
            [proofs[part].multipliers[0].levels is not None for part in frames], dtype=bool
        ),
        "bound_unit": _ints(
            [unit for part in frames for unit in proofs[part].bound_units.tolist()]
        ),
        "row_frame": _ints(
            [numbers[part] for part in frames for _ in proofs[part].bound_units]
            + [numbers[part] for part, _, _ in own]
        ),
        "node_region": _ints([node.region for _, _, node in own]),
        "node_weights": _padded([row.weights[0] for _, row, _ in own]),
        "multipliers": np.array(
            [row.splits[0, unit] for _, row, node in own for unit in node.path], dtype=np.float32
        ),
    }
    rows = [*bounds, *(row for _, row, _ in own)]
    if rows:
        arrays |= _table("slopes", [row.slopes for row in rows])
        if any(row.levels is not None for row in rows):
            arrays |= _table("levels", [row.levels for row in rows])
            arrays |= _table("tilts", [row.tilts for row in rows])
    with written_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _ints(values: Sequence[int]) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


def _padded(rows: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    result = np.zeros((len(rows), max(map(len, rows), default=1)), dtype=np.float32)
    for place, row in enumerate(rows):
        result[place, : len(row)] = row
    return result


def _table(name: str, parts: Sequence[NDArray[np.uint16] | None]) -> dict[str, NDArray[np.uint8]]:
    """By bytes, each less that of the row before."""
    width = next(part.shape[1] for part in parts if part is not None)
    whole = np.concatenate([np.zeros((1, width), np.uint16) if p is None else p for p in parts])
    halves = {"high": (whole >> 8).astype(np.uint8), "low": (whole & 255).astype(np.uint8)}
    return {
        f"{name}_{half}": np.diff(each, axis=0, prepend=np.zeros((1, width), np.uint8))
        for half, each in halves.items()
    }
