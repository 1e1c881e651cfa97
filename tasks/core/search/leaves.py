"""Subproblems with no unit left to split: all is affine there, and a linear program decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.bounds.relaxations import Bounds
from tasks.core.dual.choices import Choices
from tasks.core.dual.dual_problem import DualProblem
from tasks.core.dual.subproblems import SignArray
from tasks.core.networks.network import Affine
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion


def programmed(
    problem: DualProblem, region: UnsafeRegion, signs: SignArray, bounds: Bounds, choices: Choices
) -> tuple[FloatArray | None, Choices]:
    """Where the region's greatest row is least, and the dual choices that show how small it is.

    Of a leaf with splits `signs`, (units,); `bounds` and `choices` are batches of one. The point is
    a candidate only, None where HiGHS finds none; the choices are as good as its marginals, and no
    proof before they are certified. Where no point satisfies the splits, a multiple of the
    multipliers that show it is larger than anything the rows can be.
    """
    box = problem.box
    current, held, limits = _affine(problem, signs, bounds)
    weights = region.rows @ current.weight
    offsets = region.rows @ current.bias + region.offsets
    split = np.flatnonzero(signs)
    rows = len(region.rows)
    multipliers = np.zeros((1, problem.num_units), dtype=np.float32)
    shares = np.zeros_like(choices.weights)
    least = _least(box, np.vstack([weights, held]), np.append(-offsets, limits), rows)
    if least is not None and least.success:
        shares[0, :rows] = -least.ineqlin.marginals[:rows]
        multipliers[0, split] = -least.ineqlin.marginals[rows:]
        point = np.clip(least.x[:-1], box.lower[0], box.upper[0])
        return point, replace(choices, multipliers=multipliers, weights=shares)
    apart = _least(box, held, limits, len(held)) if len(held) else None
    if apart is not None and apart.success and apart.fun > 0:
        size = np.abs(weights) @ np.abs([box.lower[0], box.upper[0]]).max(axis=0)
        most = float((size + np.abs(offsets)).max())
        multipliers[0, split] = -apart.ineqlin.marginals * (2 * most / apart.fun)
        return None, replace(choices, multipliers=multipliers)
    return None, choices


def _affine(
    problem: DualProblem, signs: SignArray, bounds: Bounds
) -> tuple[Affine, FloatArray, FloatArray]:
    """The outputs as a map of the inputs, and the splits as rows `held @ x <= limits`."""
    network = problem.network
    current = network.layers[0]
    held, limits = [np.zeros((0, network.num_inputs))], [np.zeros(0)]
    for at, linear, layer in zip(problem.layers, network.linear, network.layers[1:], strict=True):
        side = signs[at].astype(np.float64)
        split, weight = side != 0, current.weight
        held.append(-side[split, None] * weight[split])
        limits.append((side * current.bias)[split])
        active = linear | (bounds.lower[0, at] >= 0)
        current = layer.after(Affine(weight * active[:, None], current.bias * active))
    return current, np.concatenate(held), np.concatenate(limits)


def _least(box: Box, rows: FloatArray, limits: FloatArray, count: int) -> Any:
    """HiGHS on the least t with `rows @ x - t <= limits` in the first `count`, else without t.

    None where the numbers are not finite.
    """
    from scipy.optimize import linprog

    greatest = np.where(np.arange(len(rows)) < count, -1.0, 0.0)
    left = np.hstack([rows, greatest[:, None]])
    if not (np.isfinite(left).all() and np.isfinite(limits).all()):
        return None
    inputs = np.stack([box.lower[0], box.upper[0]], axis=1)
    objective = np.append(np.zeros(len(inputs)), 1.0)
    return linprog(objective, left, limits, bounds=[*inputs.tolist(), (None, None)])
