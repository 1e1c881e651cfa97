"""What a certificate's file holds, an `.npz` without pickles.

`header` is JSON: `format`, `names` of the questions, the SHA-256 of the `network` and of the
VNN-LIB file (`property`), if it is one. Else `box_lower` and `box_upper` are rows of boxes,
`box_question` says of which question and `question_label` that question's label.

Trees, of the boxes `tree_part`, have `tree_nodes` nodes each in preorder. `node_split` is an input,
whose first child has x <= the next of `threshold` and the second x >= it; or the number of inputs
plus that of a hidden unit, whose children have z >= 0 and z <= 0; or -1. `node_kind` says how
regions are excluded in all of a node's box.

Rows of multipliers come first for hidden bounds of frames, one for each of `bound_unit` (a unit's
number, or -1 less it for its upper bound), then for each node of kind MULTIPLIERS. `row_frame` is a
row's frame, of the box `frame_part`, with planes where `frame_planes`; `node_region` is the region
that a node excludes, `node_weights` those of its rows; `multipliers` are those of all splits of
units on the way to each. Tables of 16-bit numbers are stored by high and low bytes, each less that
of the row before.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .refused import RefusedError, needed

FORMAT = "certiflow-certificate/1"
NOTHING, INTERVALS, CROWN, MULTIPLIERS = range(4)
MOST_BYTES = 2**33
SLOPE_ONE, PLANE_ONE, PLANE_ZERO = 2**15, 2**13, 2**15


@dataclass(frozen=True, eq=False)
class Node:
    """A node: the tree's box, kind, split, its part of the box, the splits of units on the way.

    `row` is that of its multipliers, `taken` how many multipliers of splits belong to nodes before.
    """

    part: int
    kind: int
    split: int
    lower: Any
    upper: Any
    units: tuple[tuple[int, int], ...]
    row: int
    taken: int


def read_certificate(path: Path) -> tuple[dict[str, Any], Any]:
    """The header and the arrays; raises `RefusedError` where it is damaged or of another format."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            needed(size <= MOST_BYTES, f"expected at most {MOST_BYTES} bytes unpacked")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        needed(header["format"] == FORMAT, f"expected the format {FORMAT}")
        return header, arrays
    except Exception as error:  # zipfile's, zlib's, json's and numpy's have no class in common
        raise RefusedError(f"{path}: cannot be read as a certificate ({error})") from error


def table(arrays: Any, name: str) -> Any:
    """A table of 16-bit numbers, (rows, columns)."""
    parts = (arrays[f"{name}_{part}"] for part in ("high", "low"))
    high, low = (np.cumsum(part, axis=0, dtype=np.uint8).astype(np.int64) for part in parts)
    return high * 256 + low


def trees(arrays: Any, boxes: Sequence[tuple[Any, Any]]) -> Iterator[list[Node]]:
    """The nodes of each tree in preorder; raises `RefusedError` where they make no tree."""
    names = ("threshold", "node_kind", "node_split")
    thresholds, kinds, splits = (iter(arrays[name].tolist()) for name in names)
    parts, counts = arrays["tree_part"].tolist(), arrays["tree_nodes"].tolist()
    needed(sum(counts) == len(arrays["node_kind"]) == len(arrays["node_split"]), "other nodes")
    row, taken = len(arrays["bound_unit"]), 0
    for part, count in zip(parts, counts, strict=True):
        nodes: list[Node] = []
        waiting: list[tuple[Any, Any, tuple[tuple[int, int], ...]]] = [(*boxes[part], ())]
        for _ in range(count):
            (lower, upper, units), kind, split = waiting.pop(), next(kinds), next(splits)
            nodes.append(Node(part, kind, split, lower, upper, units, row, taken))
            if kind == MULTIPLIERS:
                row, taken = row + 1, taken + len(units)
            if split >= len(lower):
                unit = split - len(lower)
                waiting += [(lower, upper, (*units, (unit, sign))) for sign in (-1, 1)]
            elif split >= 0:
                at, below, above = next(thresholds, None), upper.copy(), lower.copy()
                below[split], above[split] = min(upper[split], at), max(lower[split], at)
                waiting += [(above, upper, units), (lower, below, units)]
        needed(not waiting, "a split lacks a child")
        yield nodes
