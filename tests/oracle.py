"""The exact least margin of a small network over a box, by mixed-integer programming (HiGHS).

Exact up to HiGHS's feasibility tolerance of 1e-6.

Independent of the product: its own bounds, its own encoding (Tjeng et al. 2019, "Evaluating
Robustness of Neural Networks with Mixed Integer Programming", eq. 4).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from tasks.core.network import ReluNetwork
from tasks.core.specification import FloatArray, LinfBall

SLACK = 1e-3  # of the bounds in big-M: far from HiGHS's tolerance, at which it reports errors


def least_margin(network: ReluNetwork, ball: LinfBall, label: int) -> float:
    """Minimum over the box and the other classes of true logit minus other logit."""
    others = [c for c in range(network.num_outputs) if c != label]
    return min(_least(network, ball, _row(network, label, other)) for other in others)


def _row(network: ReluNetwork, label: int, other: int) -> FloatArray:
    row = np.zeros(network.num_outputs)
    row[label], row[other] = 1.0, -1.0
    return row


def _least(network: ReluNetwork, ball: LinfBall, row: FloatArray) -> float:
    hidden = network.layers[:-1]
    widths = [len(layer.bias) for layer in hidden]
    inputs = network.num_inputs
    total = inputs + 2 * sum(widths)  # inputs, then per layer activations and phases
    lower, upper = np.zeros(total), np.ones(total)
    lower[:inputs], upper[:inputs] = ball.lower[0], ball.upper[0]
    integrality = np.zeros(total)  # of the phases of unstable units alone
    rows, least, most = [], [], []
    before = slice(0, inputs)
    low, high = ball.lower[0], ball.upper[0]
    start = inputs
    for layer, width in zip(hidden, widths, strict=True):
        positive, negative = np.maximum(layer.weight, 0), np.minimum(layer.weight, 0)
        z_low = positive @ low + negative @ high + layer.bias - SLACK
        z_high = positive @ high + negative @ low + layer.bias + SLACK
        for unit in range(width):
            activation, phase = start + unit, start + width + unit
            base = np.zeros(total)
            base[activation] = 1
            base[before] = -layer.weight[unit]
            bias = layer.bias[unit]
            if z_high[unit] <= 0:  # a = 0
                upper[activation] = upper[phase] = 0
                continue
            if z_low[unit] >= 0:  # a = z
                upper[activation], upper[phase] = z_high[unit], 0
                rows.append(base)
                least.append(bias)
                most.append(bias)
                continue
            upper[activation] = z_high[unit]
            integrality[phase] = 1
            rows.append(base)  # a >= z
            least.append(bias)
            most.append(np.inf)
            above = base.copy()
            above[phase] = -z_low[unit]  # a <= z - l (1 - d)
            rows.append(above)
            least.append(-np.inf)
            most.append(bias - z_low[unit])
            capped = np.zeros(total)
            capped[activation], capped[phase] = 1, -z_high[unit]  # a <= u d
            rows.append(capped)
            least.append(-np.inf)
            most.append(0)
        before = slice(start, start + width)
        start += 2 * width
        low, high = np.maximum(z_low, 0), np.maximum(z_high, 0)
    objective = np.zeros(total)
    objective[before] = row @ network.layers[-1].weight
    result = milp(
        objective,
        integrality=integrality,
        bounds=Bounds(lower, upper),
        constraints=LinearConstraint(np.array(rows), least, most) if rows else (),
        options={"mip_rel_gap": 1e-9},
    )
    assert result.success, result.message
    return float(result.fun + row @ network.layers[-1].bias)
