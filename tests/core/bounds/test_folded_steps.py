"""Bounds hold of a model's own steps where folding them into one layer cancels in float64."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import numpy as np
import pytest

from tasks.core.bounds.forward import forward_bounds
from tasks.core.bounds.linear import linear_lower_bounds, preactivation_bounds
from tasks.core.bounds.slopes import slope_bounds
from tasks.core.dual.tightening import tightened_hidden
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.queries.twin import twin
from tasks.core.tensors.lowering import Lowering
from tests.networks import box

GREAT = 2.0**30


def two_products() -> ReluNetwork:
    """x -> (GREAT x, x, GREAT x) -> GREAT h1 - h2 - GREAT h3 = -x, then a ReLU that passes it."""
    lowering = Lowering((1, 1))
    wide = lowering.input.times(np.array([[GREAT, 1.0, GREAT]]))
    folded = wide.times(np.array([[GREAT], [-1.0], [-GREAT]]))
    return lowering.network(lowering.relu(folded).times(np.eye(1)))


def normalised(bias: float, mean: float, variance: float) -> ReluNetwork:
    """((x + bias) - mean) / sqrt(variance), then a ReLU and once more."""
    lowering, tensor = Lowering((1, 1)), None
    for _ in range(2):
        tensor = lowering.input if tensor is None else lowering.relu(tensor)
        tensor = lowering.add(tensor, lowering.constant([bias]))
        tensor = lowering.batch_normalised(
            tensor,
            1,
            mean=np.array([mean]),
            variance=np.array([variance]),
            epsilon=0.0,
            scale=np.ones(1),
            shift=np.zeros(1),
        )
    assert tensor is not None
    return lowering.network(tensor)


def root(value: Fraction) -> tuple[Fraction, Fraction]:
    """Two fractions that hold the root between them, 10^-40 apart or less."""
    scale = 10**40
    below = isqrt(value.numerator * value.denominator * scale * scale)
    each = scale * value.denominator
    return Fraction(below, each), Fraction(below + 1, each)


def test_products_that_cancel_wholly_prove_nothing() -> None:
    """Folded, -x has become 0, or as good as any number."""
    network, where = two_products(), box([0.75], [1.0])
    assert network.cancellations[0] == np.inf
    rows = np.ones((1, 1))
    for hidden in (
        preactivation_bounds(network, where, "interval"),
        preactivation_bounds(network, where, "crown"),
        forward_bounds(network, where),
        tightened_hidden(network, where, preactivation_bounds(network, where, "crown"), 3, np.inf),
    ):
        assert hidden[0].lower[0, 0] <= -1
        assert hidden[0].upper[0, 0] >= -0.75
    assert linear_lower_bounds(network.up_to(0), 0, rows, [], where)[0, 0] <= -1
    assert slope_bounds(network.up_to(0), np.ones(1), 0, where).lower[0] <= -1
    fixed = network.fixed(np.array([True]), np.array([0.75]))
    assert preactivation_bounds(fixed, where, "interval")[0].lower[0, 0] <= -1
    both = twin([network, network], [np.eye(1), np.eye(1)], [where, where])  # type: ignore[list-item]
    assert preactivation_bounds(both, where, "interval")[0].lower[0].min() <= -1


@pytest.mark.parametrize("size", [1.0, 10.0, 1e3, 1e5, 2.0**24])
def test_normalised_biases_are_within_their_bounds(size: float) -> None:
    """Against fractions: the bias and the mean cancel, and what is left is off by theirs."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        bias = float(np.float32(size * (1 + generator.random())))
        mean = float(np.float32(bias + 1e-4 * size * generator.normal()))
        variance = float(np.float32(0.1 + generator.random()))
        network = normalised(bias, mean, variance)
        x = Fraction(float(generator.integers(0, 2)))
        point = Box(np.full((1, 1), float(x)), np.full((1, 1), float(x)))
        low, high = root(Fraction(variance))
        middle = x + Fraction(bias) - Fraction(mean)
        exact = min(middle / low, middle / high), max(middle / low, middle / high)
        for bounds in (
            preactivation_bounds(network, point, "crown")[0],
            forward_bounds(network, point)[0],
        ):
            assert Fraction(float(bounds.lower[0, 0])) <= exact[0]
            assert Fraction(float(bounds.upper[0, 0])) >= exact[1]
            assert bounds.upper[0, 0] - bounds.lower[0, 0] < 1e-12 * (size + float(abs(middle)))
