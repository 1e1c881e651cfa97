"""Lines hold over the reals, touch, and prove nothing where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.bounds.curve_lines import (
    LAST,
    greatest_slope,
    least_height,
    middle_slopes,
    reach,
    slope_ranges,
    table,
    value_bounds,
)
from tasks.core.bounds.products import Planes, product_bounds, product_reach
from tasks.core.bounds.relaxations import Bounds
from tasks.core.networks.curves import CURVES, Kind

KINDS = list(CURVES)


def intervals(kind: int, count: int, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Of widths from 0 and 1e-12 to a hundred, in the domain."""
    generator = np.random.default_rng(seed)
    curve = CURVES[kind]
    center = generator.normal(size=count) * 10.0 ** generator.uniform(-3, 1.2, size=count)
    width = 10.0 ** generator.uniform(-12, 2, size=count)
    width[:3] = 0
    lower, upper = center - width, center + width
    if curve.has_pole or curve.domain[0] >= 0:
        lower, upper = np.abs(center) + 1e-6, np.abs(center) + 1e-6 + width
    if kind == Kind.EXP:
        lower, upper = np.clip(lower, -300, 300), np.clip(upper, -300, 300)
    return lower, upper


def dense(lower: FloatArray, upper: FloatArray, kind: int) -> tuple[FloatArray, FloatArray]:
    """Points of each interval, its breaks among them, and values whose errors are known."""
    shares = np.concatenate([np.linspace(0, 1, 301), np.random.default_rng(5).random(60)])
    points = lower[:, None] + (upper - lower)[:, None] * shares
    points = np.concatenate(
        [points, *(edge[:, None] for edge in CURVES[kind].edges(lower, upper)[0])], axis=1
    )
    points = np.clip(points, lower[:, None], upper[:, None])
    return points, CURVES[kind].value(points)


def violation(
    kind: int, slope: FloatArray, height: FloatArray, side: int, *box: FloatArray
) -> float:
    """How far the line is on the wrong side anywhere, beyond what float64 says of f itself.

    The line's own sum is exact enough in extended precision.
    """
    points, values = dense(*box, kind)
    exact = values.astype(np.longdouble) - slope[:, None].astype(np.longdouble) * points
    beyond = height[:, None] - side * exact - CURVES[kind].error(points, values)
    return float(beyond.max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [1, -1])
def test_lines_of_any_slope_hold(kind: int, side: int) -> None:
    lower, upper = intervals(kind, 400)
    curve = CURVES[kind]
    points, values = table(curve, lower, upper)
    start, end = slope_ranges(curve, lower, upper, points, values, side)
    generator = np.random.default_rng(2)
    wild = generator.normal(size=len(lower)) * greatest_slope(curve, lower, upper)
    slopes = [
        middle_slopes(curve, lower, upper, side),
        start,
        end,
        (start + end) / 2,
        0 * start,
        wild,
    ]
    for slope in slopes:
        height = least_height(curve, lower, upper, slope, side)
        assert np.isfinite(height).all()
        assert violation(kind, slope, height, side, lower, upper) <= 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [1, -1])
def test_lines_touch(kind: int, side: int) -> None:
    """Heights are no lower than the function needs, up to rounding and the grid of samples."""
    lower, upper = intervals(kind, 300, seed=3)
    some = upper - lower < 10
    lower, upper = lower[some], upper[some]
    slope = middle_slopes(CURVES[kind], lower, upper, side)
    height = least_height(CURVES[kind], lower, upper, slope, side)
    points, values = dense(lower, upper, kind)
    gap = (side * (values - slope[:, None] * points)).min(axis=1) - height
    span = np.ptp(values, axis=1) + np.abs(slope) * (upper - lower)
    size = np.abs(values).max(axis=1) + np.abs(slope) * np.abs(points).max(axis=1) + 1
    jump = 1e-3 if kind == Kind.SIGN else 0  # beside which no sample lies
    assert (gap <= 2e-3 * span + 1e-11 * size + jump).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_line_in_the_middle_encloses_less_than_its_neighbours(kind: int) -> None:
    lower, upper = intervals(kind, 300, seed=4)
    some = (upper - lower < 20) & (upper - lower > 1e-3)
    lower, upper = lower[some], upper[some]
    middle = (lower + upper) / 2
    for side in (1, -1):
        slope = middle_slopes(CURVES[kind], lower, upper, side)
        best = side * slope * middle + least_height(CURVES[kind], lower, upper, slope, side)
        size = np.abs(best) + np.abs(slope * middle) + 1
        for change in (-0.02, 0.02):
            other = slope * (1 + change) + change * 1e-2
            height = least_height(CURVES[kind], lower, upper, other, side)
            assert (side * other * middle + height <= best + 0.02 * size).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if CURVES[kind].touching])
def test_an_s_has_each_slope_where_it_is_said_to_have_it(kind: int) -> None:
    curve = CURVES[kind]
    touching = curve.touching
    assert touching is not None
    x = np.concatenate([[0.0], 10.0 ** np.linspace(-3, 0.7, 200)])
    with np.errstate(all="ignore"):
        found = touching(curve.slope(x))
        beyond = touching(np.array([1.01, 100.0]) * curve.slope(np.zeros(1)))
        nowhere = touching(np.array([0.0, -1.0]))
    # the slope hardly moves near its greatest value, and is all that a line needs
    assert np.allclose(curve.slope(found), curve.slope(x), rtol=1e-12, atol=1e-14)
    assert np.allclose(found[x > 0.1], x[x > 0.1], rtol=1e-6)
    assert (beyond == 0).all()
    assert (nowhere == np.inf).all()
    assert np.array_equal(curve.slope(-x), curve.slope(x))


@pytest.mark.parametrize("kind", KINDS)
def test_values_lie_in_their_bounds_and_bounds_are_near(kind: int) -> None:
    lower, upper = intervals(kind, 400, seed=6)
    low, high = value_bounds(CURVES[kind], lower, upper)
    points, values = dense(lower, upper, kind)
    error = CURVES[kind].error(points, values)
    assert (values + error >= low[:, None]).all()
    assert (values - error <= high[:, None]).all()
    near = 1e-3 * np.ptp(values, axis=1) + 1e-11 * (
        np.abs(values).max(axis=1) + np.abs(points).max(axis=1) + 1
    )
    if kind != Kind.SIGN:
        some = upper - lower < 10
        assert (values.min(axis=1) - low <= near)[some].all()
        assert (high - values.max(axis=1) <= near)[some].all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_part_of_an_interval_reaches_farther(kind: int) -> None:
    lower, upper = intervals(kind, 300, seed=7)
    generator = np.random.default_rng(8)
    ends = np.sort(generator.random((2, len(lower))), axis=0)
    low, high = lower + ends[0] * (upper - lower), lower + ends[1] * (upper - lower)
    high = np.minimum(high, upper)
    whole = reach(CURVES[kind], lower, upper)
    assert (reach(CURVES[kind], low, high) <= whole * (1 + 2.0**-19)).all()
    for side in (1, -1):
        slope = middle_slopes(CURVES[kind], low, high, side)
        slope = np.clip(
            slope, *(sign * greatest_slope(CURVES[kind], low, high) for sign in (-1, 1))
        )
        height = least_height(CURVES[kind], low, high, slope, side)
        assert (
            np.abs(slope) * np.maximum(np.abs(low), np.abs(high)) + np.abs(height) <= whole
        ).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_known_is_not_proved(kind: int) -> None:
    curve, nan, inf = CURVES[kind], np.nan, np.inf
    lower, upper = np.array([nan, 1.0, nan, 2.0]), np.array([1.0, nan, nan, 1.0])
    zero = np.zeros(4)
    for side in (1, -1):
        assert (least_height(curve, lower, upper, zero, side) == -inf).all()
        one = np.ones(1)
        for slope in (nan, inf):
            assert least_height(curve, one, 2 * one, slope * one, side)[0] == -inf
    if curve.has_pole or curve.domain[0] >= 0:
        for low, high in ((-1.0, 1.0), (-1.0, 0.0)):
            box = np.array([low]), np.array([high])
            assert least_height(curve, *box, zero[:1], 1)[0] == -inf
            assert value_bounds(curve, *box) == (-inf, inf)


@pytest.mark.parametrize("kind", [Kind.SIGMOID, Kind.TANH, Kind.ERF, Kind.SIN, Kind.COS, Kind.SIGN])
def test_huge_and_infinite_intervals_have_the_range(kind: int) -> None:
    curve = CURVES[kind]
    for size in (1e9, 1e100, np.inf):
        box = np.array([-size]), np.array([size])
        assert value_bounds(curve, *box) == (curve.lowest, curve.highest)
        slope = np.zeros(1)
        assert least_height(curve, *box, slope, 1)[0] in (curve.lowest, -np.inf)


def test_products_hold_and_are_exact_where_a_factor_is_fixed() -> None:
    generator = np.random.default_rng(0)
    center = generator.normal(size=(300, 2)) * 10.0 ** generator.uniform(-3, 3, size=(300, 1))
    radius = generator.random((300, 2)) * 10.0 ** generator.uniform(-6, 2, size=(300, 1))
    radius[:100, 1] = 0
    bounds = Bounds(center - radius, center + radius)
    factors = [(bounds.lower[:, at], bounds.upper[:, at]) for at in ([0], [1])]
    low, high = product_bounds(*factors)
    most = product_reach(*factors)
    corners = generator.random((300, 500, 2))
    corners[:, :200] = corners[:, :200].round()
    points = bounds.lower[:, None] + corners * (bounds.upper - bounds.lower)[:, None]
    points = np.clip(points, bounds.lower[:, None], bounds.upper[:, None]).astype(np.longdouble)
    exact = points[..., 0] * points[..., 1]
    assert (exact >= low).all()
    assert (exact <= high).all()
    for side in (1, -1):
        for share in (0.0, 0.3, 1.0, 7.0):
            plane = Planes.of(*factors, np.full((300, 1), share), side)
            slopes = [np.abs(part) for part in (plane.own, plane.partner)]
            size = slopes[0] * bounds.magnitude[:, :1] + slopes[1] * bounds.magnitude[:, 1:]
            assert (size + np.abs(plane.height) <= most).all()
            line = plane.own * points[..., 0] + plane.partner * points[..., 1] + plane.height
            assert (side * (exact - line) >= 0).all()
            gap = np.abs(exact - line)[:100].max(axis=1)
            assert (gap <= 1e-12 * size[:100, 0]).all()


def test_tables_begin_and_end_at_the_ends() -> None:
    lower, upper = intervals(Kind.TANH, 50)
    points, values = table(CURVES[Kind.TANH], lower, upper)
    assert (points[:, 0] == lower).all()
    assert (points[:, LAST] == upper).all()
    assert (values == np.tanh(points)).all()
