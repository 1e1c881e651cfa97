"""The exact least excess or margin of a small network over a box, by mixed-integer programming.

Exact up to HiGHS's feasibility tolerance of 1e-6; `linear` units of a network are respected.

Independent of the product: its own bounds, its own encoding (Tjeng et al. 2019, "Evaluating
Robustness of Neural Networks with Mixed Integer Programming", eq. 4).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tests.kept_answers import KeptAnswers

ANSWERS = KeptAnswers()
SLACK = 1e-3  # of the bounds in big-M: far from HiGHS's tolerance, at which it reports errors


def least_margin(network: ReluNetwork, ball: Box, label: int) -> float:
    """Minimum over the box and the other classes of true logit minus other logit."""
    others = [c for c in range(network.num_outputs) if c != label]
    return min(
        least_excess(network, UnsafeRegion(ball, _row(network, label, other)[None], np.zeros(1)))
        for other in others
    )


def _row(network: ReluNetwork, label: int, other: int) -> FloatArray:
    row = np.zeros(network.num_outputs)
    row[label], row[other] = 1.0, -1.0
    return row


def least_excess(network: ReluNetwork, region: UnsafeRegion) -> float:
    """Minimum over the region's box (one box) of the greatest of `rows @ outputs + offsets`."""
    return least_excess_at(network, region)[0]


def least_excess_at(network: ReluNetwork, region: UnsafeRegion) -> tuple[float, FloatArray]:
    """The least excess, and HiGHS's minimiser, shape (inputs,)."""
    return ANSWERS.answer(network, region, _computed)


def _computed(network: ReluNetwork, region: UnsafeRegion) -> tuple[float, FloatArray]:
    encoding = _Encoding.of(network, region.box)
    last = network.layers[-1]
    over_activations = region.rows @ last.weight
    constants = region.rows @ last.bias + region.offsets
    total = len(encoding.lower)
    rows, least, most = list(encoding.rows), list(encoding.least), list(encoding.most)
    objective = np.zeros(total + 1)
    lower, upper = np.append(encoding.lower, -np.inf), np.append(encoding.upper, np.inf)
    if len(region.rows) == 1:  # the last variable is not needed
        objective[encoding.outputs] = over_activations[0]
        lower[total], upper[total], constant = 0, 0, float(constants[0])
    else:  # the last variable is above every row
        objective[total], constant = 1, 0.0
        for over, offset in zip(over_activations, constants, strict=True):
            row = np.zeros(total + 1)
            row[total], row[encoding.outputs] = 1, -over
            rows.append(row)
            least.append(float(offset))
            most.append(np.inf)
    padded = [np.append(row, 0.0) if len(row) == total else row for row in rows]
    for presolve in (True, False):  # HiGHS 1.x now and then fails with its presolve
        result = milp(
            objective,
            integrality=np.append(encoding.integrality, 0),
            bounds=Bounds(lower, upper),
            constraints=LinearConstraint(np.array(padded), least, most) if rows else (),
            options={"mip_rel_gap": 1e-9, "presolve": presolve},
        )
        if result.success:
            break
    assert result.success, result.message
    return float(result.fun) + constant, result.x[: network.num_inputs]


@dataclass
class _Encoding:
    """Variables: inputs, then per hidden layer activations and phases; and their constraints."""

    lower: FloatArray
    upper: FloatArray
    integrality: FloatArray
    outputs: slice  # the activations that the last layer reads
    rows: list[FloatArray] = field(default_factory=list)
    least: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, network: ReluNetwork, ball: Box) -> _Encoding:
        hidden, inputs = network.layers[:-1], network.num_inputs
        total = inputs + 2 * sum(len(layer.bias) for layer in hidden)
        encoding = cls(np.zeros(total), np.ones(total), np.zeros(total), slice(0, inputs))
        encoding.lower[:inputs], encoding.upper[:inputs] = ball.lower[0], ball.upper[0]
        low, high = ball.lower[0], ball.upper[0]
        start = inputs
        for layer, linear in zip(hidden, network.linear, strict=True):
            width = len(layer.bias)
            positive, negative = np.maximum(layer.weight, 0), np.minimum(layer.weight, 0)
            z_low = positive @ low + negative @ high + layer.bias - SLACK
            z_high = positive @ high + negative @ low + layer.bias + SLACK
            for unit in range(width):
                affine = np.zeros(total)  # a - z
                affine[start + unit] = 1
                affine[encoding.outputs] = -layer.weight[unit]
                encoding._add_unit(
                    (start + unit, start + width + unit),
                    affine,
                    float(layer.bias[unit]),
                    (float(z_low[unit]), float(z_high[unit])),
                    bool(linear[unit]),
                )
            encoding.outputs = slice(start, start + width)
            start += 2 * width
            low = np.where(linear, z_low, np.maximum(z_low, 0))
            high = np.where(linear, z_high, np.maximum(z_high, 0))
        return encoding

    def _add_unit(
        self,
        variables: tuple[int, int],
        affine: FloatArray,
        bias: float,
        interval: tuple[float, float],
        linear: bool,
    ) -> None:
        """`a = z` or `a = relu(z)` with z in the interval."""
        (activation, phase), (low, high) = variables, interval
        if linear or low >= 0:  # a = z
            self.lower[activation], self.upper[activation], self.upper[phase] = low, high, 0
            self._add(affine, bias, bias)
            return
        if high <= 0:  # a = 0
            self.upper[activation] = self.upper[phase] = 0
            return
        self.upper[activation], self.integrality[phase] = high, 1
        self._add(affine, bias, np.inf)  # a >= z
        above = affine.copy()
        above[phase] = -low
        self._add(above, -np.inf, bias - low)  # a <= z - l (1 - d)
        capped = np.zeros(len(affine))
        capped[activation], capped[phase] = 1, -high
        self._add(capped, -np.inf, 0)  # a <= u d

    def _add(self, row: FloatArray, least: float, most: float) -> None:
        self.rows.append(row)
        self.least.append(least)
        self.most.append(most)
