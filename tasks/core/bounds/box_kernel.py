"""Backward linear bounds of one small box after another, compiled: the kernel of input splitting.

The same relaxation and rounding as `linear.backward_bounds` (the bound of DeepPoly, Singh et al.
2019), for networks with few inputs, where very many boxes differ in little: a unit whose phase is
known in a box keeps it in every part of the box, so only the others are bounded again. Compiled by
Numba on first use and cached beside this file.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import BoolArray, FloatArray, IntArray

# Sums may be reordered and products fused: the rounding scales hold for any order. Nothing else of
# "fast math" is allowed: NaN and infinity must stay what they are, so that they prove nothing.
compiled = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})

# As in `rounding`: numbers from other files would go stale in Numba's cache, which knows this one.
UNIT_ROUNDOFF = 2.0**-53
HUGE = 1e150
UNDERFLOW = 2.0**-500
DIRECT_SHARE = 0.05  # of an input's own slope in its score, beside what the relaxations lose by it


class _Lines(NamedTuple):
    """The network with the activations' lines in one box, each (layers, width)."""

    weights: FloatArray
    biases: FloatArray
    widths: IntArray
    affine_scales: FloatArray
    relu_scales: FloatArray
    input_scales: FloatArray
    lower_slope: FloatArray
    upper_slope: FloatArray
    intercept: FloatArray


@compiled
def bound_boxes(
    weights: FloatArray,
    biases: FloatArray,
    widths: IntArray,
    affine_scales: FloatArray,
    relu_scales: FloatArray,
    input_scales: FloatArray,
    root_lower: FloatArray,
    root_upper: FloatArray,
    rows: FloatArray,
    offsets: FloatArray,
    regions: IntArray,
    goal: float,
    box_lower: FloatArray,
    box_upper: FloatArray,
    phases: NDArray[np.int8],
    alive: BoolArray,
    out_lower: FloatArray,
    out_closed: FloatArray,
    out_split: IntArray,
    out_point: FloatArray,
) -> None:
    """Bounds every row of the open regions over every box; sound, see the module.

    Args:
        weights, biases, widths: (layers, w, w), (layers, w) and (layers + 1,), padded.
        affine_scales, relu_scales, input_scales: `rounding.RoundingScales` of a box around all.
        root_lower, root_upper: (layers - 1, w), bounds on the units over a box around all, which
            the scales were made with.
        rows, offsets, regions: (m, outputs), (m,) and the region of each row (m,), ascending.
        goal: a region is closed where the bound of a row is above it; at least 0.
        box_lower, box_upper: (boxes, inputs).
        phases: (boxes, layers - 1, w) int8: 1 active, -1 inactive, 0 unknown; updated.
        alive: (boxes, num_regions): which regions are open; updated.
        out_lower: (boxes,): the least over open regions of the greatest row's bound.
        out_closed: (boxes,): the same over the regions closed here.
        out_split: (boxes,): the input to split.
        out_point: (boxes, inputs): where the worst region's best row is least.
    """
    hidden, width, inputs = weights.shape[0] - 1, weights.shape[1], box_lower.shape[1]
    shape = (max(hidden, 1), width)
    lines = _Lines(
        weights,
        biases,
        widths,
        affine_scales,
        relu_scales,
        input_scales,
        np.zeros(shape),
        np.zeros(shape),
        np.zeros(shape),
    )
    span = np.ones(shape)
    sensitivity = np.zeros((max(hidden, 1), width, inputs))
    best, found = np.zeros(shape), np.zeros(shape)
    slopes = np.zeros(inputs)
    one, two, next_one, next_two = (
        np.zeros(width),
        np.zeros(width),
        np.zeros(width),
        np.zeros(width),
    )
    for box in range(len(box_lower)):
        center = (box_upper[box] + box_lower[box]) / 2
        radius = (box_upper[box] - box_lower[box]) / 2
        for layer in range(hidden):
            for unit in range(widths[layer + 1]):
                if phases[box, layer, unit] == 0:
                    low, high = _unit_bounds(
                        lines,
                        layer,
                        unit,
                        center,
                        radius,
                        one,
                        two,
                        next_one,
                        next_two,
                        sensitivity[layer, unit],
                    )
                    low = max(low, root_lower[layer, unit])
                    high = min(high, root_upper[layer, unit])
                    if low >= 0:
                        phases[box, layer, unit] = 1
                    elif high <= 0:
                        phases[box, layer, unit] = -1
                    else:
                        chord = high / (high - low)
                        lines.lower_slope[layer, unit] = 1.0 if high > -low else 0.0
                        lines.upper_slope[layer, unit] = chord
                        lines.intercept[layer, unit] = -chord * low
                        span[layer, unit] = high - low
                if phases[box, layer, unit] != 0:
                    slope = 1.0 if phases[box, layer, unit] > 0 else 0.0
                    lines.lower_slope[layer, unit] = slope
                    lines.upper_slope[layer, unit] = slope
                    lines.intercept[layer, unit] = 0.0
        worst, closed = np.inf, np.inf
        row = 0
        while row < len(rows):
            region, greatest = regions[row], -np.inf
            while row < len(rows) and regions[row] == region:
                if alive[box, region]:
                    one[:] = 0.0
                    one[: rows.shape[1]] = rows[row]
                    bound = _row_bound(lines, center, radius, one, next_one, found) + offsets[row]
                    bound -= abs(bound) * 4 * UNIT_ROUNDOFF
                    if not bound <= greatest:
                        greatest = bound
                        if not greatest >= worst:
                            best[:] = found
                            slopes[:] = one[:inputs]
                row += 1
            if alive[box, region]:
                if greatest > goal:
                    alive[box, region] = False
                    closed = min(closed, greatest)
                elif not greatest >= worst:
                    worst = greatest
        out_lower[box], out_closed[box] = worst, closed
        most = -1.0
        for index in range(inputs):
            out_point[box, index] = center[index] - np.sign(slopes[index]) * radius[index]
            score = DIRECT_SHARE * abs(slopes[index])
            for layer in range(hidden):
                for unit in range(widths[layer + 1]):
                    if phases[box, layer, unit] == 0:
                        loss = abs(best[layer, unit]) * lines.intercept[layer, unit]
                        score += loss * abs(sensitivity[layer, unit, index]) / span[layer, unit]
            if score * radius[index] > most:
                out_split[box], most = index, score * radius[index]


@compiled
def _unit_bounds(
    lines: _Lines,
    layer: int,
    unit: int,
    center: FloatArray,
    radius: FloatArray,
    one: FloatArray,
    two: FloatArray,
    next_one: FloatArray,
    next_two: FloatArray,
    sensitivity: FloatArray,
) -> tuple[float, float]:
    """Lower and upper bound of one unit: two backward passes that read each weight once."""
    low, high = 0.0, 0.0
    one[unit], two[unit] = 1.0, -1.0
    begin, end = unit, unit + 1
    for index in range(layer, -1, -1):
        before = lines.widths[index]
        next_one[:before] = 0.0
        next_two[:before] = 0.0
        for i in range(begin, end):
            a, c = one[i], two[i]
            if a == 0.0 and c == 0.0:
                continue
            bias, scale = lines.biases[index, i], lines.affine_scales[index, i]
            low += a * bias - abs(a) * scale
            high += c * bias - abs(c) * scale
            weights = lines.weights[index, i]
            for j in range(before):
                next_one[j] += a * weights[j]
                next_two[j] += c * weights[j]
        if index == 0:
            break
        begin, end = 0, before
        for j in range(before):
            a, c, scale = next_one[j], next_two[j], lines.relu_scales[index - 1, j]
            intercept = lines.intercept[index - 1, j]
            low += min(a, 0.0) * intercept - abs(a) * scale
            high += min(c, 0.0) * intercept - abs(c) * scale
            above, below = lines.lower_slope[index - 1, j], lines.upper_slope[index - 1, j]
            one[j] = a * above if a > 0 else a * below
            two[j] = c * above if c > 0 else c * below
    for j in range(len(center)):
        a, c, scale = next_one[j], next_two[j], radius[j] + lines.input_scales[j]
        low += a * center[j] - abs(a) * scale
        high += c * center[j] - abs(c) * scale
        sensitivity[j] = a
    return _held(low), -_held(high)


@compiled
def _row_bound(
    lines: _Lines,
    center: FloatArray,
    radius: FloatArray,
    one: FloatArray,
    next_one: FloatArray,
    coefficients: FloatArray,
) -> float:
    """Lower bound of `one @ outputs`; leaves coefficients: activations', and in `one` inputs'."""
    bound = 0.0
    for index in range(lines.weights.shape[0] - 1, -1, -1):
        before = lines.widths[index]
        next_one[:before] = 0.0
        for i in range(lines.widths[index + 1]):
            a = one[i]
            if a == 0.0:
                continue
            bound += a * lines.biases[index, i] - abs(a) * lines.affine_scales[index, i]
            weights = lines.weights[index, i]
            for j in range(before):
                next_one[j] += a * weights[j]
        if index == 0:
            break
        for j in range(before):
            a = next_one[j]
            coefficients[index - 1, j] = a
            bound += min(a, 0.0) * lines.intercept[index - 1, j]
            bound -= abs(a) * lines.relu_scales[index - 1, j]
            slope = lines.lower_slope if a > 0 else lines.upper_slope
            one[j] = a * slope[index - 1, j]
    for j in range(len(center)):
        a = next_one[j]
        bound += a * center[j] - abs(a) * (radius[j] + lines.input_scales[j])
        one[j] = a
    return _held(bound)


@compiled
def _held(bound: float) -> float:
    """As in `linear`: a lower bound as far as it proves something."""
    return bound - UNDERFLOW if abs(bound) < HUGE else -np.inf
