"""Where numbers are hard: ties, points, overflow, and what a batch or a part rounds otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.attacks import falsification
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.ladder import decide
from tasks.core.verdicts import Engine, Verdict
from tests.core.search.answers import (
    ENGINES,
    check_falsified,
    cube,
    single,
)
from tests.networks import (
    box,
    hand_computed,
    random_network,
)


def test_candidates_reach_their_region_when_evaluated_alone() -> None:
    """Both outputs are one sum in two orders, so their difference is rounding error alone.

    It depends on the size of the batch: what a batch finds must be checked alone.
    """
    falsified = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        inputs = int(generator.integers(3, 9))
        first = random_network(generator, (inputs, 17)).layers[0]
        order, last = generator.permutation(17), generator.normal(size=17)
        weight = np.zeros((2, 34))
        weight[0, :17], weight[1, 17:] = last, last[order]
        network = ReluNetwork(
            (
                Affine(
                    np.vstack([first.weight, first.weight[order]]),
                    np.concatenate([first.bias, first.bias[order]]),
                ),
                Affine(weight, np.zeros(2)),
            )
        )
        region = UnsafeRegion(cube(inputs, 0.5), np.array([[1.0, -1.0]]), np.zeros(1))
        answer = decide(network, single(region), timeout_seconds=0.1)
        assert answer.verdict is not Verdict.ROBUST
        if answer.verdict is Verdict.FALSIFIED:
            check_falsified(network, single(region), answer)
            falsified += 1
    assert falsified >= 20


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("inputs", [3, 14])
def test_point_box_gives_the_forward_pass(engine: Engine, inputs: int) -> None:
    generator = np.random.default_rng(5)
    for _ in range(5):
        network = random_network(generator, (inputs, 7, 7, 3))
        point = generator.normal(size=(1, inputs))
        row = generator.normal(size=(1, 3))
        value = float(row[0] @ network(point)[0])
        for gap, verdict in ((1e-9, Verdict.ROBUST), (-1e-9, Verdict.FALSIFIED)):
            region = UnsafeRegion(Box(point, point), row, np.array([gap - value]))
            answer = decide(network, single(region), engine=engine, timeout_seconds=5.0)
            assert answer.verdict is verdict
            assert answer.margin is None or answer.margin <= gap + 1e-12


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("inputs", [3, 14])
@pytest.mark.parametrize("scale", [1e20, 1e150, 1e200, 1e300])
def test_overflow_is_never_robust(engine: Engine, inputs: int, scale: float) -> None:
    """Weights whose products leave float32 or float64: infinities and NaNs prove nothing."""
    generator = np.random.default_rng(3)
    network = random_network(generator, (inputs, 5, 5, 2))
    network = ReluNetwork(tuple(Affine(a.weight * scale, a.bias) for a in network.layers))
    ball = cube(inputs, 0.5)
    # each row alone is below zero somewhere: the network is nearly odd in its last layer
    rows = np.array([[1.0, 0.0], [-1.0, 0.0]])
    prop = Property(tuple(UnsafeRegion(ball, row[None], np.zeros(1)) for row in rows))
    with np.errstate(all="ignore"):
        answer = decide(network, prop, engine=engine, timeout_seconds=1.0)
    assert answer.verdict is not Verdict.ROBUST


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("inputs", [2, 13])
def test_a_tie_everywhere_is_never_robust(engine: Engine, inputs: int) -> None:
    """All logits are zero at every point: a tie reaches the region."""
    zero = Affine(np.zeros((2, inputs)), np.zeros(2))
    network = ReluNetwork((Affine(np.eye(inputs), np.zeros(inputs)), zero))
    prop = Property.robustness(cube(inputs, 1.0), 0, 2)
    answer = decide(network, prop, engine=engine, timeout_seconds=1.0)
    assert answer.verdict in {Verdict.FALSIFIED, Verdict.UNKNOWN}


def test_point_that_the_whole_network_does_not_reach_is_a_candidate_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without its dead units a network rounds otherwise: ties are for the deployed model."""
    network, ball = hand_computed(), box([-0.5, -0.45], [1.0, 0.5])
    point = np.array([0.0, 0.0])
    monkeypatch.setattr(falsification, "search", lambda *arguments, **settings: point)
    prop = Property.robustness(ball, 0, 2)
    assert prop.unsafe[0].excess(network(point[None]))[0] > 0
    answer = decide(network, prop, engine="bounds", timeout_seconds=5)
    assert answer.verdict is Verdict.UNKNOWN
    np.testing.assert_array_equal(answer.candidates, [point, point])  # of both attacks
