"""Checks every question of a certificate: nothing is believed but what a pass shows.

A question holds when trees over each of its boxes exclude every region. A node excludes those that
bounds exclude all over its part of the box, and those that both of its children do: a split leaves
nothing out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from . import certificate as form
from .bounds import Choices, Frame, float32_error, floats, gamma, hidden_bounds, lower_bounds
from .exact import Exact
from .network import Network, read_network
from .properties import Part, read_property, robustness
from .refused import RefusedError, needed

ENTRIES = 2**19  # of the largest array in a batch of passes: 4 MB, which caches hold
GREATEST = 2.0**64  # of bounds and multipliers

Excluded = tuple[frozenset[int], frozenset[int]]  # regions, and those for float32 as well
NONE: Excluded = (frozenset(), frozenset())


@dataclass(frozen=True)
class Result:
    """Of a question: whether it is proved, for the float32 model as well, and what is missing."""

    name: str
    proved: bool
    deployed: bool
    reason: str = ""


def check(
    certificate: Path,
    network: Path,
    prop: Path | None = None,
    *,
    exact: bool = False,
    only: Collection[str] = (),
) -> list[Result]:
    """A result for each question, or each of those named.

    With `exact` nothing is rounded: proofs are in rational arithmetic. Raises `RefusedError` where
    a file cannot be read, is not the one that the certificate speaks of, or makes no sense.
    """
    header, arrays = form.read_certificate(certificate)
    _check_digest(network, header.get("network"))
    read = read_network(network)
    try:
        if prop is not None:
            _check_digest(prop, header.get("property"))
            parts, names = read_property(prop, read.inputs, read.widths[-1]), header["names"][:1]
            owners = [0] * len(parts)
        else:
            names, owners = header["names"], arrays["box_question"].tolist()
            sides = (arrays[f"box_{side}"].astype(np.float64) for side in ("lower", "upper"))
            boxes = zip(*sides, owners, strict=True)
            labels = arrays["question_label"].tolist()
            parts = [robustness(low, high, labels[q], read.widths[-1]) for low, high, q in boxes]
        needed(all(part.regions for part in parts), "of a box nothing is asked")
        chosen = [not only or names[owner] in only for owner in owners]
        excluded = _Checker(read, parts, arrays, exact).excluded(chosen)
    except RefusedError:
        raise
    except Exception as error:  # numpy's, of arrays of other sizes, types and places, of any class
        raise RefusedError(f"{certificate}: {error!r}") from error
    results, of_question = [], dict[int, list[int]]()
    for place, owner in enumerate(owners):
        of_question.setdefault(owner, []).append(place)
    for question, name in enumerate(names):
        mine = of_question.get(question, [])
        left = [
            sum(r not in excluded[p][i] for p in mine for r in range(len(parts[p].regions)))
            for i in (0, 1)
        ]
        reason = f"{left[0]} regions are not excluded" if mine else "there is no box of it"
        proved, deployed = (bool(mine) and not each for each in left)
        if not only or name in only:
            results.append(Result(name, proved, deployed, "" if proved else reason))
    return results


def _check_digest(path: Path, expected: Any) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    needed(digest == expected, f"{path}: expected the file with SHA-256 {expected}, found {digest}")


class _Checker:
    """The numbers of a certificate, held against a network and the parts of a property."""

    def __init__(self, network: Network, parts: list[Part], arrays: Any, exact: bool) -> None:
        self.network, self.parts, self.arrays, self.exact = network, parts, arrays, exact
        for part in parts:
            fit = [
                s.shape == (network.inputs,) and (np.abs(s) < GREATEST).all()
                for s in (part.lower, part.upper)
            ]
            needed(all(fit), "a box is not finite, or of another network")
        for name in ("node_weights", "multipliers"):
            fit = (arrays[name] >= 0) & (arrays[name] < GREATEST)
            needed(fit.all(), f"{name} are not all from 0 to {GREATEST}")
        names = [name for name in ("slopes", "levels", "tilts") if f"{name}_high" in arrays]
        self.tables = {name: form.table(arrays, name) for name in names}
        self.ends = np.cumsum([0, *network.widths[:-1]]).tolist()
        self.bounds = len(arrays["bound_unit"])  # so many rows come first
        self.frames: dict[int, Frame] = {}

    def numbers(self, values: Any) -> Any:
        """As they are calculated with: always of 53 bits, or exact."""
        return Exact.of(values) if self.exact else np.asarray(values, dtype=np.float64)

    def excluded(self, chosen: list[bool]) -> list[Excluded]:
        """Of each part that is chosen the regions that its trees exclude."""
        trees = list(form.trees(self.arrays, [(part.lower, part.upper) for part in self.parts]))
        shown: dict[form.Node, Excluded] = {}
        nodes = [node for tree in trees for node in tree if node.kind and chosen[node.part]]
        for (kind, *_), alike in groupby(sorted(nodes, key=self._alike), self._alike):
            some, most = list(alike), self._most(kind)
            for start in range(0, len(some), most):
                batch = some[start : start + most]
                found = (
                    self._by_multipliers(batch) if kind == form.MULTIPLIERS else self._by_own(batch)
                )
                shown |= dict(zip(batch, found, strict=True))
        whole = [NONE] * len(self.parts)
        for tree in trees:
            below: list[Excluded] = []
            for node in reversed(tree):  # in preorder: its children are the last two
                mine = shown.get(node, NONE)
                if node.split >= 0:
                    one, other = below.pop(), below.pop()
                    mine = (mine[0] | (one[0] & other[0]), mine[1] | (one[1] & other[1]))
                below.append(mine)
            before = whole[tree[0].part]
            whole[tree[0].part] = (before[0] | below[0][0], before[1] | below[0][1])
        return whole

    def _alike(self, node: form.Node) -> tuple[Any, ...]:
        """Nodes that share it are bounded together."""
        if node.kind == form.MULTIPLIERS:
            return node.kind, int(self.arrays["row_frame"][node.row])
        return node.kind, [len(offsets) for _, offsets in self.parts[node.part].regions]

    def _most(self, kind: int) -> int:
        """How many nodes make a batch, by the numbers that the widest arrays have of each."""
        widths = [self.network.inputs, *self.network.widths]
        each = {form.INTERVALS: 1, form.CROWN: 2 * max(widths), form.MULTIPLIERS: widths[1] or 1}
        return max(1, ENTRIES // (max(widths) * each[kind]))

    def _by_own(self, nodes: list[form.Node]) -> list[Excluded]:
        """By intervals, or CROWN, over the nodes' boxes; splits of units are not made use of."""
        lower, upper = (self.numbers([getattr(n, s) for n in nodes]) for s in ("lower", "upper"))
        frame = hidden_bounds(self.network, lower, upper, nodes[0].kind == form.CROWN)
        regions = [self.parts[node.part].regions for node in nodes]
        rows, offsets = (
            np.array([np.concatenate([r[i] for r in each]) for each in regions]) for i in (0, 1)
        )
        owner = np.repeat(np.arange(len(regions[0])), [len(r[1]) for r in regions[0]])
        both = self._positive(rows, self.numbers(offsets), frame, Choices(), 0.0)
        pairs = zip(*both, strict=True)
        return [(frozenset(owner[shown]), frozenset(owner[also])) for shown, also in pairs]

    def _by_multipliers(self, nodes: list[form.Node]) -> list[Excluded]:
        """By rows of multipliers, with hidden bounds of one frame and where units are split."""
        at = np.array([node.row for node in nodes])
        frame = self._frame(int(self.arrays["row_frame"][at[0]]), nodes)
        regions = self.arrays["node_region"][at - self.bounds].tolist()
        weights = self.arrays["node_weights"][at - self.bounds].astype(np.float64)[:, None, :]
        rows = np.zeros((len(nodes), weights.shape[2], self.network.widths[-1]))
        offsets = np.zeros((*rows.shape[:2], 1))
        signs, splits = np.zeros((2, len(nodes), self.ends[-1]))
        for place, (node, region) in enumerate(zip(nodes, regions, strict=True)):
            needed(region >= 0, "a region has a negative number")
            given = self.parts[node.part].regions[region]
            rows[place, : len(given[0])], offsets[place, : len(given[0]), 0] = given
            for order, (unit, sign) in enumerate(node.units, start=node.taken):
                signs[place, unit], splits[place, unit] = (
                    sign,
                    sign * self.arrays["multipliers"][order],
                )
        lost = np.abs(rows) @ floats(frame.sizes[-1][-1])[..., None] + np.abs(offsets)
        lost = (weights @ lost)[..., 0] * gamma(weights.shape[2])
        row, offset = (self.numbers(weights) @ self.numbers(each) for each in (rows, offsets))
        frame = where_split(frame, self._by_layer(signs))
        choices = replace(self._choices(at), splits=self._by_layer(splits))
        both = self._positive(row, offset[..., 0], frame, choices, lost)
        each = zip(regions, *both, strict=True)
        return [
            (frozenset([r] * int(shown[0])), frozenset([r] * int(also[0])))
            for r, shown, also in each
        ]

    def _frame(self, number: int, nodes: list[form.Node]) -> Frame:
        """CROWN's bounds on a box, tightened by the frame's own rows, layer after layer."""
        of_part = self.arrays["frame_part"][number]
        needed(all(node.part == of_part for node in nodes), "a frame is of another box")
        if number in self.frames:
            return self.frames[number]
        box = [
            self.numbers(getattr(self.parts[of_part], side)[None]) for side in ("lower", "upper")
        ]
        frame = hidden_bounds(self.network, box[0], box[1], by_crown=True)
        targets, tight = self.arrays["bound_unit"], replace(frame, hidden=[])
        units = np.where(targets >= 0, targets, -1 - targets)
        units = np.where(self.arrays["row_frame"][: self.bounds] == number, units, -1)
        for (start, end), (low, high) in zip(pairwise(self.ends), frame.hidden, strict=True):
            mine, most = (
                np.flatnonzero((units >= start) & (units < end)),
                self._most(form.MULTIPLIERS),
            )
            for first in range(0, len(mine), most):
                some = mine[first : first + most]
                at, is_lower = units[some] - start, targets[some] >= 0
                rows = np.zeros((len(some), 1, end - start))
                rows[np.arange(len(some)), 0, at] = np.where(is_lower, 1, -1)
                found = lower_bounds(self.network, rows, tight, self._choices(some))[:, 0]
                one, other = at[is_lower], at[~is_lower]
                low[0, one] = np.maximum(low[0, one], found[is_lower])
                high[0, other] = np.minimum(high[0, other], -found[~is_lower])
            tight.hidden.append((low, high))
        self.frames = {number: tight}
        return tight

    def _choices(self, rows: Any) -> Choices:
        """The tables' rows as multipliers."""
        slopes = self._by_layer(self.tables["slopes"][rows] / form.SLOPE_ONE)
        has_planes = self.arrays["frame_planes"][self.arrays["row_frame"][rows[0]]]
        names = ("levels", "tilts") if has_planes else ()
        planes = {
            name: (self.tables[name][rows] - form.PLANE_ZERO) / form.PLANE_ONE for name in names
        }
        return Choices(slopes, **planes)

    def _by_layer(self, values: Any) -> list[Any]:
        return [values[:, start:end] for start, end in pairwise(self.ends)]

    def _positive(
        self, rows: Any, offsets: Any, frame: Frame, choices: Choices, lost: Any
    ) -> tuple[Any, Any]:
        """Whether `rows @ y + offsets`, (passes, rows), are above 0; and for the float32 model."""
        bounds = lower_bounds(self.network, rows, frame, choices) + offsets
        error = float32_error(self.network, frame, rows)
        if isinstance(bounds, Exact):
            return bounds > 0, bounds.floats() > error
        bounds = bounds - lost - (np.abs(bounds) + np.abs(offsets)) * 2.0**-51  # of this sum
        return bounds > 0, bounds > error


def where_split(frame: Frame, signs: list[Any]) -> Frame:
    """Where z >= 0 of units with sign 1, z <= 0 of those with -1; (passes, units) of each layer."""
    hidden = [
        (
            np.maximum(low, 0) * (sign > 0) + low * (sign <= 0),
            np.minimum(high, 0) * (sign < 0) + high * (sign >= 0),
        )
        for (low, high), sign in zip(frame.hidden, signs, strict=True)
    ]
    return replace(frame, hidden=hidden)
