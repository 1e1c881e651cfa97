"""Cones are parts of the network, and bounds by them are those of whole layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.bounds.relaxations import Bounds
from tasks.core.dual.tightening import tightened_hidden
from tasks.core.networks import cones
from tasks.core.networks.matrices import DenseMatrix
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box, Ellipsoid
from tests.networks import convolutional, random_network, random_network_of, sampled_points

pytestmark = pytest.mark.usefixtures("in_blocks")


def residual(seed: int) -> ReluNetwork:
    """The first of a generator's random networks that is deep enough."""
    generator = np.random.default_rng(seed)
    while True:
        network = random_network_of(generator, "residual", "many")
        if len(network.layers) >= 4:
            return network


NETWORKS: dict[str, Callable[[], ReluNetwork]] = {
    "convolutional": lambda: convolutional(np.random.default_rng(0), (16, 16), (3, 4), 6, 3),
    "deep": lambda: convolutional(np.random.default_rng(1), (16, 16), (2, 2, 2), 6, 3),
    "residual": lambda: residual(0),
    "another": lambda: residual(1),
}


def from_few_inputs() -> ReluNetwork:
    """Convolutions of an image that a dense layer makes of five numbers."""
    generator = np.random.default_rng(2)
    image = convolutional(generator, (16, 16), (3, 4), 6, 3)
    first = random_network(generator, (5, 16 * 16)).layers[0]
    return ReluNetwork((first, *image.layers))


def boxes(network: ReluNetwork, count: int = 3) -> Box:
    generator = np.random.default_rng(7)
    center = generator.uniform(-0.5, 0.5, size=(count, network.num_inputs))
    return Box(center - 0.1, center + 0.1)


def whole(monkeypatch: pytest.MonkeyPatch, network: ReluNetwork) -> ReluNetwork:
    """The same network, which has no cones."""
    monkeypatch.setattr(cones, "MOST_READ", 0.0)
    plain = ReluNetwork(network.layers, network.linear, network.roundings)
    assert all(plain.cones(depth) is None for depth in range(len(plain.layers)))
    return plain


@pytest.mark.parametrize("name", NETWORKS)
def test_each_place_is_a_part_of_the_network(name: str) -> None:
    network = NETWORKS[name]()
    x = np.random.default_rng(0).normal(size=(5, network.num_inputs))
    values, several = network.preactivations(x), 0
    for depth in range(1, len(network.layers)):
        found = network.cones(depth)
        if found is None:
            assert isinstance(network.layers[depth].matrix, DenseMatrix)
            continue
        units = np.concatenate([cone.units.ravel() for cone in found])
        assert sorted(units) == list(range(values[depth].shape[1]))
        for cone in found:
            several += len(cone.units) > 1
            part = network.of_cone(cone)
            for place, mine in enumerate(cone.units):
                read = x[:, cone.reads[0][place]]
                np.testing.assert_allclose(part(read), values[depth][:, mine], atol=1e-12)
    assert several > 0


def test_units_that_read_most_of_a_layer_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cones, "MOST_READ", 0.5)
    network = convolutional(np.random.default_rng(0), (24, 24), (3, 4, 4), 6, 3)
    assert network.cones(1) is not None
    assert network.cones(2) is None
    assert random_network(np.random.default_rng(0), (4, 5, 3)).cones(1) is None


def test_a_part_without_units_keeps_the_cones_before_them() -> None:
    network = NETWORKS["convolutional"]()
    first, second = (network.cones(depth) for depth in (1, 2))
    kept = [np.ones(len(layer.bias), dtype=bool) for layer in network.layers[:-1]]
    kept[2][0] = False
    part = network.restricted(kept)
    assert part.cones(1) is first
    assert second is not None
    assert part.cones(2) is not second


def test_places_behind_a_dense_layer_share_their_weights() -> None:
    network = from_few_inputs()
    shared = 0
    for depth in (1, 2):
        found = network.cones(depth)
        assert found is not None
        units = np.concatenate([cone.units.ravel() for cone in found])
        assert sorted(units) == list(range(len(network.layers[depth].bias)))
        shared += sum(len(cone.units) > 1 for cone in found)
        assert all(cone.first is network.layers[0].matrix for cone in found)
    assert shared > 0


def test_bounds_behind_a_dense_layer_are_those_of_whole_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also with inputs that are fixed, where cones are those of the network with all."""
    network, box = from_few_inputs(), boxes(from_few_inputs())
    found = preactivation_bounds(network, box, "crown")
    free, values = np.array([True, False, True, True, False]), box.lower[0]
    part = network.fixed(free, values)
    cone = (part.cones(2) or [])[0]
    assert cone.matrices is (network.cones(2) or [])[0].matrices
    narrow = Box(box.lower[:, free], box.upper[:, free])
    fixed = preactivation_bounds(part, narrow, "crown")
    check_same(found, preactivation_bounds(whole(monkeypatch, network), box, "crown"))
    plain = whole(monkeypatch, ReluNetwork(part.layers))
    check_same(fixed, preactivation_bounds(plain, narrow, "crown"))


def check_same(found: list[Bounds], expected: list[Bounds]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.lower, other.lower, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(one.upper, other.upper, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
def test_crown_is_that_of_whole_layers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = NETWORKS[name]()
    box = boxes(network)
    ball = Ellipsoid.within(box, (box.lower + box.upper) / 2, np.ones(network.num_inputs), 0.2)
    found = [preactivation_bounds(network, each, "crown") for each in (box, ball)]
    plain = whole(monkeypatch, network)
    for each, bounds in zip((box, ball), found, strict=True):
        check_same(bounds, preactivation_bounds(plain, each, "crown"))
    assert any((a.upper < b.upper).any() for a, b in zip(found[1], found[0], strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_tightened_bounds_hold_and_are_those_of_whole_layers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ascents are in float32, whose sums differ: their bounds agree roughly."""
    network = NETWORKS[name]()
    box = boxes(network, 1)
    hidden = preactivation_bounds(network, box, "crown")
    tight = tightened_hidden(network, box, hidden, 10, np.inf)
    values = network.preactivations(sampled_points(np.random.default_rng(0), box, 2000))
    for before, after, layer in zip(hidden, tight, values, strict=False):
        assert ((layer >= after.lower) & (layer <= after.upper)).all()
        assert ((after.lower >= before.lower) & (after.upper <= before.upper)).all()
    plain = tightened_hidden(whole(monkeypatch, network), box, hidden, 10, np.inf)
    narrower, at_all = 0.0, 0.0
    for before, after, other in zip(hidden, tight, plain, strict=True):
        at_all += (before.upper - before.lower - other.upper + other.lower).sum()
        narrower += (before.upper - before.lower - after.upper + after.lower).sum()
    assert at_all > 0
    assert narrower == pytest.approx(at_all, rel=0.05)
