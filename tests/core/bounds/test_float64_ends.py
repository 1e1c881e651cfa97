"""The ends of float64: what overflows or underflows on the way proves nothing."""

from __future__ import annotations

from fractions import Fraction
from typing import get_args

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.bounds import box_kernel, rounding
from tasks.core.bounds.linear import (
    interval_lower_bounds,
    linear_lower_bounds,
    preactivation_bounds,
)
from tasks.core.bounds.rounding import HUGE
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.ladder import decide
from tasks.core.verdicts import Engine, Verdict

ENGINES = get_args(Engine)
WIDTHS = [1, 15]  # inputs: they are split, or phases are


def padded(first: FloatArray, inputs: int) -> FloatArray:
    """One row, its first weights given, the others zero."""
    return np.pad(first, (0, inputs - len(first)))[None]


def chord(inputs: int) -> tuple[ReluNetwork, Box]:
    """z = 1.5e308 x, y = 1 - 1e-300 relu(z), x in [-1, 1]: y falls to 1 - 1.5e8.

    `upper - lower` is infinite, and upper / infinity a chord of slope 0.
    """
    network = ReluNetwork(
        (
            Affine(padded(np.array([1.5e308]), inputs), np.zeros(1)),
            Affine(np.array([[-1e-300]]), np.ones(1)),
        )
    )
    return network, Box(np.full((1, inputs), -1.0), np.ones((1, inputs)))


def center(inputs: int) -> tuple[ReluNetwork, Box]:
    """y = x - 1.5e308 over [1e308, 1.7e308], whose ends' sum is infinite: y falls to -0.5e308."""
    network = ReluNetwork((Affine(padded(np.ones(1), inputs), np.array([-1.5e308])),))
    lower, upper = np.zeros((1, inputs)), np.ones((1, inputs))
    lower[0, 0], upper[0, 0] = 1e308, 1.7e308
    return network, Box(lower, upper)


def product(inputs: int) -> tuple[ReluNetwork, Box]:
    """y = 1e200 (1e200 x) - … of values within float64 whose coefficients' product is not."""
    network = ReluNetwork(
        (
            Affine(padded(np.array([1e160]), inputs), np.zeros(1)),
            Affine(np.array([[1e160]]), np.array([-1e149])),
        )
    )
    return network, Box(np.full((1, inputs), 0.0), np.full((1, inputs), 1e-20))


@pytest.mark.parametrize("inputs", WIDTHS)
@pytest.mark.parametrize("case", [chord, center, product])
def test_overflow_proves_nothing(case: type, inputs: int) -> None:
    """Each has a point at which y <= 0."""
    network, ball = case(inputs)
    region = UnsafeRegion(ball, np.ones((1, 1)), np.zeros(1))
    for engine in ENGINES:
        answer = decide(network, Property((region,)), engine=engine, timeout_seconds=1)
        assert answer.verdict is not Verdict.ROBUST
    for method in ("interval", "crown"):
        hidden = preactivation_bounds(network, ball, method)
        assert not interval_lower_bounds(network, region.rows, hidden, ball)[0, 0] > 0
        last = len(network.layers) - 1
        assert not linear_lower_bounds(network, last, region.rows, hidden, ball)[0, 0] > 0


@pytest.mark.parametrize("inputs", [3, 100])
def test_underflow_proves_nothing(inputs: int) -> None:
    """y = 2^-1074 - sum of 2^-1074 x_i over [0, 0.49]: every product rounds to zero."""
    tiny = 2.0**-1074
    network = ReluNetwork((Affine(np.full((1, inputs), -tiny), np.array([tiny])),))
    ball = Box(np.zeros((1, inputs)), np.full((1, inputs), 0.49 if inputs > 3 else 0.4))
    least = Fraction(tiny) - inputs * Fraction(tiny) * Fraction(float(ball.upper[0, 0]))
    assert least < 0
    region = UnsafeRegion(ball, np.ones((1, 1)), np.zeros(1))
    for engine in ENGINES:
        answer = decide(network, Property((region,)), engine=engine, timeout_seconds=1)
        assert answer.verdict is not Verdict.ROBUST


def test_the_kernel_has_the_numbers_of_the_bounds() -> None:
    for name in ("HUGE", "UNDERFLOW", "UNIT_ROUNDOFF"):
        assert getattr(box_kernel, name) == getattr(rounding, name)


@pytest.mark.parametrize("scale", [1e-140, 1e-12, 1.0, 1e12, 1e140])
def test_proofs_hold_at_every_scale_within(scale: float) -> None:
    """What is given up is nothing beside outputs of any scale that a network may have."""
    weights = (np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([[1.0, -0.25]]))
    network = ReluNetwork(
        (Affine(weights[0], np.zeros(2)), Affine(scale * weights[1], np.array([scale])))
    )
    ball = Box(np.zeros((1, 2)), np.ones((1, 2)))
    region = UnsafeRegion(ball, np.ones((1, 1)), np.zeros(1))
    assert scale < HUGE
    for engine in ("ladder", "bounds"):
        answer = decide(network, Property((region,)), engine=engine, timeout_seconds=5)
        assert answer.verdict is Verdict.ROBUST
