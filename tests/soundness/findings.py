"""What an answer is worth: right, wrong or undecided, by what is known exactly of the case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import UnsafeRegion
from tests.soundness.cases import Case
from tests.soundness.exact import excess_at, hidden_values, magnitude_at

Status = Literal["right", "wrong", "undecided"]

RELATIVE = Fraction(1, 10**9)  # by which a margin may pass the exact one: its own printing
SUBNORMAL = Fraction(1, 2**1000)  # where an evaluation's error is no share of what it adds up
ROUNDING = Fraction(1, 2**40)  # of the magnitudes, in one float64 evaluation of a small network


@dataclass(frozen=True)
class Finding:
    """One answer of one engine, and why it is wrong or undecided."""

    engine: str
    status: Status
    words: str = ""


def proof(case: Case, engine: str, margin: float | None) -> Finding:
    """Of the claim that no region is reached, by a margin if one is given."""
    least = min(reached.excess for reached in case.reached)
    if least <= 0:
        return Finding(engine, "wrong", f"robust, yet a point has the excess {float(least):.6g}")
    return bound(engine, margin, least) if margin is not None else Finding(engine, "right")


def bounds(case: Case, engine: str, lower: Sequence[float]) -> Finding:
    """Of lower bounds on each region's excess; one above zero is a proof as well."""
    pairs = zip(lower, case.reached, strict=True)
    found = [bound(engine, value, reached.excess) for value, reached in pairs]
    return worst(found)


def bound(engine: str, lower: float, excess: Fraction) -> Finding:
    """Of a lower bound on what has this exact value somewhere."""
    if np.isnan(lower) or lower == -np.inf:
        return Finding(engine, "undecided", f"the bound is {lower}")
    too_high = lower == np.inf or Fraction(float(lower)) > excess + RELATIVE * abs(excess)
    if too_high or lower > 0 >= excess:
        return Finding(engine, "wrong", f"bound {lower!r}, yet a point has {float(excess)!r}")
    return Finding(engine, "right")


def counterexample(
    case: Case, engine: str, point: FloatArray, regions: Sequence[UnsafeRegion]
) -> Finding:
    """Of the claim that the point reaches one of the regions in float64."""
    found = [_reaching(case.network, engine, point, region) for region in regions]
    return next((one for one in found if one.status == "right"), found[0])


def _reaching(
    network: ReluNetwork, engine: str, point: FloatArray, region: UnsafeRegion
) -> Finding:
    lower, upper = region.box.lower[0], region.box.upper[0]
    if not ((point >= lower) & (point <= upper)).all():
        return Finding(engine, "wrong", "falsified by a point outside of the box")
    whole = network if region.rows.shape[1] == network.num_outputs else network.with_inputs()
    value = float(region.excess(whole(point[None]))[0])
    if not value <= 0:
        return Finding(engine, "wrong", f"falsified, yet the float64 excess is {value!r}")
    exact = excess_at(network, region, point.tolist())
    if exact > ROUNDING * magnitude_at(network, region, point.tolist()) + SUBNORMAL:
        return Finding(engine, "wrong", f"falsified, yet the exact excess is {float(exact)!r}")
    return Finding(engine, "right")


def hidden(case: Case, engine: str, layers: Sequence[tuple[FloatArray, FloatArray]]) -> Finding:
    """Of lower and upper bounds, (units,), on every hidden layer over the box of region 0."""
    values = hidden_values(case.network, case.reached[0].point)
    for depth, ((lower, upper), layer) in enumerate(zip(layers, values, strict=True)):
        for unit, (low, high, z) in enumerate(zip(lower, upper, layer, strict=True)):
            if _above(float(low), z) or _above(-float(high), -z):
                words = f"unit {unit} of layer {depth} is {float(z)!r}, bounds {low!r}, {high!r}"
                return Finding(engine, "wrong", words)
    return Finding(engine, "right")


def _above(lower: float, value: Fraction) -> bool:
    """Whether a lower bound is false; NaN and minus infinity claim nothing."""
    return lower == np.inf or (np.isfinite(lower) and Fraction(lower) > value)


def worst(found: Sequence[Finding]) -> Finding:
    """A wrong one if any is, else an undecided one if any is."""
    return min(found, key=lambda one: ("wrong", "undecided", "right").index(one.status))
