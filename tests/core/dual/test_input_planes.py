"""Planes over the inputs: above the ReLU at every corner, and the chord where slopes agree."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from tasks.core.bounds.linear import interval_step
from tasks.core.bounds.relaxations import Relaxation
from tasks.core.dual import input_planes
from tasks.core.dual.input_planes import InputPlanes, Spans
from tasks.core.networks.activation import Activation
from tasks.core.networks.matrices import DenseMatrix
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tests.networks import box


@pytest.fixture(params=["along inputs", "along the batch"], autouse=True)
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_planes, "LONG", 0 if request.param == "along inputs" else 10**9)


def random_layer(generator: np.random.Generator) -> tuple[Affine, Box]:
    """Five units on six inputs, some weights 0 as in a convolution's window, one input fixed."""
    weight = generator.normal(size=(5, 6))
    weight[1, :2] = weight[2, 4:] = 0
    weight[3] = 0
    center, radius = generator.normal(size=(1, 6)), generator.uniform(0.1, 1, size=(1, 6))
    radius[0, 5] = 0
    return Affine(weight, generator.normal(size=5)), Box(center - radius, center + radius)


def planes_of(layer: Affine, ball: Box, kind: type[np.floating]) -> InputPlanes:
    return InputPlanes(layer, Spans.of(layer.matrix), ball, kind)


@pytest.mark.parametrize("seed", range(10))
def test_a_plane_is_above_the_relu_and_touches_it(seed: int) -> None:
    """The gap is concave over the box, so its corners decide; they are computed in fractions."""
    generator = np.random.default_rng(seed)
    layer, ball = random_layer(generator)
    levels, tilts = generator.normal(0.5, 1, size=(5, 1)), generator.normal(0, 1, size=(6, 1))
    planes = planes_of(layer, ball, np.float64)
    corners = list(itertools.product(*zip(ball.lower[0], ball.upper[0], strict=True)))
    for unit in range(5):
        found = planes.weighted(-np.eye(5)[:, [unit]], levels, tilts)
        weights = [Fraction(w) for w in layer.weight[unit]]
        slopes = [Fraction(-row) for row in found.rows[:, 0]]
        top = Fraction(-found.constants[0])
        gaps = []
        for corner in corners:
            x = [Fraction(value) for value in corner]
            z = sum((w * v for w, v in zip(weights, x, strict=True)), Fraction(layer.bias[unit]))
            plane = sum((s * v for s, v in zip(slopes, x, strict=True)), top)
            gaps.append(plane - max(z, 0))
        assert min(gaps) >= -Fraction(1, 10**13)
        assert min(gaps) <= Fraction(1, 10**13)
        share = [s / w for s, w in zip(slopes, weights, strict=True) if w]
        assert all(0 <= s <= 1 + Fraction(1, 10**15) for s in share)


def test_equal_slopes_give_the_chord() -> None:
    layer, ball = random_layer(np.random.default_rng(3))
    bounds = interval_step(ReluNetwork((layer,)), 0, [], ball)
    chord = Relaxation.of(bounds, Activation.of_relus(np.zeros(5, dtype=bool)))
    found = planes_of(layer, ball, np.float64).weighted(
        -np.ones((5, 1)), chord.upper_slope.T, np.zeros((6, 1))
    )
    unstable = bounds.unstable(Activation.of_relus(np.zeros(5, dtype=bool)))[0]
    assert unstable.sum() >= 2
    slope, intercept = chord.upper_slope[0], chord.upper_intercept[0]
    expected = slope * layer.bias + intercept  # of units that are on or off as well
    np.testing.assert_allclose(-found.rows[:, 0], slope @ layer.weight, atol=1e-12)
    np.testing.assert_allclose(-found.constants[0], expected.sum(), atol=1e-12)


def test_a_plane_that_no_chord_gives() -> None:
    """By hand: relu(x + y) <= x + 1 on [-1, 1]^2, from slopes 1 for x and 0 for y."""
    layer, ball = Affine(np.array([[1.0, 1.0]]), np.zeros(1)), box([-1.0, -1.0], [1.0, 1.0])
    planes = planes_of(layer, ball, np.float64)
    found = planes.weighted(-np.ones((1, 1)), np.ones((1, 1)), np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(found.rows, [[-1.0], [0.0]])
    np.testing.assert_allclose(found.constants, [-1.0])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_values_are_those_of_the_weighted_planes(kind: type[np.floating]) -> None:
    generator = np.random.default_rng(0)
    layer, ball = random_layer(generator)
    planes = planes_of(layer, ball, kind)
    coefficients = -generator.uniform(0.1, 1, size=(5, 3)).astype(kind)
    coefficients[2] = coefficients[3, 1] = 0
    levels = generator.normal(0.5, 0.5, size=(5, 3)).astype(kind)
    tilts = generator.normal(0, 0.5, size=(6, 3)).astype(kind)
    points = generator.uniform(ball.lower, ball.upper, size=(3, 6)).T.astype(kind)
    found = planes.weighted(coefficients, levels, tilts)
    values = planes.values(found, levels, tilts, points)
    expected = (found.rows * points).sum(axis=0) + found.constants
    np.testing.assert_allclose((coefficients * values).sum(axis=0), expected, rtol=1e-4)
    assert (values[coefficients == 0] == 0).all()
    some = np.array([2, 0])
    again = planes.weighted(coefficients[:, some], levels[:, some], tilts[:, some])
    np.testing.assert_allclose(again.rows, found.rows[:, some], rtol=1e-6)


def test_each_subproblem_may_have_its_own_box() -> None:
    generator = np.random.default_rng(0)
    layer, ball = random_layer(generator)
    balls = Box(np.repeat(ball.lower, 3, axis=0), np.repeat(ball.upper, 3, axis=0))
    balls.upper[1] += 0.5
    given = [-generator.uniform(0.1, 1, size=(5, 3)), *generator.normal(0.5, 1, size=(1, 5, 3))]
    tilts = generator.normal(size=(6, 3))
    found = planes_of(layer, balls, np.float64).weighted(*given, tilts)
    for each in range(3):
        one, at = Box(balls.lower[[each]], balls.upper[[each]]), np.array([each])
        for planes in (
            planes_of(layer, one, np.float64),
            planes_of(layer, balls, np.float64).at(at),
        ):
            alone = planes.weighted(*(part[:, at] for part in given), tilts[:, at])
            np.testing.assert_allclose(alone.rows, found.rows[:, at], rtol=1e-9)
            np.testing.assert_allclose(alone.constants, found.constants[at], rtol=1e-9)


def test_large_layers_are_left_to_chords() -> None:
    assert Spans.of(DenseMatrix(np.ones((256, 784)))).pay
    assert not Spans.of(DenseMatrix(np.ones((4096, 784)))).pay
    window = np.zeros((4096, 784))
    window[:, 300:400] = 1  # what lies outside a unit's span does not count
    assert Spans.of(DenseMatrix(window)).pay


def test_a_plane_of_numbers_too_great_has_no_finite_top() -> None:
    """The centre's value is inf - inf, or inf where products and sums are fused; it stays so."""
    layer = Affine(np.array([[1e300, -1e300]]), np.zeros(1))
    ball = box([1e10, 1e10], [1e10, 1e10])
    with np.errstate(over="ignore", invalid="ignore"):
        planes = planes_of(layer, ball, np.float64)
        found = planes.weighted(-np.ones((1, 1)), np.full((1, 1), 0.5), np.zeros((2, 1)))
    assert not np.isfinite(planes.peaks).any()
    assert not np.isfinite(found.tops).any()
    assert not (found.constants > -np.inf).any()
