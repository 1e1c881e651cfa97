"""Bounds are sound: against hand computation, an exact oracle, corners and samples."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.bounds.linear import (
    Method,
    certified,
    interval_lower_bounds,
    linear_lower_bounds,
    margin_lower_bounds,
    preactivation_bounds,
)
from tasks.core.bounds.relaxations import Bounds, Relaxation
from tasks.core.networks.activation import Activation
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import margin_rows
from tests.networks import (
    ball_around,
    box,
    hand_computed,
    random_case,
    random_network,
    sampled_points,
)
from tests.oracle import least_margin

METHODS: tuple[Method, ...] = ("interval", "crown")


def lower_margins(network: ReluNetwork, ball: Box, labels: list[int], method: Method) -> FloatArray:
    hidden = preactivation_bounds(network, ball, method)
    return margin_lower_bounds(network, ball, labels, hidden)


def test_hand_computed_preactivations() -> None:
    ball = box([0.0, 0.0], [1.0, 0.5])
    (bounds,) = preactivation_bounds(hand_computed(), ball, "crown")
    np.testing.assert_allclose(bounds.lower, [[0.0, -0.5]], atol=1e-12)
    np.testing.assert_allclose(bounds.upper, [[1.5, 1.0]], atol=1e-12)


def test_hand_computed_margin() -> None:
    """y0 - y1 = h1 + 1 - h2; h1 = x1 + x2 is active, h2 <= (2/3)(x1 - x2) + 1/3 by its chord.

    So the margin is at least x1/3 + 5 x2/3 + 2/3, which is 2/3 at the origin; the interval bound
    is 0 + 1 - 1 = 0.
    """
    network, ball = hand_computed(), box([0.0, 0.0], [1.0, 0.5])
    np.testing.assert_allclose(lower_margins(network, ball, [0], "crown"), [[2 / 3]], atol=1e-12)


@pytest.mark.parametrize(
    ("lower", "upper"), [(-1.0, 2.0), (-2.0, 1.0), (0.0, 1.0), (-1.0, 0.0), (0.5, 2.0), (0.0, 0.0)]
)
def test_relaxation_lines_enclose_relu(lower: float, upper: float) -> None:
    bounds = Bounds(np.array([[lower]]), np.array([[upper]]))
    relaxation = Relaxation.of(bounds, Activation.of_relus(np.array([False])))
    z = np.linspace(lower, upper, 101)
    relu = np.maximum(z, 0)
    chord = relaxation.upper_slope[0] * z + relaxation.upper_intercept[0]
    assert (relaxation.lower_slope[0] * z <= relu).all()
    assert (chord >= relu - 1e-15).all()
    # the upper line is the chord: it touches relu at both ends
    np.testing.assert_allclose(chord[[0, -1]], relu[[0, -1]], atol=1e-15)


@pytest.mark.parametrize(("lower", "upper"), [(np.nan, 1.0), (-1.0, np.nan), (np.nan, np.nan)])
def test_a_bound_that_is_nan_proves_nothing(lower: float, upper: float) -> None:
    """A unit of which nothing is known must not be taken for one that is always off."""
    network, ball = hand_computed(), box([0.0, 0.0], [1.0, 0.5])
    hidden = [Bounds(np.array([[lower, -0.5]]), np.array([[upper, 1.0]]))]
    relaxation = Relaxation.of(hidden[0], network.activations[0])
    assert np.isnan(relaxation.upper_slope[0, 0])
    with np.errstate(invalid="ignore"):
        assert not (margin_lower_bounds(network, ball, [0], hidden) > 0).any()


@pytest.mark.parametrize("method", METHODS)
def test_never_above_the_exact_least_margin(method: Method) -> None:
    generator = np.random.default_rng(1)
    tight = 0
    for _ in range(60):
        network, center, label, epsilon = random_case(generator)
        ball = ball_around(center[None], epsilon)
        bound = lower_margins(network, ball, [label], method).min()
        exact = least_margin(network, ball, label)
        assert bound <= exact + 1e-7  # HiGHS's feasibility tolerance
        tight += bound > exact - 1e-6
    assert tight > 0  # on some balls nothing is unstable, and the bound is exact


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("widths", [(6, 10, 4), (6, 9, 9, 4), (5, 8, 8, 8, 3)])
def test_hold_at_corners_and_samples(method: Method, widths: tuple[int, ...]) -> None:
    generator = np.random.default_rng(sum(widths))
    network = random_network(generator, widths)
    centers = generator.random((7, widths[0]))
    ball = ball_around(centers, 0.1)
    labels = network(centers).argmax(axis=1)
    hidden = preactivation_bounds(network, ball, method)
    lower = margin_lower_bounds(network, ball, labels, hidden)
    for row in range(len(centers)):
        points = sampled_points(generator, ball, 400, row)
        values = network.preactivations(points)
        for bounds, preactivation in zip(hidden, values, strict=False):
            assert (preactivation >= bounds.lower[row]).all()
            assert (preactivation <= bounds.upper[row]).all()
        margins = values[-1] @ margin_rows(labels, widths[-1])[row].T
        assert (margins >= lower[row]).all()


@pytest.mark.parametrize("method", METHODS)
def test_point_ball_gives_the_forward_pass(method: Method) -> None:
    generator = np.random.default_rng(2)
    network = random_network(generator, (4, 7, 7, 3))
    center = generator.random((1, 4))
    logits = network(center)[0]
    bound = lower_margins(network, Box(center, center), [1], method)[0]
    np.testing.assert_allclose(bound, [logits[1] - logits[0], logits[1] - logits[2]], atol=1e-12)
    assert (bound <= [logits[1] - logits[0], logits[1] - logits[2]]).all()


def test_crown_is_never_looser_than_intervals() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        network, center, _label, epsilon = random_case(generator)
        ball = ball_around(center[None], epsilon)
        interval = preactivation_bounds(network, ball, "interval")
        crown = preactivation_bounds(network, ball, "crown")
        for loose, tight in zip(interval, crown, strict=True):
            # Both are steps of intervals from boxes, whose ends are rounded.
            assert (tight.lower >= loose.lower - 1e-12).all()
            assert (tight.upper <= loose.upper + 1e-12).all()


def test_rounding_never_lifts_a_bound_above_the_exact_value() -> None:
    """Against exact rational arithmetic, where rounding is as large as the answer.

    The margin is 1e-16-sized by cancellation; a bound without outward rounding would be wrong in
    about half of the cases.
    """
    generator = np.random.default_rng(4)
    for _ in range(50):
        weight = generator.normal(size=(1, 30))
        first = Affine(np.vstack([weight, weight]) * [[1.0], [1 + 2**-52]], np.array([5.0, 5.0]))
        network = ReluNetwork((first, Affine(np.eye(2), np.zeros(2))))
        point = generator.random(30)
        hidden = [
            sum(Fraction(w) * Fraction(x) for w, x in zip(row, point, strict=True)) + 5
            for row in first.weight
        ]
        exact = max(hidden[0], 0) - max(hidden[1], 0)
        bound = lower_margins(network, Box(point[None], point[None]), [0], "crown")[0, 0]
        assert Fraction(float(bound)) <= exact


def test_batches_are_split_without_changing_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    network = random_network(generator, (6, 9, 9, 4))
    ball = ball_around(generator.random((11, 6)), 0.1)
    hidden = preactivation_bounds(network, ball, "crown")
    rows = np.eye(4)
    whole = linear_lower_bounds(network, 2, rows, hidden, ball)
    monkeypatch.setattr("tasks.core.bounds.linear.CHUNK_BYTES", 800)
    np.testing.assert_allclose(linear_lower_bounds(network, 2, rows, hidden, ball), whole)


def test_certified_is_what_any_bound_proves_and_no_more() -> None:
    """A batch of balls: each proof is right by the oracle, and none that a bound gives is lost."""
    generator = np.random.default_rng(5)
    proved = {"interval": 0, "crown-ibp": 0, "crown": 0, "none": 0}
    for _ in range(16):
        network = random_network(generator, (4, 8, 8, 6, 3))
        centers = generator.uniform(0.2, 0.8, (12, 4))
        labels = network(centers).argmax(axis=1)
        ball = ball_around(centers, 0.05)
        found = certified(network, ball, labels)
        hidden = preactivation_bounds(network, ball, "interval")
        rows = margin_rows(labels, 3)
        interval = (interval_lower_bounds(network, rows, hidden, ball) > 0).all(axis=1)
        mixed = (margin_lower_bounds(network, ball, labels, hidden) > 0).all(axis=1)
        crown = (lower_margins(network, ball, labels.tolist(), "crown") > 0).all(axis=1)
        np.testing.assert_array_equal(found, interval | mixed | crown)
        for row in np.flatnonzero(found):
            assert least_margin(network, ball[row : row + 1], int(labels[row])) > 0
        proved["interval"] += int(interval.sum())
        proved["crown-ibp"] += int((mixed & ~interval).sum())
        proved["crown"] += int((crown & ~mixed & ~interval).sum())
        proved["none"] += int((~found).sum())
    assert min(proved.values()) >= 3
