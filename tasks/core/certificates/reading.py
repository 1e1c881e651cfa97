"""Proofs read back from a certificate, to be tried on another network.

Multipliers bound whatever network they are used in: what they show there, the checker says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.checker import certificate as form
from tasks.checker.refused import RefusedError
from tasks.core.arrays import IntArray
from tasks.core.certificates.fixed_point import Multipliers
from tasks.core.certificates.writing import BoxProof, TreeNode
from tasks.core.errors import CertiflowError
from tasks.core.properties.box import Box


@dataclass(frozen=True, eq=False)
class Proved:
    """A question of a certificate: its label, its boxes and the proof of each."""

    label: int
    boxes: Box
    proofs: list[BoxProof]

    def is_of(self, label: int, boxes: Box) -> bool:
        """Whether it is the question whether this label wins in these boxes."""
        return self.label == label and (
            np.array_equal(self.boxes.lower, boxes.lower)
            and np.array_equal(self.boxes.upper, boxes.upper)
        )


def proved_in(certificate: Path) -> dict[str, Proved]:
    """The questions of a certificate of balls, by name.

    Raises:
        CertiflowError: it is damaged, or of a VNN-LIB file.
    """
    try:
        header, arrays = form.read_certificate(certificate)
        owners, boxes = arrays["box_question"], Box(arrays["box_lower"], arrays["box_upper"])
        proofs, found = _proofs(arrays, boxes), {}
        for question, name in enumerate(header["names"]):
            mine = np.flatnonzero(owners == question)
            label = int(arrays["question_label"][question])
            found[str(name)] = Proved(label, boxes[mine], [proofs[place] for place in mine])
        return found
    except (RefusedError, LookupError, ValueError, TypeError) as error:
        raise CertiflowError(f"{certificate.name}: no certificate of balls ({error})") from error


def _proofs(arrays: Mapping[str, Any], boxes: Box) -> list[BoxProof]:
    rows = _Rows(arrays)
    found = [BoxProof([]) for _ in range(len(boxes))]
    for number, part in enumerate(arrays["frame_part"].tolist()):
        mine = np.flatnonzero(arrays["row_frame"][: rows.bounds] == number)
        if len(mine):
            bounds = [rows.at(mine, has_planes=bool(arrays["frame_planes"][number]))]
            found[part] = BoxProof([], arrays["bound_unit"][mine].astype(np.int64), bounds, [])
        else:
            found[part] = BoxProof([], multipliers=[])
    thresholds = iter(arrays["threshold"].tolist())
    sides = list(zip(boxes.lower, boxes.upper, strict=True))
    for tree in form.trees(arrays, sides):
        proof, nodes = found[tree[0].part], list[TreeNode]()
        for node in tree:
            is_input = 0 <= node.split < boxes.lower.shape[1]
            threshold = next(thresholds) if is_input else None
            row, region, path = -1, 0, tuple(unit for unit, _ in node.units)
            if node.kind == form.MULTIPLIERS:
                row = len(proof.multipliers)
                region = int(arrays["node_region"][node.row - rows.bounds])
                proof.multipliers.append(rows.of(node))
            nodes.append(TreeNode(node.kind, node.split, threshold, row, region, path))
        proof.trees.append(nodes)
    return found


class _Rows:
    """Rows of multipliers; the first `bounds` are those of frames."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays, self.bounds = arrays, len(arrays["bound_unit"])
        names = [name for name in ("slopes", "levels", "tilts") if f"{name}_high" in arrays]
        self.tables = {name: form.table(arrays, name).astype(np.uint16) for name in names}

    def at(self, rows: IntArray, *, has_planes: bool) -> Multipliers:
        """Those of a frame's bounds."""
        levels, tilts = (
            self.tables[name][rows] if has_planes else None for name in ("levels", "tilts")
        )
        slopes = self.tables["slopes"][rows]
        return Multipliers(slopes, levels, tilts, np.zeros(slopes.shape), np.ones((len(rows), 1)))

    def of(self, node: form.Node) -> Multipliers:
        """A node's, with those of its splits and its region's rows."""
        frame = self.arrays["row_frame"][node.row]
        row = self.at(np.array([node.row]), has_planes=bool(self.arrays["frame_planes"][frame]))
        for order, (unit, _) in enumerate(node.units, start=node.taken):
            row.splits[0, unit] = self.arrays["multipliers"][order]
        weights = self.arrays["node_weights"][node.row - self.bounds].astype(np.float64)
        return Multipliers(row.slopes, row.levels, row.tilts, row.splits, weights[None])
