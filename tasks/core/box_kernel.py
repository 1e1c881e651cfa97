"""Backward linear bounds of one small box after another, compiled: the kernel of input splitting.

The same relaxation and rounding as `bounds.backward_bounds` (DeepPoly of Singh et al. 2019 is the
same bound), for networks with few inputs, where millions of boxes differ in little: a unit whose
phase is known in a box keeps it in every part of the box, so only the others are bounded again.
Compiled by Numba on first use and cached beside this file.
"""

from __future__ import annotations

import numba
import numpy as np

from tasks.core.specification import FloatArray

# Sums may be reordered and products fused: the rounding scales hold for any order. Nothing else of
# "fast math" is allowed: NaN and infinity must stay what they are, so that they prove nothing.
COMPILED = {"cache": True, "nogil": True, "fastmath": {"reassoc", "contract", "nsz"}}


@numba.njit(**COMPILED)
def bound_boxes(
    weights,
    biases,
    widths,
    linear,
    affine_scales,
    relu_scales,
    input_scales,
    rows,
    offsets,
    regions,
    box_lower,
    box_upper,
    phases,
    alive,
    out_lower,
    out_split,
    out_point,
):
    """Bounds every row of the alive regions over every box.

    Args:
        weights, biases, widths: (layers, w, w), (layers, w) and (layers + 1,), padded.
        linear, relu_scales: (layers - 1, w); affine_scales: (layers, w); input_scales: (inputs,).
        rows, offsets, regions: (m, outputs), (m,) and the region of each row (m,), ascending.
        box_lower, box_upper: (boxes, inputs).
        phases: (boxes, layers - 1, w) int8: 1 active, -1 inactive, 0 unknown; updated.
        alive: (boxes, num_regions) bool: which regions are open; updated.
        out_lower: (boxes,): the least over alive regions of the greatest row's bound.
        out_split: (boxes,): the input to split.
        out_point: (boxes, inputs): where the worst region's best row is least.
    """
    depth, width = weights.shape[0], weights.shape[1]
    inputs = box_lower.shape[1]
    hidden = depth - 1
    slope_lower = np.zeros((max(hidden, 1), width))
    slope_upper = np.zeros((max(hidden, 1), width))
    intercept = np.zeros((max(hidden, 1), width))
    span = np.zeros((max(hidden, 1), width))
    sensitivity = np.zeros((max(hidden, 1), width, inputs))
    best_coefficients = np.zeros((max(hidden, 1), width))
    coefficients = np.zeros((max(hidden, 1), width))
    best_inputs = np.zeros(inputs)
    one, two = np.zeros(width), np.zeros(width)
    next_one, next_two = np.zeros(width), np.zeros(width)
    for box in range(len(box_lower)):
        center = (box_upper[box] + box_lower[box]) / 2
        radius = (box_upper[box] - box_lower[box]) / 2
        for layer in range(hidden):
            for unit in range(widths[layer + 1]):
                phase = phases[box, layer, unit]
                low, high = 0.0, 0.0
                if phase == 0:
                    one[:] = 0.0
                    one[unit] = 1.0
                    two[:] = 0.0
                    two[unit] = -1.0
                    low, high = _both(
                        layer, weights, biases, widths, affine_scales, relu_scales, input_scales,
                        slope_lower, slope_upper, intercept, center, radius,
                        one, two, next_one, next_two, unit, sensitivity[layer, unit],
                    )
                    if low >= 0:
                        phase = 1
                    elif high <= 0:
                        phase = -1
                    if linear[layer, unit]:
                        phase = 1
                    phases[box, layer, unit] = phase
                if phase == 0:
                    chord = high / (high - low)
                    slope_lower[layer, unit] = 1.0 if high > -low else 0.0
                    slope_upper[layer, unit] = chord
                    intercept[layer, unit] = -chord * low
                    span[layer, unit] = high - low
                else:
                    slope = 1.0 if phase > 0 else 0.0
                    slope_lower[layer, unit] = slope
                    slope_upper[layer, unit] = slope
                    intercept[layer, unit] = 0.0
        worst = np.inf
        row = 0
        while row < len(rows):
            region, greatest, start = regions[row], -np.inf, row
            while row < len(rows) and regions[row] == region:
                if alive[box, region]:
                    one[:] = 0.0
                    one[: rows.shape[1]] = rows[row]
                    bound = offsets[row] + _lower(
                        depth - 1, weights, biases, widths, affine_scales, relu_scales,
                        input_scales, slope_lower, slope_upper, intercept, center, radius,
                        one, next_one, coefficients,
                    )
                    bound -= abs(bound) * 1e-15
                    if bound > greatest:
                        greatest = bound
                        if bound < worst:
                            best_coefficients[:] = coefficients
                            best_inputs[:] = one[:inputs]
                row += 1
            if alive[box, region]:
                if greatest > 0:
                    alive[box, region] = False
                elif greatest < worst:
                    worst = greatest
        out_lower[box] = worst
        if worst == np.inf:
            continue
        split, most = 0, -1.0
        for index in range(inputs):
            out_point[box, index] = center[index] - np.sign(best_inputs[index]) * radius[index]
            score = 0.0
            for layer in range(hidden):
                for unit in range(widths[layer + 1]):
                    if phases[box, layer, unit] == 0:
                        loss = abs(best_coefficients[layer, unit]) * intercept[layer, unit]
                        score += loss * abs(sensitivity[layer, unit, index]) / span[layer, unit]
            score = (score + MIX * abs(best_inputs[index])) * radius[index]
            if score > most:
                split, most = index, score
        out_split[box] = split

MIX = 0.05

@numba.njit(**COMPILED)
def _both(
    layer, weights, biases, widths, affine_scales, relu_scales, input_scales,
    slope_lower, slope_upper, intercept, center, radius, one, two, next_one, next_two, unit, sensitivity,
):
    """Lower and upper bound of one unit: two backward passes that read each weight once."""
    low_constant, high_constant = 0.0, 0.0
    first = True
    for index in range(layer, -1, -1):
        count, before = widths[index + 1], widths[index]
        next_one[:before] = 0.0
        next_two[:before] = 0.0
        begin, end = 0, count
        if first:
            begin, end, first = unit, unit + 1, False
        for i in range(begin, end):
            a, c = one[i], two[i]
            if a == 0.0 and c == 0.0:
                continue
            bias, scale = biases[index, i], affine_scales[index, i]
            low_constant += a * bias - abs(a) * scale
            high_constant += c * bias - abs(c) * scale
            row = weights[index, i]
            for j in range(before):
                next_one[j] += a * row[j]
                next_two[j] += c * row[j]
        if index == 0:
            break
        for j in range(before):
            a, c, scale = next_one[j], next_two[j], relu_scales[index - 1, j]
            low_constant += min(a, 0.0) * intercept[index - 1, j] - abs(a) * scale
            high_constant += min(c, 0.0) * intercept[index - 1, j] - abs(c) * scale
            up, down = slope_lower[index - 1, j], slope_upper[index - 1, j]
            one[j] = a * up if a > 0 else a * down
            two[j] = c * up if c > 0 else c * down
    for j in range(len(center)):
        a, c, scale = next_one[j], next_two[j], radius[j] + input_scales[j]
        low_constant += a * center[j] - abs(a) * scale
        high_constant += c * center[j] - abs(c) * scale
        sensitivity[j] = a
    return low_constant, -high_constant


@numba.njit(**COMPILED)
def _lower(
    layer, weights, biases, widths, affine_scales, relu_scales, input_scales,
    slope_lower, slope_upper, intercept, center, radius, one, next_one, coefficients,
):
    """Lower bound of `one @ outputs`; leaves the activations' and (in `one`) inputs' coefficients."""
    constant = 0.0
    for index in range(layer, -1, -1):
        count, before = widths[index + 1], widths[index]
        next_one[:before] = 0.0
        for i in range(count):
            a = one[i]
            if a == 0.0:
                continue
            constant += a * biases[index, i] - abs(a) * affine_scales[index, i]
            row = weights[index, i]
            for j in range(before):
                next_one[j] += a * row[j]
        if index == 0:
            break
        for j in range(before):
            a = next_one[j]
            coefficients[index - 1, j] = a
            constant += min(a, 0.0) * intercept[index - 1, j] - abs(a) * relu_scales[index - 1, j]
            one[j] = a * slope_lower[index - 1, j] if a > 0 else a * slope_upper[index - 1, j]
    for j in range(len(center)):
        a = next_one[j]
        constant += a * center[j] - abs(a) * (radius[j] + input_scales[j])
        one[j] = a
    return constant
