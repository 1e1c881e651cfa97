"""Curves against numbers of fifty digits: their values, slopes, errors, and how they bend."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, getcontext

import numpy as np
import pytest

from tasks.core.networks.curves import CURVES, GELU_CUBIC, Curve, Kind

getcontext().prec = 60
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
Real = Callable[[Decimal], Decimal]


def sigmoid(x: Decimal) -> Decimal:
    return 1 / (1 + (-x).exp()) if x > 0 else x.exp() / (1 + x.exp())


def series(x: Decimal, first: Decimal, step: Callable[[int], Decimal]) -> Decimal:
    """first + first * step(1) + first * step(1) * step(2) + ..."""
    total, term, number = Decimal(0), first, 1
    while abs(term) > Decimal(10) ** -75 or number < 5:
        total, term, number = total + term, term * step(number), number + 1
    return total


def erf(x: Decimal) -> Decimal:
    """Its series of positive terms, exp(-x^2) times sums of 2^n x^(2n+1) / (2n + 1)!!."""
    if abs(x) > 12:
        return Decimal(1).copy_sign(x)
    total = series(x, x, lambda n: 2 * x * x / (2 * n + 1))
    return 2 / PI.sqrt() * (-x * x).exp() * total


def sine(x: Decimal) -> Decimal:
    with_period = x.remainder_near(2 * PI)
    square = with_period * with_period
    return series(x, with_period, lambda n: -square / ((2 * n) * (2 * n + 1)))


def gelu_tanh(x: Decimal) -> Decimal:
    return x * sigmoid(2 * (2 / PI).sqrt() * (x + Decimal(GELU_CUBIC) * x**3))


def sign(x: Decimal) -> Decimal:
    return Decimal(0) if x == 0 else Decimal(1).copy_sign(x)


REAL: dict[Kind, Real] = {
    Kind.SIGMOID: sigmoid,
    Kind.TANH: lambda x: 2 * sigmoid(2 * x) - 1,
    Kind.ERF: erf,
    Kind.SOFTPLUS: lambda x: max(x, Decimal(0)) + (1 + (-abs(x)).exp()).ln(),
    Kind.ELU: lambda x: x if x > 0 else x.exp() - 1,
    Kind.GELU: lambda x: x * (1 + erf(x / Decimal(2).sqrt())) / 2,
    Kind.GELU_TANH: gelu_tanh,
    Kind.SILU: lambda x: x * sigmoid(x),
    Kind.HARD_SWISH: lambda x: x * max(Decimal(0), min(Decimal(6), x + 3)) / 6,
    Kind.EXP: lambda x: x.exp(),
    Kind.LOG: lambda x: x.ln(),
    Kind.SQRT: lambda x: x.sqrt(),
    Kind.RECIPROCAL: lambda x: 1 / x,
    Kind.SQUARE: lambda x: x * x,
    Kind.CUBE: lambda x: x**3,
    Kind.SIN: sine,
    Kind.COS: lambda x: sine(x + PI / 2),
    Kind.SIGN: sign,
}


def arguments(curve: Curve, count: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    x = generator.choice([-1, 1], count) * 10.0 ** generator.uniform(-6, 1.5, count)
    if curve.is_defined(x[:1] * 0 - 1, x[:1] * 0 - 0.5)[0]:
        return np.concatenate([x, [0.0]]) if not curve.has_pole else x
    return np.abs(x)


def test_every_curve_is_known() -> None:
    assert REAL.keys() == CURVES.keys() == set(Kind) - {Kind.RELU, Kind.PRODUCT}


@pytest.mark.parametrize("kind", REAL)
def test_values_err_by_less_than_is_said(kind: Kind) -> None:
    curve = CURVES[kind]
    x = arguments(curve, 60)
    value = curve.value(x)
    error = curve.error(x, value)
    for at, found, allowed in zip(x.tolist(), value.tolist(), error.tolist(), strict=True):
        off = abs(Decimal(found) - REAL[kind](Decimal(at)))
        assert off * 8 <= Decimal(allowed), at  # with room to spare: other builds of NumPy differ
        assert allowed <= 1e-12 * (1 + abs(at) + abs(found))


@pytest.mark.parametrize("kind", sorted(REAL.keys() - {Kind.SIGN}))
def test_slopes_err_by_less_than_is_said(kind: Kind) -> None:
    """Against differences of fifty digits; not at kinks."""
    curve, step = CURVES[kind], Decimal(10) ** -20
    x = arguments(curve, 40)
    x = x[x != 0]
    slope = curve.slope(x)
    allowed = curve.slope_error(slope)
    for at, found, most in zip(x.tolist(), slope.tolist(), allowed.tolist(), strict=True):
        real = REAL[kind]
        ends = real(Decimal(at) + step) - real(Decimal(at) - step)
        assert abs(Decimal(found) - ends / (2 * step)) * 4 <= Decimal(most), at


@pytest.mark.parametrize("kind", sorted(REAL.keys() - {Kind.SIGN}))
def test_slopes_rise_where_it_is_convex_and_fall_where_it_is_concave(kind: Kind) -> None:
    """Shapes as geometry: within each piece slopes are monotone, and pieces tile the interval."""
    curve = CURVES[kind]
    generator = np.random.default_rng(1)
    for _ in range(40):
        lower = float(generator.choice([1.0, 0.05])) * generator.normal(size=1) * 8
        upper = lower + 10.0 ** generator.uniform(-3, 1, size=1)
        if not curve.is_defined(lower, upper)[0]:
            lower, upper = abs(lower), abs(lower) + (upper - lower)
        edges, convex = curve.edges(lower, upper)
        assert edges[0] == lower
        assert edges[-1] == upper
        assert (np.diff(np.concatenate(edges)) >= 0).all()
        for start, end, is_convex in zip(edges[:-1], edges[1:], convex, strict=True):
            inside = np.linspace(start[0], end[0], 203)[1:-1]
            rises = np.diff(curve.slope(inside)) * (1 if is_convex[0] else -1)
            assert (rises >= -1e-13 * (1 + np.abs(curve.slope(inside[1:])))).all()
        steepest = curve.steepest(lower, upper)
        values = curve.slope(np.linspace(lower[0], upper[0], 301))
        assert np.abs(values).max() <= steepest[0] * (1 + 1e-12)


@pytest.mark.parametrize("kind", [Kind.GELU, Kind.GELU_TANH, Kind.SILU])
def test_breaks_are_where_the_bend_changes(kind: Kind) -> None:
    """By second differences of sixty digits on either side of the nearest float64 numbers."""
    curve, step = CURVES[kind], Decimal(10) ** -17

    def bend(x: Decimal) -> Decimal:
        real = REAL[kind]
        return real(x + step) - 2 * real(x) + real(x - step)

    for point, before in zip(curve.breaks, (-1, 1), strict=True):
        near, far = Decimal(point), Decimal(10) ** -14
        assert bend(near - far).copy_sign(1) * before == bend(near - far)
        assert bend(near + far).copy_sign(1) * -before == bend(near + far)


@pytest.mark.parametrize("kind", REAL)
def test_ranges_hold_and_monotone_curves_are(kind: Kind) -> None:
    curve = CURVES[kind]
    x = np.sort(arguments(curve, 3000))
    value = curve.value(x)
    assert (value >= curve.lowest).all()
    assert (value <= curve.highest).all()
    if curve.monotone:
        parts = [value[x > 0]] if curve.has_pole else [value]
        assert all((np.diff(part) * curve.monotone >= 0).all() for part in parts)
