"""Bounds whose coefficients are carried in float32 hold, and are nearly those of float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.bounds import linear, precision, rounding
from tasks.core.bounds.linear import interval_step, preactivation_bounds
from tasks.core.bounds.precision import DOUBLE, SINGLE, products_are_of_float32, unit_precision
from tasks.core.bounds.relaxations import Bounds
from tasks.core.networks import network as networks
from tasks.core.networks.block_matrix import BlockMatrix
from tasks.core.networks.matrices import CHUNK, DenseMatrix, Matrix
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tests.networks import (
    KINDS,
    Kind,
    ball_around,
    convolutional,
    random_network,
    random_network_of,
    sampled_points,
)

pytestmark = pytest.mark.usefixtures("in_blocks")

DENSE = {"dense": (5, 40, 200, 60, 3), "wide": (3, 3 * CHUNK, 2 * CHUNK, 10, 2)}
NAMES = [*DENSE, "convolutional", "from few inputs", "residual"]


def always_active(network: ReluNetwork, box: Box) -> ReluNetwork:
    """The same weights, and biases by which no ReLU is ever zero: CROWN's lines are exact then."""
    layers, lower = list[Affine](), box.lower[0]
    upper = box.upper[0]
    for layer in network.layers:
        middle, reach = (lower + upper) / 2, (upper - lower) / 2
        matrix = layer.matrix
        center = matrix.forward(middle[None])[0]
        spread = matrix.absolute().forward(reach[None])[0]
        bias = 1 + spread - center
        layers.append(Affine(matrix, bias))
        lower, upper = center + bias - spread, center + bias + spread
    return ReluNetwork(tuple(layers))


def exact_ranges(network: ReluNetwork, box: Box) -> Iterator[Bounds]:
    """Of hidden layers of one without a ReLU that is ever zero, to float64's precision."""
    middle, reach = (box.lower[0] + box.upper[0]) / 2, (box.upper[0] - box.lower[0]) / 2
    slopes, constant = np.eye(network.num_inputs), np.zeros(network.num_inputs)
    for layer in network.layers[:-1]:
        slopes = layer.matrix.forward(slopes.T).T
        constant = layer(constant[None])[0]
        center, spread = slopes @ middle + constant, np.abs(slopes) @ reach
        yield Bounds((center - spread)[None], (center + spread)[None])


def named(name: str) -> ReluNetwork:
    generator = np.random.default_rng(0)
    if name in DENSE:
        return random_network(generator, DENSE[name])
    if name == "residual":
        return random_network_of(np.random.default_rng(4), "residual", "many")
    image = convolutional(generator, (16, 16), (3, 4), 6, 3)
    first = random_network(generator, (5, 16 * 16)).layers[0]
    return ReluNetwork((first, *image.layers)) if name == "from few inputs" else image


def scaled(matrix: Matrix, factor: float) -> Matrix:
    if isinstance(matrix, BlockMatrix):
        return matrix._with_weights(lambda weights: weights * factor)
    return DenseMatrix(matrix.dense() * factor)


def bound_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units that intervals settle as well."""
    some = linear._Before.unit_bounds
    monkeypatch.setattr(
        linear._Before,
        "unit_bounds",
        lambda self, chosen, deadline: some(self, np.ones_like(chosen), deadline),
    )


def unbounded_behind_first(
    network: ReluNetwork, depth: int, hidden: Sequence[Bounds], ball: Box
) -> Bounds:
    """`interval_step` of the first layer alone: bounds behind it are those of CROWN."""
    if depth == 0:
        return interval_step(network, depth, hidden, ball)
    infinite = np.full((1, len(network.layers[depth].bias)), np.inf)
    return Bounds(-infinite, infinite)


def off(found: list[Bounds], exact: list[Bounds]) -> FloatArray:
    """How far each bound is on the safe side of what is exact, beside its size."""
    pairs = [
        (side * (one - other), np.abs(other))
        for a, b in zip(found[1:], exact[1:], strict=True)
        for side, one, other in ((-1, a.lower, b.lower), (1, a.upper, b.upper))
    ]
    return np.concatenate([(gap / (1 + size)).ravel() for gap, size in pairs])


@pytest.mark.parametrize("name", NAMES)
def test_what_float32_loses_is_given_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of exact lines rounding is all that can go wrong, and without what is given up it does."""
    shape = named(name)
    box = Box(np.full((1, shape.num_inputs), 0.25), np.ones((1, shape.num_inputs)))
    network = always_active(shape, box)
    exact = list(exact_ranges(network, box))
    bound_all(monkeypatch)
    monkeypatch.setattr(linear, "unit_precision", lambda network: SINGLE)
    found = off(preactivation_bounds(network, box, "crown"), exact)
    assert found.min() >= -1e-13
    assert found.max() < 1e-3
    monkeypatch.setattr(rounding, "single_gamma", lambda roundings: 0.0)
    assert off(preactivation_bounds(network, box, "crown"), exact).min() < -1e-9


@pytest.mark.parametrize("name", NAMES)
def test_slopes_are_rounded_behind_biases_of_any_size(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs near 10^6 of which biases leave next to nothing: a slope's last place is much."""
    shape = named(name)
    lower = np.full((1, shape.num_inputs), 1e6)
    box, first = Box(lower, lower + 0.5), shape.layers[0]
    bias = -first.matrix.forward(lower + 0.2)[0]  # not the middle, whose chords rise by a half
    network = ReluNetwork((Affine(first.matrix, bias), *shape.layers[1:]), shape.linear)
    bound_all(monkeypatch)
    monkeypatch.setattr(linear, "interval_step", unbounded_behind_first)
    found = []
    for each in (SINGLE, DOUBLE):
        monkeypatch.setattr(linear, "unit_precision", lambda network, it=each: it)
        found.append(preactivation_bounds(network.up_to(2), box, "crown"))
    assert off(found[0], found[1]).min() >= -1e-6


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-8, 1e8, 1e11, 1e13, 1e30, 1e39])
@pytest.mark.parametrize("kind", KINDS)
def test_at_the_ends_of_float32_nothing_wrong_is_proved(
    kind: Kind, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are flushed to zero, and such as overflow, on the way to ordinary values."""
    monkeypatch.setattr(linear, "unit_precision", lambda network: SINGLE)
    bound_all(monkeypatch)
    tightened = 0
    for case in range(6):
        generator = np.random.default_rng([KINDS.index(kind), case])
        plain = random_network_of(generator, kind, "few")
        scales = [scale if place % 2 else 1 / scale for place in range(len(plain.layers))]
        layers = [
            Affine(scaled(layer.matrix, each), layer.bias * total)
            for layer, each, total in zip(plain.layers, scales, np.cumprod(scales), strict=True)
        ]
        network = ReluNetwork(tuple(layers), plain.linear)
        box = ball_around(generator.normal(size=(1, network.num_inputs)), 0.3)
        values = network.preactivations(sampled_points(generator, box, 300))
        found = preactivation_bounds(network, box, "crown")
        for each, bounds in zip(values, found, strict=False):
            assert (bounds.lower <= each).all()
            assert (each <= bounds.upper).all()
        plainly = preactivation_bounds(network, box, "interval")
        tightened += any((a.lower > b.lower).any() for a, b in zip(found, plainly, strict=True))
    assert tightened > 0 or not 1e-10 < scale < 1e10


@pytest.mark.parametrize("name", NAMES)
def test_large_networks_in_blocks_are_bounded_in_float32(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unit_precision(named(name)) is DOUBLE
    monkeypatch.setattr(networks, "LARGE", 0)
    assert unit_precision(named(name)) is (DOUBLE if name in DENSE else SINGLE)
    monkeypatch.setattr(precision, "products_are_of_float32", lambda: False)
    assert unit_precision(named(name)) is DOUBLE


def test_products_of_fewer_bits_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of 10 bits in the place of 1 + 2^-12 is 1."""
    assert products_are_of_float32.__wrapped__()
    monkeypatch.setattr(np, "full", lambda shape, value, dtype: np.ones(shape, dtype=dtype))
    assert not products_are_of_float32.__wrapped__()


def test_sums_in_float32_are_rounded_as_often_as_is_said() -> None:
    """Ones, and one number beside which each of them is half of a last place."""
    count = 10 * CHUNK
    matrix = DenseMatrix(np.ones((count, 1)))
    assert matrix.most_roundings == CHUNK + 10
    rows = np.ones((1, count), dtype=np.float32)
    rows[0, 0] = 2.0**24
    exact = 2.0**24 + count - 1
    error = abs(float(matrix.single().backward(rows)[0, 0]) - exact)
    assert error <= matrix.most_roundings * 2.0**-24 * exact
