"""Inputs of a second network as changes of the first one's, where a property bounds the changes.

That an input rises, or moves by at most d, is a relation between two inputs, which bounds over
their boxes do not see. With the change in the place of the second input it is a bound of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import sparse

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.networks.side_by_side import selecting
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion


@dataclass(frozen=True, eq=False)
class Form:
    """A question about several networks over the points of one box.

    Attributes:
        prop: where none of its regions is reached, none of the question's is.
        inputs: gives for a point the inputs that the networks have together, (inputs, points);
            every column has at most a single 1 in the rows of one network.
        maps: the rows of each network's inputs.
        boxes: of each network's inputs. Where these lie outside, a row of every region is positive.
    """

    prop: Property
    inputs: sparse.csr_array
    maps: tuple[sparse.csr_array, ...]
    boxes: tuple[Box, ...]

    def joined(self, points: FloatArray) -> FloatArray:
        """The inputs at points of shape (n, points)."""
        found: FloatArray = self.inputs.dot(points.T).T
        return found


def plain(columns: Sequence[IntArray], prop: Property) -> Form:
    """The points are the inputs themselves."""
    box = prop.unsafe[0].box
    return _form(columns, prop, selecting(np.arange(box.lower.shape[1]), box.lower.shape[1]), box)


def by_changes(columns: Sequence[IntArray], prop: Property, num_outputs: int) -> Form | None:
    """Of a property whose regions share one box; None where it bounds no change.

    Its rows are of the networks' `num_outputs` outputs together and, behind them, of the inputs, or
    of the outputs alone, which bound no change.

    A row y - x + c <= 0 or x - y + c <= 0 that all regions have, x an input of the first of two
    networks alone and y of the second, bounds e = y - x. The points have e in the place of y, and
    every row with y has it as x + e. Bounds of y itself become rows where the box does not imply
    them. A pair is left as it was where float64 does not hold the sum of two weights.
    """
    if len(columns) != 2 or prop.domain is not None:
        return None
    before = prop.unsafe[0].box
    size = before.lower.shape[1]
    if prop.unsafe[0].rows.shape[1] != num_outputs + size:
        return None
    common = set.intersection(*map(_keys, prop.unsafe))
    pairs = [pair for pair in _pairs(columns, prop, common) if pair.is_exact_in(prop)]
    if not pairs:
        return None
    change = sparse.csr_array(
        (np.ones(len(pairs)), ([pair.y for pair in pairs], [pair.x for pair in pairs])),
        shape=(size, size),
    )
    inputs = sparse.csr_array(selecting(np.arange(size), size) + change)
    lower, upper = before.lower.copy(), before.upper.copy()
    for pair in pairs:
        lower[0, pair.y], upper[0, pair.y] = pair.lower, pair.upper
    own = [bound for pair in pairs for bound in pair.bounds_left(before)]
    bounded = {frozenset((pair.x, pair.y)) for pair in pairs}
    regions = []
    for region in prop.unsafe:
        outputs = region.rows.shape[1] - size
        kept = [
            not (key in common and _apart(row, outputs) in bounded)
            for key, row in zip(_listed(region), region.rows, strict=True)
        ]
        rows = np.zeros((sum(kept) + len(own), outputs + size))
        rows[: sum(kept)] = region.rows[kept]
        for row, (place, sign, _) in zip(rows[sum(kept) :], own, strict=True):
            row[outputs + place] = sign
        rows[:, outputs:] = inputs.T.dot(rows[:, outputs:].T).T
        offsets = np.append(region.offsets[kept], [offset for *_, offset in own])
        if not len(rows):  # nothing but changes is asked
            rows, offsets = np.zeros((1, outputs + size)), np.array([-1.0])
        regions.append(UnsafeRegion(Box(lower, upper), rows, offsets))
    return _form(columns, Property(tuple(regions)), inputs, before)


def _form(columns: Sequence[IntArray], prop: Property, inputs: sparse.csr_array, box: Box) -> Form:
    maps = tuple(sparse.csr_array(inputs[places]) for places in columns)
    boxes = tuple(Box(box.lower[:, places], box.upper[:, places]) for places in columns)
    return Form(prop, inputs, maps, boxes)


@dataclass(frozen=True)
class _Pair:
    """Places of an input x and of y, and what bounds y - x."""

    x: int
    y: int
    lower: float
    upper: float

    def is_exact_in(self, prop: Property) -> bool:
        """Whether the weights of x and y can be added without rounding, in all rows."""
        for region in prop.unsafe:
            start = region.rows.shape[1] - region.box.lower.shape[1]
            a, b = region.rows[:, start + self.x], region.rows[:, start + self.y]
            both = zip(a.tolist(), b.tolist(), (a + b).tolist(), strict=True)
            if not all(Fraction(s) == Fraction(p) + Fraction(q) for p, q, s in both if q):
                return False
        return True

    def bounds_left(self, box: Box) -> list[tuple[int, float, float]]:
        """Of y: place, weight and offset of rows that bounds of x and y - x do not imply."""
        found = []
        low, high = (Fraction(float(side[0, self.x])) for side in (box.lower, box.upper))
        if high + Fraction(self.upper) > Fraction(float(box.upper[0, self.y])):
            found.append((self.y, 1.0, -float(box.upper[0, self.y])))
        if low + Fraction(self.lower) < Fraction(float(box.lower[0, self.y])):
            found.append((self.y, -1.0, float(box.lower[0, self.y])))
        return found


def _pairs(
    columns: Sequence[IntArray], prop: Property, common: set[tuple[bytes, float]]
) -> list[_Pair]:
    """Each input in one pair at most; bounds of both, rounded outwards, close what is open."""
    region = prop.unsafe[0]
    outputs = region.rows.shape[1] - region.box.lower.shape[1]
    firsts, seconds = (set(places.tolist()) for places in columns)
    found: dict[tuple[int, int], tuple[float, float]] = {}
    for key, row, offset in zip(_listed(region), region.rows, region.offsets, strict=True):
        both = _apart(row, outputs) if key in common else frozenset()
        xs, ys = both & (firsts - seconds), both & (seconds - firsts)
        if not (xs and ys):
            continue
        x, y = min(xs), min(ys)
        lower, upper = found.get((x, y), (-np.inf, np.inf))
        if row[outputs + y] > 0:
            found[x, y] = lower, min(upper, 0.0 - float(offset))
        else:
            found[x, y] = max(lower, float(offset)), upper
    pairs, used = list[_Pair](), set[int]()
    for (x, y), (lower, upper) in found.items():
        least = np.nextafter(region.box.lower[0, y] - region.box.upper[0, x], -np.inf)
        most = np.nextafter(region.box.upper[0, y] - region.box.lower[0, x], np.inf)
        pair = _Pair(x, y, max(lower, float(least)), min(upper, float(most)))
        if pair.lower <= pair.upper and not {x, y} & used:
            pairs.append(pair)
            used |= {x, y}
    return pairs


def _keys(region: UnsafeRegion) -> set[tuple[bytes, float]]:
    return set(_listed(region))


def _listed(region: UnsafeRegion) -> list[tuple[bytes, float]]:
    """Rows with their offsets, for comparison."""
    offsets = region.offsets.tolist()
    return [(row.tobytes(), offset) for row, offset in zip(region.rows, offsets, strict=True)]


def _apart(row: FloatArray, outputs: int) -> frozenset[int]:
    """The two inputs whose difference, and nothing else, a row bounds; none if it does not."""
    places = np.flatnonzero(row)
    if len(places) != 2 or places[0] < outputs or sorted(row[places].tolist()) != [-1.0, 1.0]:
        return frozenset()
    return frozenset((places - outputs).tolist())
