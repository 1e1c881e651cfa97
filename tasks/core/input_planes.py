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

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from tasks.core.network import Affine
from tasks.core.specification import FloatArray, IntArray, LinfBall

# As in `box_kernel`: sums may be reordered and products fused, which the rounding scales allow.
compiled = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})

MAX_WEIGHTS = 2**20  # of a layer, within its units' spans: beyond, passes cost more than they gain


@dataclass(frozen=True, eq=False)
class Planes:
    """The planes in use, weighted and summed for each subproblem.

    `rows`, (batch, inputs), and `constants`, (batch,): the sum of `coefficient * plane` over the
    units is `rows @ x + constants`. `tops`, (batch, units): each plane's value at the box's
    centre; `sides`: 1 where the maximum that gives it lies at relu(z) = z, -1 at 0.
    """

    rows: NDArray[Any]
    constants: NDArray[Any]
    tops: NDArray[Any]
    sides: NDArray[Any]


class InputPlanes:
    """The planes of one affine layer over one box, in the precision of `dtype`.

    A unit's weights are read from its first to its last that is not 0: the span of a convolution's
    window.
    """

    def __init__(self, layer: Affine, box: LinfBall, dtype: type[np.floating]) -> None:
        center, radius = (box.upper[0] + box.lower[0]) / 2, (box.upper[0] - box.lower[0]) / 2
        self.weights = layer.weight.astype(dtype, copy=False)
        self.spans = _spans(layer.weight)
        self.center, self.radius = center.astype(dtype), radius.astype(dtype)
        self.peaks = (layer(center) + np.abs(layer.weight) @ radius).astype(dtype)

    @staticmethod
    def pay(layer: Affine) -> bool:
        """Whether the layer is small enough for planes."""
        return int(np.diff(_spans(layer.weight), axis=1).sum()) <= MAX_WEIGHTS

    def weighted(
        self,
        coefficients: NDArray[Any],
        levels: NDArray[Any],
        tilts: NDArray[Any],
    ) -> Planes:
        """The planes times `coefficients`, (batch, units), none positive; 0 leaves a unit out."""
        rows = np.zeros(tilts.shape, dtype=self.weights.dtype)
        tops, sides = (np.zeros(coefficients.shape, dtype=rows.dtype) for _ in range(2))
        _weigh(
            self.weights,
            self.spans,
            self.radius,
            self.peaks,
            coefficients,
            levels,
            tilts,
            rows,
            tops,
            sides,
        )
        constants = (coefficients * tops).sum(axis=1) - rows @ self.center
        return Planes(rows, constants, tops, sides)

    def values(
        self,
        planes: Planes,
        used: NDArray[np.bool_],
        levels: NDArray[Any],
        tilts: NDArray[Any],
        points: NDArray[Any],
    ) -> NDArray[Any]:
        """Each used plane at its subproblem's point (batch, inputs): (batch, units), else 0."""
        result = planes.tops.copy()
        offsets = points - self.center
        _evaluate(self.weights, self.spans, used, levels, tilts, offsets, result)
        return result


def _spans(weights: FloatArray) -> IntArray:
    """From the first to behind the last weight that is not 0, (units, 2)."""
    used = weights != 0
    ends = np.stack([used.argmax(axis=1), weights.shape[1] - used[:, ::-1].argmax(axis=1)], axis=1)
    return np.where(used.any(axis=1)[:, None], ends, 0)


@compiled
def _slope(weight, level, tilt):  # type: ignore[no-untyped-def]
    """In [0, 1]."""
    return min(max(level - (tilt if weight >= 0 else -tilt), type(level)(0)), type(level)(1))


# Inner loops run over slices from 0: only then does the compiler use vector instructions.


@compiled
def _weigh(weights, spans, radius, peaks, coefficients, levels, tilts, rows, tops, sides):  # type: ignore[no-untyped-def]
    for problem in range(len(coefficients)):
        for unit in range(len(weights)):
            coefficient = coefficients[problem, unit]
            if coefficient == 0:
                continue
            span = slice(spans[unit, 0], spans[unit, 1])
            part, size, tilt = weights[unit, span], radius[span], tilts[problem, span]
            row, level, reach = rows[problem, span], levels[problem, unit], type(coefficient)(0)
            for place in range(len(part)):
                product = part[place] * _slope(part[place], level, tilt[place])
                row[place] += coefficient * product
                reach += abs(product) * size[place]
            rising = peaks[unit] - reach
            off = reach >= rising  # not `max`, which may lose a NaN: such a top proves nothing
            sides[problem, unit] = -1 if off else 1
            tops[problem, unit] = reach if off else rising


@compiled
def _evaluate(weights, spans, used, levels, tilts, offsets, result):  # type: ignore[no-untyped-def]
    for problem in range(len(used)):
        for unit in range(len(weights)):
            if not used[problem, unit]:
                continue
            span = slice(spans[unit, 0], spans[unit, 1])
            part, tilt, offset = weights[unit, span], tilts[problem, span], offsets[problem, span]
            level, total = levels[problem, unit], result[problem, unit]
            for place in range(len(part)):
                total += part[place] * _slope(part[place], level, tilt[place]) * offset[place]
            result[problem, unit] = total
