"""Backward linear bounds of one small box after another, compiled: the kernel of input splitting.

The same relaxation and rounding as `linear.backward_bounds`, the bound of DeepPoly (Singh et al.
2019, "An Abstract Domain for Certifying Neural Networks", section 4), for networks with few inputs,
where very many boxes differ in little: a unit whose phase is known in a box keeps it in every part
of the box, so only the others are bounded again. Each step below is one inequality, and one term of
rounding error as `rounding` derives it. Compiled by Numba on first use and cached beside this file.
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


class PaddedNetwork(NamedTuple):
    """A network of some layers, padded to one width w, and its rounding scales.

    Attributes:
        weights, biases, widths: (layers, w, w), (layers, w) and (layers + 1,).
        affine_scales, relu_scales, input_scales: `rounding.RoundingScales` of a box around all.
    """

    weights: FloatArray
    biases: FloatArray
    widths: IntArray
    affine_scales: FloatArray
    relu_scales: FloatArray
    input_scales: FloatArray


class PaddedBounds(NamedTuple):
    """Bounds on the units over a box around all, (layers - 1, w), which made the scales."""

    lower: FloatArray
    upper: FloatArray


class PaddedRegions(NamedTuple):
    """The regions' rows (m, outputs) and offsets (m,); those of region k start at `starts[k]`.

    `starts`, (regions + 1,), ends with m.
    """

    rows: FloatArray
    offsets: FloatArray
    starts: IntArray


class Found(NamedTuple):
    """What is found of each box.

    Attributes:
        lower: (boxes,): the least over open regions of the greatest row's bound.
        closed: (boxes,): the same over the regions closed here.
        split: (boxes,): the input to split.
        points: (boxes, inputs): where the worst region's best row is least.
    """

    lower: FloatArray
    closed: FloatArray
    split: IntArray
    points: FloatArray


class _Box(NamedTuple):
    """One box by its center and radius, (inputs,) each."""

    center: FloatArray
    radius: FloatArray


class _Lines(NamedTuple):
    """`lower_slope * z <= relu(z) <= upper_slope * z + intercept` in one box: (layers - 1, w)."""

    lower_slope: FloatArray
    upper_slope: FloatArray
    intercept: FloatArray


class _Open(NamedTuple):
    """Of the units whose phase is unknown in one box.

    `span`, (layers - 1, w): the upper bound less the lower one; `slopes`, (layers - 1, w, inputs):
    the coefficients of the inputs behind the lower one.
    """

    span: FloatArray
    slopes: FloatArray


class _Scratch(NamedTuple):
    """Coefficients of what a layer gives and reads in a pass, and in another beside it: (w,)."""

    one: FloatArray
    two: FloatArray
    next_one: FloatArray
    next_two: FloatArray


class _Trace(NamedTuple):
    """The coefficients that a row's pass met: of activations, (layers - 1, w), and of inputs."""

    activations: FloatArray
    inputs: FloatArray


@compiled
def bound_boxes(
    network: PaddedNetwork,
    root: PaddedBounds,
    regions: PaddedRegions,
    goal: float,
    box_lower: FloatArray,
    box_upper: FloatArray,
    phases: NDArray[np.int8],
    alive: BoolArray,
    found: Found,
) -> None:
    """Bounds every row of the open regions over every box, into `found`; sound, see the module.

    Args:
        goal: a region is closed where the bound of a row is above it; at least 0.
        box_lower, box_upper: (boxes, inputs).
        phases: (boxes, layers - 1, w) int8: 1 active, -1 inactive, 0 unknown; updated.
        alive: (boxes, regions): which regions are open; updated.
    """
    (hidden, width), inputs = root.lower.shape, box_lower.shape[1]
    shape = (hidden, width)
    lines = _Lines(np.zeros(shape), np.zeros(shape), np.zeros(shape))
    units = _Open(np.ones(shape), np.zeros((hidden, width, inputs)))
    scratch = _Scratch(np.zeros(width), np.zeros(width), np.zeros(width), np.zeros(width))
    worst = _Trace(np.zeros(shape), np.zeros(inputs))
    for number in range(len(box_lower)):
        lower, upper = box_lower[number], box_upper[number]
        box = _Box((upper + lower) / 2, (upper - lower) / 2)
        _relax(network, root, box, phases[number], lines, units, scratch)
        found.lower[number], found.closed[number] = _bound_regions(
            network, regions, goal, box, lines, alive[number], scratch, worst
        )
        found.points[number] = box.center - np.sign(worst.inputs) * box.radius
        found.split[number] = _input_to_split(network, box, phases[number], lines, units, worst)


@compiled
def _relax(
    network: PaddedNetwork,
    root: PaddedBounds,
    box: _Box,
    phases: NDArray[np.int8],
    lines: _Lines,
    units: _Open,
    scratch: _Scratch,
) -> None:
    """Every unit's phase and lines in the box, layer by layer, each from those before it."""
    for layer in range(len(network.weights) - 1):
        for unit in range(network.widths[layer + 1]):
            if phases[layer, unit] == 0:
                low, high = _unit_bounds(
                    network, box, lines, layer, unit, scratch, units.slopes[layer, unit]
                )
                low = max(low, root.lower[layer, unit])
                high = min(high, root.upper[layer, unit])
                if low >= 0:
                    phases[layer, unit] = 1
                elif high <= 0:
                    phases[layer, unit] = -1
                else:
                    units.span[layer, unit] = high - low
                    _set_triangle(lines, layer, unit, low, high)
            if phases[layer, unit] != 0:
                slope = 1.0 if phases[layer, unit] > 0 else 0.0
                lines.lower_slope[layer, unit] = slope  # the activation is `slope * z`
                lines.upper_slope[layer, unit] = slope
                lines.intercept[layer, unit] = 0.0


@compiled
def _set_triangle(lines: _Lines, layer: int, unit: int, low: float, high: float) -> None:
    """For low <= z <= high with low < 0 < high: `relu(z) <= high * (z - low) / (high - low)`.

    Below are the lines 0 and z: the one whose triangle with the upper line is smaller.
    """
    chord = high / (high - low)
    lines.lower_slope[layer, unit] = 1.0 if high > -low else 0.0
    lines.upper_slope[layer, unit] = chord
    lines.intercept[layer, unit] = -chord * low


@compiled
def _unit_bounds(
    network: PaddedNetwork,
    box: _Box,
    lines: _Lines,
    layer: int,
    unit: int,
    scratch: _Scratch,
    slopes: FloatArray,
) -> tuple[float, float]:
    """`low <= z <= high` for one unit: passes from z and from -z, which read each weight once."""
    low, high = 0.0, 0.0
    one, two, next_one, next_two = scratch
    one[unit], two[unit] = 1.0, -1.0
    begin, end = unit, unit + 1
    for index in range(layer, -1, -1):
        before = network.widths[index]
        next_one[:before] = 0.0
        next_two[:before] = 0.0
        for i in range(begin, end):
            a, c = one[i], two[i]
            if a == 0.0 and c == 0.0:
                continue
            bias, scale = network.biases[index, i], network.affine_scales[index, i]
            low += _least(a, bias, scale)
            high += _least(c, bias, scale)
            weights = network.weights[index, i]
            for j in range(before):
                next_one[j] += a * weights[j]
                next_two[j] += c * weights[j]
        if index == 0:
            break
        begin, end = 0, before
        for j in range(before):
            a, c, scale = next_one[j], next_two[j], network.relu_scales[index - 1, j]
            intercept = lines.intercept[index - 1, j]
            low += _line_offset(a, intercept, scale)
            high += _line_offset(c, intercept, scale)
            above, below = lines.lower_slope[index - 1, j], lines.upper_slope[index - 1, j]
            one[j] = _line_slope(a, above, below)
            two[j] = _line_slope(c, above, below)
    for j in range(len(box.center)):
        a, c, radius = next_one[j], next_two[j], box.radius[j] + network.input_scales[j]
        low += _least(a, box.center[j], radius)
        high += _least(c, box.center[j], radius)
        slopes[j] = a
    return _held(low), -_held(high)


@compiled
def _bound_regions(
    network: PaddedNetwork,
    regions: PaddedRegions,
    goal: float,
    box: _Box,
    lines: _Lines,
    alive: BoolArray,
    scratch: _Scratch,
    worst: _Trace,
) -> tuple[float, float]:
    """The least bounds over the regions that stay open, and over those that are closed here.

    A point is in a region where all of its rows are at most 0: one row above 0 excludes it.
    `worst` gets the pass of the row that was last the greatest of its region, so far, and below
    the regions before: mostly the best row of the worst region, and another says as much.
    """
    lower, closed = np.inf, np.inf
    trace = _Trace(np.zeros(worst.activations.shape), np.zeros(len(worst.inputs)))
    for region in range(len(alive)):
        if not alive[region]:
            continue
        greatest = -np.inf
        for row in range(regions.starts[region], regions.starts[region + 1]):
            scratch.one[: regions.rows.shape[1]] = regions.rows[row]
            bound = _row_bound(network, box, lines, scratch, trace) + regions.offsets[row]
            bound -= abs(bound) * 4 * UNIT_ROUNDOFF  # of the last sum
            if not bound <= greatest:
                greatest = bound
                if not greatest >= lower:
                    worst.activations[:] = trace.activations
                    worst.inputs[:] = trace.inputs
        if greatest > goal:
            alive[region] = False
            closed = min(closed, greatest)
        elif not greatest >= lower:
            lower = greatest
    return lower, closed


@compiled
def _row_bound(
    network: PaddedNetwork, box: _Box, lines: _Lines, scratch: _Scratch, trace: _Trace
) -> float:
    """Lower bound of `one @ y`, y the network's outputs: a pass as those of `_unit_bounds`."""
    bound = 0.0
    one, _, next_one, _ = scratch
    for index in range(len(network.weights) - 1, -1, -1):
        before = network.widths[index]
        next_one[:before] = 0.0
        for i in range(network.widths[index + 1]):
            a = one[i]
            if a == 0.0:
                continue
            bound += _least(a, network.biases[index, i], network.affine_scales[index, i])
            weights = network.weights[index, i]
            for j in range(before):
                next_one[j] += a * weights[j]
        if index == 0:
            break
        for j in range(before):
            a = next_one[j]
            trace.activations[index - 1, j] = a
            intercept, scale = lines.intercept[index - 1, j], network.relu_scales[index - 1, j]
            bound += _line_offset(a, intercept, scale)
            above, below = lines.lower_slope[index - 1, j], lines.upper_slope[index - 1, j]
            one[j] = _line_slope(a, above, below)
    for j in range(len(box.center)):
        a = next_one[j]
        bound += _least(a, box.center[j], box.radius[j] + network.input_scales[j])
        trace.inputs[j] = a
    return _held(bound)


# What a pass rests on. It starts from a @ z; each step puts a lower bound in its place:
#   a @ (W x + b) = (a @ W) @ x + a @ b, which `_least` takes what rounding did from;
#   a @ relu(z) >= sum of `_line_slope` * z + `_line_offset`;
#   a @ x >= sum of `_least` over the box.


@compiled
def _least(a: float, value: float, radius: float) -> float:
    """`a * x >= a * value - |a| * radius` where |x - value| <= radius."""
    return a * value - abs(a) * radius


@compiled
def _line_slope(a: float, lower_slope: float, upper_slope: float) -> float:
    """z's coefficient in the line below `a * relu(z)`: the lower line if a > 0, else the upper."""
    return a * lower_slope if a > 0 else a * upper_slope


@compiled
def _line_offset(a: float, intercept: float, scale: float) -> float:
    """That line at z = 0, less rounding: only the upper line has an intercept."""
    return min(a, 0.0) * intercept - abs(a) * scale


@compiled
def _held(bound: float) -> float:
    """As in `linear`: a lower bound as far as it proves something; overflow ends beyond `HUGE`."""
    return bound - UNDERFLOW if abs(bound) < HUGE else -np.inf


@compiled
def _input_to_split(
    network: PaddedNetwork,
    box: _Box,
    phases: NDArray[np.int8],
    lines: _Lines,
    units: _Open,
    worst: _Trace,
) -> int:
    """The input on which the worst row's bound loses most, by its own slope and by upper lines.

    Such a line loses up to its intercept times its coefficient, and halving an input narrows the
    unit's span by the share of it that the input makes.
    """
    split, most = 0, -1.0
    for index in range(len(box.radius)):
        score = DIRECT_SHARE * abs(worst.inputs[index])
        for layer in range(len(network.weights) - 1):
            for unit in range(network.widths[layer + 1]):
                if phases[layer, unit] == 0:
                    loss = abs(worst.activations[layer, unit]) * lines.intercept[layer, unit]
                    score += loss * abs(units.slopes[layer, unit, index]) / units.span[layer, unit]
        if score * box.radius[index] > most:
            split, most = index, score * box.radius[index]
    return split
