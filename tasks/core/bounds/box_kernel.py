"""Backward linear bounds of one small box after another, compiled: the kernel of input splitting.

The same relaxation and rounding as `backward.backward_bounds`, the bound of DeepPoly (Singh et al.
2019, "An Abstract Domain for Certifying Neural Networks", section 4), for networks with few inputs,
where very many boxes differ in little: a unit whose phase is known in a box keeps it in every part
of the box, so only the others are bounded again. What a linear bound shows to be outside of every
region is clipped from a box, which is then bounded again (Zhou et al. 2025, "Clip-and-Verify"), and
a region's rows are weighed jointly, as the dual does. Each step below is one inequality, and one
term of rounding error as `rounding` derives it. Compiled by Numba on first use and cached beside
this file.
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
ROUNDS = 8  # of bounding and clipping a box, at most
ENOUGH = 0.7  # of an input's width: a box is bounded again where a round leaves no more of one
WEIGHING_SWEEPS = 2  # over a region's rows
WEIGHING_STEPS = 30  # of bisection for each


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

    `starts`, (regions + 1,), ends with m; `most` is the greatest number of rows of a region.
    """

    rows: FloatArray
    offsets: FloatArray
    starts: IntArray
    most: int


class Found(NamedTuple):
    """What is found of each box.

    Attributes:
        lower: (boxes,): the least over open regions of the greatest row's bound.
        closed: (boxes,): the same over the regions closed here, and over what was clipped.
        split: (boxes,): the input to split.
        points: (boxes, inputs): where the worst region's best row, or its weighted sum, is least.
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


class _Relaxed(NamedTuple):
    """One box and what is known in it; `phases`, (layers - 1, w), as in `bound_boxes`."""

    box: _Box
    phases: NDArray[np.int8]
    lines: _Lines
    units: _Open


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


class _Below(NamedTuple):
    """Linear functions below a region's rows in one box, and one below their weighted sum, last.

    Attributes:
        slopes, least: coefficients, (m + 1, inputs), and least values over the box, (m + 1,).
        weights: of the rows, (m,).
        scores: what each input's width costs the bounds, (inputs,); see `_score`.
    """

    slopes: FloatArray
    least: FloatArray
    weights: FloatArray
    scores: FloatArray


class _Kept(NamedTuple):
    """Of a box what clipping leaves for one region, and for all of them: (inputs,) each."""

    lower: FloatArray
    upper: FloatArray
    all_lower: FloatArray
    all_upper: FloatArray


class _Worst(NamedTuple):
    """Of the region with the least bound: coefficients and scores of the inputs, (inputs,)."""

    slopes: FloatArray
    scores: FloatArray


@compiled
def bound_boxes(
    network: PaddedNetwork,
    root: PaddedBounds,
    regions: PaddedRegions,
    goal: float,
    clips: bool,
    whole: BoolArray,
    box_lower: FloatArray,
    box_upper: FloatArray,
    phases: NDArray[np.int8],
    alive: BoolArray,
    found: Found,
) -> None:
    """Bounds every row of the open regions over every box, into `found`; sound, see the module.

    Args:
        goal: a region is closed where the bound of a row is above it; at least 0.
        clips: whether boxes lose what a linear function shows to be above the goal.
        whole: (inputs,): of which inputs only whole numbers count, where boxes are clipped.
        box_lower, box_upper: (boxes, inputs); what clipping leaves of them.
        phases: (boxes, layers - 1, w) int8: 1 active, -1 inactive, 0 unknown; updated.
        alive: (boxes, regions): which regions are open; updated.
    """
    (hidden, width), inputs, most = root.lower.shape, box_lower.shape[1], regions.most
    shape = (hidden, width)
    lines = _Lines(np.zeros(shape), np.zeros(shape), np.zeros(shape))
    units = _Open(np.ones(shape), np.zeros((hidden, width, inputs)))
    scratch = _Scratch(np.zeros(width), np.zeros(width), np.zeros(width), np.zeros(width))
    trace = _Trace(np.zeros(shape), np.zeros(inputs))
    below = _Below(
        np.zeros((most + 1, inputs)), np.zeros(most + 1), np.zeros(most), np.zeros(inputs)
    )
    kept = _Kept(np.zeros(inputs), np.zeros(inputs), np.zeros(inputs), np.zeros(inputs))
    worst = _Worst(np.zeros(inputs), np.zeros(inputs))
    for number in range(len(box_lower)):
        lower, upper, closed = box_lower[number], box_upper[number], np.inf
        for number_of_round in range(ROUNDS):
            clips_now = clips and number_of_round < ROUNDS - 1  # what is kept is bounded again
            box = _Box((upper + lower) / 2, (upper - lower) / 2)
            relaxed = _Relaxed(box, phases[number], lines, units)
            _relax(network, root, relaxed, scratch)
            kept.lower[:], kept.upper[:] = lower, upper
            found.lower[number], closed_now = _bound_regions(
                network,
                regions,
                goal,
                clips_now,
                relaxed,
                alive[number],
                scratch,
                trace,
                below,
                kept,
                worst,
            )
            closed = min(closed, closed_now)
            if not clips_now or found.lower[number] == np.inf:
                break
            is_cut, is_less = False, False
            for index in range(inputs):
                low, high = kept.all_lower[index], kept.all_upper[index]
                is_cut |= low > lower[index] or high < upper[index]
                if whole[index]:
                    low, high = np.ceil(low), np.floor(high)
                    if low > high:
                        alive[number] = False
                is_less |= high - low < ENOUGH * (upper[index] - lower[index])
                lower[index], upper[index] = low, high
            if is_cut:
                closed = min(closed, _beyond(goal))
            if not is_less or not alive[number].any():
                break
        found.closed[number] = closed
        found.split[number] = (worst.scores * (upper - lower)).argmax()
        for index in range(inputs):
            slope, middle = worst.slopes[index], (lower[index] + upper[index]) / 2
            end = lower[index] if slope > 0 else upper[index]
            found.points[number, index] = middle if slope == 0 else end


@compiled
def _relax(
    network: PaddedNetwork, root: PaddedBounds, relaxed: _Relaxed, scratch: _Scratch
) -> None:
    """Every unit's phase and lines in the box, layer by layer, each from those before it."""
    box, phases, lines, units = relaxed
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
    clips: bool,
    relaxed: _Relaxed,
    alive: BoolArray,
    scratch: _Scratch,
    trace: _Trace,
    below: _Below,
    kept: _Kept,
    worst: _Worst,
) -> tuple[float, float]:
    """The least bounds over the regions that stay open, and over those that are closed here.

    `kept` begins with the box and gets what clipping leaves of it; `worst` is of the worst region.
    """
    least, closed = np.inf, np.inf
    lower, upper = kept.lower.copy(), kept.upper.copy()
    kept.all_lower[:], kept.all_upper[:] = upper, lower
    for region in range(len(alive)):
        if not alive[region]:
            continue
        bound, rows = _bound_region(network, regions, region, goal, relaxed, scratch, trace, below)
        kept.lower[:], kept.upper[:] = lower, upper
        if clips and not bound > goal and not _clip(below, rows, goal, kept):
            bound = _beyond(goal)
        if bound > goal:
            alive[region] = False
            closed = min(closed, bound)
            continue
        kept.all_lower[:] = np.minimum(kept.all_lower, kept.lower)
        kept.all_upper[:] = np.maximum(kept.all_upper, kept.upper)
        if not bound >= least:
            least = bound
            worst.slopes[:] = trace.inputs
            worst.scores[:] = below.scores
    return least, closed


@compiled
def _bound_region(
    network: PaddedNetwork,
    regions: PaddedRegions,
    region: int,
    goal: float,
    relaxed: _Relaxed,
    scratch: _Scratch,
    trace: _Trace,
    below: _Below,
) -> tuple[float, int]:
    """The greatest bound, and how many functions `below` has got.

    A point is in a region where all of its rows are at most 0: one row above 0 excludes it, and so
    does one weighted sum of them. `trace` gets the last pass: of the sum, if there are several.
    """
    start, outputs = regions.starts[region], regions.rows.shape[1]
    count, greatest = regions.starts[region + 1] - start, -np.inf
    below.scores[:] = 0.0
    for row in range(count):
        scratch.one[:outputs] = regions.rows[start + row]
        bound = _row_bound(network, relaxed, scratch, trace) + regions.offsets[start + row]
        bound -= abs(bound) * 4 * UNIT_ROUNDOFF  # of the last sum
        if bound > goal:
            return bound, 0
        greatest = max(greatest, bound)
        below.slopes[row], below.least[row] = trace.inputs, bound
        _score(network, relaxed, trace, goal - bound, below.scores)
    if count == 1:
        return greatest, 1
    _weigh(below, count, relaxed.box)
    scratch.one[:outputs] = 0.0
    offset, sizes, error = 0.0, 0.0, 0.0
    for row in range(count):
        weight = below.weights[row]
        offset += weight * regions.offsets[start + row]
        sizes += weight * abs(regions.offsets[start + row])
        for output in range(outputs):
            part = weight * regions.rows[start + row, output]
            scratch.one[output] += part
            error += abs(part) * network.affine_scales[-1, output]  # gamma is in the scale
    bound = _row_bound(network, relaxed, scratch, trace) + offset
    bound -= count * error + (abs(bound) + sizes) * 8 * (count + 8) * UNIT_ROUNDOFF
    below.slopes[count], below.least[count] = trace.inputs, bound
    _score(network, relaxed, trace, goal - bound, below.scores)
    return max(greatest, bound), count + 1


@compiled
def _weigh(below: _Below, count: int, box: _Box) -> None:
    """Weights, their sum 1, whose sum of the functions has a great least value over the box.

    That value is concave in the weights: from the best row, for one row after the other, bisection
    finds how much of its function to mix in.
    """
    weights, inputs = below.weights, len(box.radius)
    best = below.least[:count].argmax()
    weights[:count] = 0.0
    weights[best] = 1.0
    mixed = below.slopes[best].copy()
    middle = below.least[best] + np.sum(np.abs(mixed) * box.radius)  # its value at the center
    for _ in range(WEIGHING_SWEEPS):
        for row in range(count):
            other = below.slopes[row]
            other_middle = below.least[row] + np.sum(np.abs(other) * box.radius)
            share, most = 0.0, 1.0
            for _ in range(WEIGHING_STEPS):
                tried = (share + most) / 2
                rise = other_middle - middle
                for index in range(inputs):
                    sign = np.sign((1 - tried) * mixed[index] + tried * other[index])
                    rise -= sign * (other[index] - mixed[index]) * box.radius[index]
                if rise > 0:
                    share = tried
                else:
                    most = tried
            mixed = (1 - share) * mixed + share * other
            middle = (1 - share) * middle + share * other_middle
            weights[:count] *= 1 - share
            weights[row] += share


@compiled
def _beyond(goal: float) -> float:
    """A little above the goal: what the excess is at least where a box was clipped."""
    return max(goal * (1 + 2.0**-40), UNDERFLOW)


@compiled
def _clip(below: _Below, count: int, goal: float, kept: _Kept) -> bool:
    """Takes what one of the functions shows to be beyond the goal; False if nothing is left.

    In the box a function is at least `least + |slope| * d` where an input is d away from the end
    of its interval at which it is least: d is at most (beyond - least) / |slope|. Weights add up
    to 1 but for a share of 2^-32, and the roundings are of numbers up to the end plus d.
    """
    lower, upper = kept.lower, kept.upper
    at_lower, at_upper = lower.copy(), upper.copy()
    beyond = _beyond(goal) * (1 + 2.0**-32)
    for number in range(count):
        room = beyond - below.least[number]
        if not room < HUGE:
            continue
        for index in range(len(lower)):
            slope = below.slopes[number, index]
            if slope == 0:
                continue
            far = room / abs(slope)
            far += (far + max(abs(at_lower[index]), abs(at_upper[index]))) * 16 * UNIT_ROUNDOFF
            far += UNDERFLOW
            if slope > 0:
                upper[index] = min(upper[index], at_lower[index] + far)
            else:
                lower[index] = max(lower[index], at_upper[index] - far)
            if lower[index] > upper[index]:
                return False
    return True


@compiled
def _row_bound(
    network: PaddedNetwork, relaxed: _Relaxed, scratch: _Scratch, trace: _Trace
) -> float:
    """Lower bound of `one @ y`, y the network's outputs: a pass as those of `_unit_bounds`."""
    bound, box, lines = 0.0, relaxed.box, relaxed.lines
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
def _score(
    network: PaddedNetwork, relaxed: _Relaxed, trace: _Trace, lacking: float, scores: FloatArray
) -> None:
    """Adds what a row's bound loses by each input's width, by its own slope and by upper lines.

    Such a line loses up to its intercept times its coefficient, and halving an input narrows the
    unit's span by the share of it that the input makes. The sum is in shares of what the bound
    lacks: what a row loses that is far below the goal hardly matters, be it exact or not.
    """
    _, phases, lines, units = relaxed
    share = 1 / max(lacking, UNDERFLOW)
    for index in range(len(scores)):
        scores[index] += share * DIRECT_SHARE * abs(trace.inputs[index])
    for layer in range(len(network.weights) - 1):
        for unit in range(network.widths[layer + 1]):
            if phases[layer, unit] == 0:
                loss = abs(trace.activations[layer, unit]) * lines.intercept[layer, unit]
                loss *= share / units.span[layer, unit]
                for index in range(len(scores)):
                    scores[index] += loss * abs(units.slopes[layer, unit, index])
