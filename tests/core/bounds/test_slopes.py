"""Slopes: exact where no phase is open, never above what is found, exact in rational arithmetic."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.bounds.rounding import HUGE
from tasks.core.bounds.slopes import slope_bounds
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tests.networks import KINDS, Kind, box, hand_computed, random_network, random_network_of

ROW = np.array([1.0, -1.0])


def random_boxes(generator: np.random.Generator, inputs: int, count: int) -> Box:
    """Of widths from nothing to 2."""
    center = generator.uniform(-1, 1, (count, inputs))
    radius = generator.random((count, inputs)) * generator.choice([0, 0.1, 1], (count, 1))
    return Box(center - radius, center + radius)


@pytest.mark.parametrize(
    ("lower", "upper", "column", "slope"),
    [
        ([1.0, 0.0], [2.0, 0.5], 0, 0.0),  # both units are active: y0 - y1 = 2 x2 + 1
        ([1.0, 0.0], [2.0, 0.5], 1, 2.0),
        ([-1.0, -1.0], [1.0, 1.0], 0, -1.0),  # each has any phase: 1 [h1] - 1 [h2]
        ([-1.0, -1.0], [1.0, 1.0], 1, 0.0),  # 1 [h1] + 1 [h2]
        ([-2.0, -0.5], [-1.0, 0.5], 0, 0.0),  # none is active
    ],
)
def test_by_hand(lower: list[float], upper: list[float], column: int, slope: float) -> None:
    found = slope_bounds(hand_computed(), ROW, column, box(lower, upper))
    assert found.lower[0] == pytest.approx(slope, abs=1e-12)
    assert found.lower[0] <= slope


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_points_of_a_box_show_a_lesser_slope(kind: Kind) -> None:
    for seed in range(30):
        generator = np.random.default_rng([seed, 1])
        network = random_network_of(generator, kind, "few")
        column = int(generator.integers(network.num_inputs))
        row = generator.normal(size=network.num_outputs)
        boxes = random_boxes(generator, network.num_inputs, 12)
        found = slope_bounds(network, row, column, boxes)
        for place, lower in enumerate(found.lower):
            least, greatest = boxes.lower[place], boxes.upper[place]
            first = generator.uniform(least, greatest, (300, network.num_inputs))
            first[:150] = np.where(generator.random((150, len(least))) < 0.5, least, greatest)
            other = first.copy()
            other[:, column] = generator.uniform(first[:, column], greatest[column])
            rise = (network(other) - network(first)) @ row
            assert (rise >= lower * (other - first)[:, column] - 1e-9).all()


def test_one_hidden_layer_is_its_worst_choice_of_phases() -> None:
    for seed in range(20):
        generator = np.random.default_rng([seed, 2])
        network = random_network(generator, (3, 8, 2))
        boxes = random_boxes(generator, 3, 6)
        (hidden,) = preactivation_bounds(network, boxes, "crown")
        found = slope_bounds(network, ROW, 1, boxes)
        effects = (ROW @ network.layers[1].weight) * network.layers[0].weight[:, 1]
        for place, lower in enumerate(found.lower):
            choices = [
                (1,) if low >= 0 else (0,) if high <= 0 else (0, 1)
                for low, high in zip(hidden.lower[place], hidden.upper[place], strict=True)
            ]
            expected = min(float(effects @ phases) for phases in itertools.product(*choices))
            assert expected - 1e-9 <= lower <= expected


def test_deeper_networks_are_exact_where_no_phase_is_open() -> None:
    """Against the product of the active units' weights, in rational arithmetic."""
    for seed in range(150):
        generator = np.random.default_rng([seed, 3])
        network = random_network(generator, (4, 6, 5, 2))
        point = generator.normal(size=(1, 4))
        found = slope_bounds(network, ROW, 2, Box(point, point))
        exact = exact_slope(network, point, 2)
        assert found.dependence.max() == 0
        assert Fraction(float(found.lower[0])) <= exact
        assert found.lower[0] == pytest.approx(float(exact), abs=1e-12)


def exact_slope(network: ReluNetwork, point: FloatArray, column: int) -> Fraction:
    slopes = [Fraction(int(place == column)) for place in range(network.num_inputs)]
    values = network.preactivations(point)
    for layer, before in zip(network.layers, [None, *values], strict=False):
        if before is not None:
            slopes = [
                slope if z > 0 else Fraction(0) for slope, z in zip(slopes, before[0], strict=True)
            ]
        slopes = [
            sum((Fraction(w) * s for w, s in zip(row, slopes, strict=True)), Fraction(0))
            for row in layer.weight.tolist()
        ]
    return slopes[0] - slopes[1]


def test_units_that_pass_have_their_slope_whatever_their_sign() -> None:
    layers = hand_computed().layers
    passing = ReluNetwork(layers, (np.array([True, True]),))
    found = slope_bounds(passing, ROW, 1, box([-1.0, -1.0], [1.0, 1.0]))
    assert found.lower[0] == pytest.approx(2.0)
    assert not found.dependence.any()


def test_an_input_that_no_open_phase_reads_does_not_count() -> None:
    network = ReluNetwork(
        (
            Affine(np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]), np.array([0.0, 9.0])),
            Affine(np.eye(2), np.zeros(2)),
        )
    )
    found = slope_bounds(network, ROW, 0, box([-1.0] * 3, [1.0] * 3))
    assert found.dependence[0] == pytest.approx([1.0, 0.0, 0.5])


@pytest.mark.parametrize("weight", [HUGE, 1e308])
def test_weights_beyond_float64s_safe_range_prove_nothing(weight: float) -> None:
    first = Affine(np.array([[weight], [1.0]]), np.zeros(2))
    network = ReluNetwork((first, Affine(np.array([[1e-300, 0.0], [0.0, 1.0]]), np.zeros(2))))
    found = slope_bounds(network, np.array([1.0, 0.0]), 0, box([-1.0], [1.0]))
    assert found.lower[0] == -np.inf
