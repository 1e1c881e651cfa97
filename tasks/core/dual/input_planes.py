"""Upper bounds on the first layer's ReLUs by planes over the inputs instead of chords.

A chord bounds relu(w x + b) by a line in z = w x + b: every weight has the same slope. Over a box
each weight may have its own: for every s in [0, 1]^n

    relu(w x + b) <= sum_i s_i w_i x_i + t,
    t = max over the box of relu(w x + b) - sum_i s_i w_i x_i
      = max(max_x -sum_i s_i w_i x_i, b + max_x sum_i (1 - s_i) w_i x_i),

since relu(z) is the greater of 0 and z. These planes are all there is to know of one unit: with
z <= relu(z) and 0 they give the convex hull of its graph over the box (Anderson et al. 2020,
"Strong mixed-integer programming formulations for trained neural networks"; used
for dual bounds by De Palma et al. 2021, "Scaling the convex barrier with active sets"). Equal
slopes u / (u - l) give the chord.

A unit's best slopes are 1 where w_i x_i is below a threshold that its levels set and 0 above it
(Anderson et al., the separation rule), x being the relaxation's minimiser. So the slopes are sought
as `s_ji = clip(level_j - sign(w_ji) tilt_i, 0, 1)`, by dual averaging (Nesterov 2009): a subproblem
keeps m + n numbers instead of m n.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import IntArray
from tasks.core.networks.matrices import Matrix
from tasks.core.networks.network import Affine
from tasks.core.properties.box import Box

# As in `box_kernel`: sums may be reordered and products fused, which the rounding scales allow.
compiled = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})

# Of a layer, within its units' spans: beyond, passes cost more than they gain.
MOST_WEIGHTS_PASSED = 2**20
LONGEST_GAP = 8  # a new span costs as much as so many weights
LONG = 32  # weights of a span on the average, from which its loop is worth vector instructions


@dataclass(frozen=True, eq=False)
class Planes:
    """The planes in use, weighted and summed for each subproblem.

    `rows`, (inputs, batch), and `constants`, (batch,): the sum of `coefficient * plane` over the
    units is `rows.T @ x + constants`. `tops`, (units, batch): each plane's value at the box's
    centre; `sides`: 1 where the maximum that gives it lies at relu(z) = z, -1 at 0, and 0 where
    the plane is not used.
    """

    rows: NDArray[Any]
    constants: NDArray[Any]
    tops: NDArray[Any]
    sides: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Spans:
    """Each unit's weights without the zeros around them, in spans: a convolution's window by lines.

    Attributes:
        weights: of all spans, one after the other.
        starts: where each span starts in `weights`, and their end, (spans + 1,).
        inputs: each span's first input, (spans,).
        ends: where each unit's spans start, and their end, (units + 1,).
    """

    weights: NDArray[Any]
    starts: IntArray
    inputs: IntArray
    ends: IntArray

    @classmethod
    def of(cls, matrix: Matrix) -> Spans:
        """The spans of W, apart where more than `LONGEST_GAP` weights are 0."""
        entries = matrix.sparse()
        entries.eliminate_zeros()
        entries.sort_indices()
        columns = entries.indices.astype(np.int64)
        units = np.repeat(np.arange(entries.shape[0]), np.diff(entries.indptr))
        is_first = np.ones(len(columns), dtype=bool)
        is_first[1:] = (np.diff(columns) > LONGEST_GAP) | (np.diff(units) > 0)
        first = np.flatnonzero(is_first)
        last = np.append(first[1:], len(columns)) - 1
        lengths = columns[last] - columns[first] + 1 if len(columns) else first
        starts = np.cumsum([0, *lengths])
        weights, span = np.zeros(starts[-1]), np.cumsum(is_first) - 1
        weights[starts[span] + columns - columns[first][span]] = entries.data
        ends = np.searchsorted(units[first], np.arange(entries.shape[0] + 1))
        return cls(weights, starts, columns[first], ends.astype(np.int64))

    @property
    def pay(self) -> bool:
        """Whether the layer is small enough for planes."""
        return len(self.weights) <= MOST_WEIGHTS_PASSED

    @property
    def are_long(self) -> bool:
        """Whether loops run along a unit's inputs; else along the batch."""
        return len(self.weights) >= LONG * len(self.inputs)


class InputPlanes:
    """The planes of an affine layer's units over a box, or one for each subproblem, in `dtype`."""

    def __init__(self, layer: Affine, spans: Spans, box: Box, dtype: type[np.floating]) -> None:
        """`spans` are those of the layer's matrix."""
        center, radius = (box.upper + box.lower) / 2, (box.upper - box.lower) / 2
        self.weights = spans.weights.astype(dtype, copy=False)
        self.spans = (spans.starts, spans.inputs, spans.ends)
        self.are_long = spans.are_long
        self.center, self.radius = center.T.astype(dtype), radius.T.astype(dtype)
        peaks = layer(center) + layer.absolute.matrix.forward(radius)
        self.peaks = peaks.T.astype(dtype)

    def at(self, columns: IntArray | slice) -> InputPlanes:
        """Of some subproblems, where each has its own box."""
        if self.center.shape[1] == 1:
            return self
        some = copy(self)
        some.center, some.radius = self.center[:, columns], self.radius[:, columns]
        some.peaks = self.peaks[:, columns]
        return some

    def weighted(
        self,
        coefficients: NDArray[Any],
        levels: NDArray[Any],
        tilts: NDArray[Any],
    ) -> Planes:
        """The planes times `coefficients`, (units, batch), none positive; 0 leaves a unit out.

        `levels` are (units, batch), `tilts` (inputs, batch).
        """
        results = [
            np.zeros(shape, dtype=self.weights.dtype)
            for shape in (tilts.shape, coefficients.shape, coefficients.shape)
        ]
        given = [self.radius, self.peaks, coefficients, levels, tilts]
        if self.are_long:
            flipped = [np.zeros(each.T.shape, dtype=each.dtype) for each in results]
            _weigh_along_inputs(self.weights, *self.spans, *_flipped(given), *flipped)
            results = _flipped(flipped)
        else:
            _weigh_along_batch(self.weights, *self.spans, *self._for_batch(given), *results)
        rows, tops, sides = results
        constants = (coefficients * tops).sum(axis=0) - (rows * self.center).sum(axis=0)
        return Planes(rows, constants, tops, sides)

    def values(
        self,
        planes: Planes,
        levels: NDArray[Any],
        tilts: NDArray[Any],
        points: NDArray[Any],
    ) -> NDArray[Any]:
        """Each used plane at its subproblem's point (inputs, batch): (units, batch), else 0."""
        offsets = points - self.center
        given = [planes.sides, levels, tilts, offsets]
        if self.are_long:
            result = np.ascontiguousarray(planes.tops.T)
            _evaluate_along_inputs(self.weights, *self.spans, *_flipped(given), result)
            return result.T
        result = planes.tops.copy()
        _evaluate_along_batch(self.weights, *self.spans, *self._for_batch(given), result)
        return result

    def _for_batch(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Contiguous, and with a column for each subproblem."""
        count = max(each.shape[1] for each in arrays)
        whole = [each if each.shape[1] == count else np.repeat(each, count, 1) for each in arrays]
        return [np.ascontiguousarray(each) for each in whole]


def _flipped(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    return [np.ascontiguousarray(each.T) for each in arrays]


@compiled
def _slope(weight, level, tilt):  # type: ignore[no-untyped-def]
    """In [0, 1]."""
    return min(max(level - (tilt if weight >= 0 else -tilt), type(level)(0)), type(level)(1))


# Inner loops run over slices from 0: only then does the compiler use vector instructions.


@compiled
def _weigh_along_inputs(  # type: ignore[no-untyped-def]
    weights, starts, inputs, ends, radius, peaks, coefficients, levels, tilts, rows, tops, sides
):
    for problem in range(len(coefficients)):
        sizes = radius[problem % len(radius)]
        for unit in range(len(ends) - 1):
            coefficient, level = coefficients[problem, unit], levels[problem, unit]
            if coefficient == 0:
                continue
            reach = type(coefficient)(0)
            for span in range(ends[unit], ends[unit + 1]):
                part = weights[starts[span] : starts[span + 1]]
                read = slice(inputs[span], inputs[span] + len(part))
                size, tilt, row = sizes[read], tilts[problem, read], rows[problem, read]
                for place in range(len(part)):
                    product = part[place] * _slope(part[place], level, tilt[place])
                    row[place] += coefficient * product
                    reach += abs(product) * size[place]
            rising = peaks[problem % len(peaks), unit] - reach
            off = reach >= rising  # not `max`, which may lose a NaN: such a top proves nothing
            sides[problem, unit] = -1 if off else 1
            tops[problem, unit] = reach if off else rising


@compiled
def _weigh_along_batch(  # type: ignore[no-untyped-def]
    weights, starts, inputs, ends, radius, peaks, coefficients, levels, tilts, rows, tops, sides
):
    reach = np.zeros_like(peaks[0])
    for unit in range(len(ends) - 1):
        coefficient, level = coefficients[unit], levels[unit]
        if not _any(coefficient):
            continue
        reach[:] = 0
        for span in range(ends[unit], ends[unit + 1]):
            for place in range(starts[span], starts[span + 1]):
                read = inputs[span] + place - starts[span]
                weight, size, tilt, row = weights[place], radius[read], tilts[read], rows[read]
                for problem in range(len(reach)):
                    product = weight * _slope(weight, level[problem], tilt[problem])
                    row[problem] += coefficient[problem] * product
                    reach[problem] += abs(product) * size[problem]
        peak, top, side = peaks[unit], tops[unit], sides[unit]
        for problem in range(len(reach)):
            if coefficient[problem] != 0:
                rising = peak[problem] - reach[problem]
                off = reach[problem] >= rising  # see above
                side[problem] = -1 if off else 1
                top[problem] = reach[problem] if off else rising


@compiled
def _evaluate_along_inputs(weights, starts, inputs, ends, used, levels, tilts, offsets, result):  # type: ignore[no-untyped-def]
    for problem in range(len(used)):
        for unit in range(len(ends) - 1):
            if used[problem, unit] == 0:
                continue
            level, total = levels[problem, unit], result[problem, unit]
            for span in range(ends[unit], ends[unit + 1]):
                part = weights[starts[span] : starts[span + 1]]
                read = slice(inputs[span], inputs[span] + len(part))
                tilt, offset = tilts[problem, read], offsets[problem, read]
                for place in range(len(part)):
                    total += part[place] * _slope(part[place], level, tilt[place]) * offset[place]
            result[problem, unit] = total


@compiled
def _evaluate_along_batch(weights, starts, inputs, ends, used, levels, tilts, offsets, result):  # type: ignore[no-untyped-def]
    for unit in range(len(ends) - 1):
        if not _any(used[unit]):
            continue
        level, total = levels[unit], result[unit]
        for span in range(ends[unit], ends[unit + 1]):
            for place in range(starts[span], starts[span + 1]):
                read = inputs[span] + place - starts[span]
                weight, tilt, offset = weights[place], tilts[read], offsets[read]
                for problem in range(len(total)):
                    slope = _slope(weight, level[problem], tilt[problem])
                    total[problem] += weight * slope * offset[problem]
        for problem in range(len(total)):
            total[problem] = total[problem] if used[unit, problem] != 0 else 0


@compiled
def _any(values):  # type: ignore[no-untyped-def]
    """Whether any is not 0, as NaN is not."""
    found = False
    for value in values:
        found |= value != 0
    return found
