"""A number held against a reference: exactly where it is within the tolerance, the first wins."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from tasks.core.errors import CertiflowError
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.networks.tolerance import in_float32, scale_of, within
from tests.networks import KINDS, Kind, random_network, random_network_of


def whole_network(generator: np.random.Generator, depth: int) -> ReluNetwork:
    """Of small whole numbers, so that float64 computes it exactly."""
    widths = [3, *generator.integers(1, 5, depth).tolist(), 1]
    layers = [
        Affine(
            generator.integers(-3, 4, (after, before)).astype(float),
            generator.integers(-3, 4, after).astype(float),
        )
        for before, after in pairwise(widths)
    ]
    return ReluNetwork(tuple(layers))


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_tie_is_beyond_the_tolerance(depth: int) -> None:
    ties = 0
    for seed in range(50):
        generator = np.random.default_rng([depth, seed])
        network, tolerance = whole_network(generator, depth), float(generator.integers(1, 9))
        x = generator.integers(-3, 4, (40, 3)).astype(float)
        number = network(x)[:, 0]
        y = number + generator.integers(-9, 10, len(x))
        found = within(network, tolerance)(np.column_stack([x, y]))
        others = found[:, 1:].max(axis=1)
        np.testing.assert_array_equal(found[:, 0] > others, np.abs(number - y) < tolerance)
        np.testing.assert_array_equal(found[:, 0] == others, np.abs(number - y) == tolerance)
        beyond = np.abs(number - y) > tolerance
        high = found[:, 1] > found[:, 2]
        np.testing.assert_array_equal(high[beyond], (number > y)[beyond])
        ties += int((found[:, 0] == others).sum())
    assert ties > 50


@pytest.mark.parametrize("kind", KINDS)
def test_its_values_are_those_of_the_number_whatever_the_network(kind: Kind) -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        wide = random_network_of(generator, kind, "few")
        last = wide.layers[-1]
        one = Affine(last.weight[:1], last.bias[:1])
        network = ReluNetwork((*wide.layers[:-1], one), wide.linear)
        x, y = generator.normal(size=(9, network.num_inputs)), generator.normal(size=9)
        tolerance = float(10.0 ** generator.uniform(-6, 6))
        asked = within(network, tolerance)
        number, single = network(x)[:, 0], float(in_float32(tolerance))
        expected = np.stack([0 * y, number - y - single, y - number - single], axis=1)
        found = asked(np.column_stack([x, y])) / scale_of(in_float32(tolerance))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * (1 + single))


@pytest.mark.parametrize("tolerance", [1e-30, 0.1, 0.3, 1.0, 2.0, 1e4, 1e37])
def test_no_more_is_granted_than_the_tolerance(tolerance: float) -> None:
    single = in_float32(tolerance)
    assert single.dtype == np.float32
    assert Fraction(float(single)) <= Fraction(tolerance)
    assert Fraction(float(np.nextafter(single, np.float32(np.inf)))) > Fraction(tolerance)
    scale = Fraction(scale_of(single))
    assert 1 <= scale * Fraction(float(single)) < 2
    assert scale.numerator == 1 or scale.denominator == 1
    assert 2 ** ((scale.numerator * scale.denominator).bit_length() - 1) == (
        scale.numerator * scale.denominator
    )


def test_another_tolerance_is_another_network() -> None:
    network = random_network(np.random.default_rng(0), (3, 4, 1))
    digests = {within(network, tolerance).sha256 for tolerance in (1.0, 1.5, 2.0, 1e3)}
    assert len(digests) == 4


def test_two_outputs_are_no_number() -> None:
    network = random_network(np.random.default_rng(0), (3, 4, 2))
    with pytest.raises(CertiflowError, match="has 2 outputs: expected one, a number"):
        within(network, 1.0)
