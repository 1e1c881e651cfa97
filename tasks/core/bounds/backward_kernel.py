"""Rows of coefficients through the activations of a layer, compiled: each is read once.

Every sum is over one layer's values, in any order, as `rounding` allows. Compiled by Numba on first
use and cached beside this file.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from tasks.core.arrays import FloatArray, IntArray

# As in `box_kernel`: sums may be reordered and products fused, NaN and infinity stay what they are.
compiled = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})


class Tables(NamedTuple):
    """A hidden layer over each owner of rows, (owners, units) each, or (1, units) for all.

    Attributes:
        lower_slope, upper_slope, upper_intercept: the lines around the activation.
        scale: rounding around the activation.
        center, radius: of what comes out of it; the radius includes `scale`.
        bias, affine_scale: of the affine layer before, and its rounding.
        terms: of split constraints; (1, 0) where there are none.
    """

    lower_slope: FloatArray
    upper_slope: FloatArray
    upper_intercept: FloatArray
    scale: FloatArray
    center: FloatArray
    radius: FloatArray
    bias: FloatArray
    affine_scale: FloatArray
    terms: FloatArray


@compiled
def through_activation(
    coefficients: FloatArray,
    owners: IntArray,
    tables: Tables,
    constant: FloatArray,
    best: FloatArray,
) -> None:
    """From after the activation to before it, in place.

    `coefficients`, (rows, units), become those of the affine layer's outputs; `constant`, (rows,),
    gains what the lines, the bias and rounding add; `best` is raised to the least value over the
    activation's box. NaN raises nothing.
    """
    has_terms = tables.terms.shape[1] > 0
    for row in range(coefficients.shape[0]):
        owner = owners[row]
        lower_slope = tables.lower_slope[owner % tables.lower_slope.shape[0]]
        upper_slope = tables.upper_slope[owner % tables.upper_slope.shape[0]]
        intercept = tables.upper_intercept[owner % tables.upper_intercept.shape[0]]
        scale = tables.scale[owner % tables.scale.shape[0]]
        center = tables.center[owner % tables.center.shape[0]]
        radius = tables.radius[owner % tables.radius.shape[0]]
        bias = tables.bias[owner % tables.bias.shape[0]]
        affine_scale = tables.affine_scale[owner % tables.affine_scale.shape[0]]
        terms = tables.terms[owner % tables.terms.shape[0]]
        values = coefficients[row]
        least = lines = lost = shift = 0.0
        for unit in range(len(values)):
            value = values[unit]
            size = abs(value)
            positive, negative = 0.5 * (size + value), 0.5 * (value - size)
            least += value * center[unit] - size * radius[unit]
            lines += negative * intercept[unit]
            lost += size * scale[unit]
            after = positive * lower_slope[unit] + negative * upper_slope[unit]
            if has_terms:
                after -= terms[unit]
                lost += abs(terms[unit]) * scale[unit]
            values[unit] = after
            shift += after * bias[unit]
            lost += abs(after) * affine_scale[unit]
        best[row] = max(best[row], least + constant[row])
        constant[row] += lines + shift - lost


@compiled
def least_over(
    coefficients: FloatArray, owners: IntArray, center: FloatArray, radius: FloatArray
) -> FloatArray:
    """The least of `coefficients @ x` where x is within `radius` of `center`: (rows,)."""
    least = np.empty(coefficients.shape[0])
    for row in range(coefficients.shape[0]):
        middle = center[owners[row] % center.shape[0]]
        reach = radius[owners[row] % radius.shape[0]]
        values = coefficients[row]
        total = 0.0
        for place in range(len(values)):
            total += values[place] * middle[place] - abs(values[place]) * reach[place]
        least[row] = total
    return least
