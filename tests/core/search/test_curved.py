"""Networks with curved units through the ladder and both searches."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.bounds.slopes import slope_bounds
from tasks.core.errors import CertiflowError
from tasks.core.networks.curves import Kind
from tasks.core.networks.network import ReluNetwork
from tasks.core.networks.network_file import read_network, write_network
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search import marabou
from tasks.core.search.inputs import InputSearch
from tasks.core.search.ladder import RELUS_ALONE, decide
from tasks.core.search.phases import PhaseSearch
from tasks.core.tensors.lowering import Lowering
from tasks.core.verdicts import Verdict
from tests.curved_networks import curved_network
from tests.networks import random_network


def wave(slope: float) -> ReluNetwork:
    """sin(3 x) - slope x, of which intervals and one line know little."""
    lowering = Lowering((1, 1))
    x = lowering.input
    curve = lowering.curved(Kind.SIN, x.scaled(3.0))
    return lowering.network(lowering.add(curve, x.scaled(-slope)))


BOX = Box(np.array([[0.0]]), np.array([[2.0]]))


def above(network: ReluNetwork, limit: float) -> UnsafeRegion:
    """Where the output is at most `limit`."""
    return UnsafeRegion(BOX, np.eye(1), np.array([-limit]))


def least() -> float:
    """Of sin(3 x) - x / 2 on [0, 2]: at 3 cos(3 x) = 1/2, near x = 3 pi / 2 / 3."""
    x = (2 * np.pi - np.arccos(1 / 6)) / 3
    return float(np.sin(3 * x) - x / 2)


@pytest.mark.parametrize("kind", [PhaseSearch, InputSearch])
def test_both_searches_come_as_close_as_is_asked(kind: type[PhaseSearch | InputSearch]) -> None:
    network = wave(0.5)
    hidden = preactivation_bounds(network, BOX, "crown")
    for gap in (1e-2, 1e-5) if kind is InputSearch else (1e-2,):  # by few steps of ascent
        search = kind(network, BOX, [above(network, least() - gap)], hidden)
        found = search.run(time.monotonic() + 20)
        assert found.proved, found.reason
        assert 0 < found.lower <= gap + 1e-9
    search = InputSearch(network, BOX, [above(network, least() + 1e-5)], hidden)
    found = search.run(time.monotonic() + 20)
    assert found.candidate is not None
    assert network(found.candidate[None])[0, 0] <= least() + 1e-5


@pytest.mark.parametrize("seed", range(8))
def test_the_ladder_decides_what_is_not_near_a_tie(seed: int) -> None:
    generator = np.random.default_rng([1, seed])
    network = curved_network(generator, 2)
    if any("sign" in each.names for each in network.activations):
        return  # at a jump the least value may be that of one point, which no box shows
    center = generator.normal(size=(1, 2))
    box = Box(center - 0.4, center + 0.4)
    axis = np.linspace(-0.4, 0.4, 201)
    grid = center + np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    row = np.zeros((1, network.num_outputs))
    row[0, 0] = 1.0
    values = network(grid)[:, 0]
    gap = 0.05 * (np.ptp(values) + 1e-3)
    for side in (1, -1):
        region = UnsafeRegion(box, row, np.array([-values.min() + side * gap]))
        answer = decide(network, Property((region,)), timeout_seconds=20)
        assert answer.verdict is (Verdict.ROBUST if side > 0 else Verdict.FALSIFIED), answer.reason
        assert not answer.deployed  # of float32 functions nothing is promised


def test_marabou_is_passed_over_with_a_reason() -> None:
    network = wave(0.5)
    prop = Property((above(network, least() - 1e-3),))
    answer = decide(network, prop, engine="marabou", timeout_seconds=5)
    assert (answer.verdict, answer.reason) == (Verdict.UNKNOWN, RELUS_ALONE)
    hidden = preactivation_bounds(network, BOX, "crown")
    alone = marabou.decide(network, BOX, list(prop.unsafe), timeout_seconds=1, hidden=hidden)
    assert alone.verdict is Verdict.UNKNOWN
    tie = Property((above(network, least()),))
    answer = decide(network, tie, timeout_seconds=0.3)
    assert answer.verdict is not Verdict.ROBUST


def test_what_knows_relus_alone_refuses() -> None:
    network = wave(0.5)
    with pytest.raises(CertiflowError, match="the network has units of sine: this can be asked of"):
        _ = network.linear
    with pytest.raises(CertiflowError, match="units of sine"):
        slope_bounds(network, np.ones(1), 0, BOX)


def test_a_curved_network_is_kept_whole_in_a_file(tmp_path: Path) -> None:
    for seed in range(6):
        network = curved_network(np.random.default_rng(seed), 3)
        write_network(network, tmp_path / "n.npz")
        again = read_network(tmp_path / "n.npz", network.sha256)
        x = np.random.default_rng(0).normal(size=(9, 3))
        np.testing.assert_array_equal(again(x), network(x))
    plain = random_network(np.random.default_rng(0), (2, 3, 2))
    (own,) = plain.activations
    codes = np.array([Kind.TANH, Kind.RELU, Kind.RELU], dtype=np.int8)
    bent = ReluNetwork(plain.layers, activations=(replace(own, codes=codes),))
    assert bent.sha256 != plain.sha256
