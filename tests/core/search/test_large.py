"""What is done of large networks alone, on small ones that the exact oracle knows."""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
import pytest

from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.networks import network as networks
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search import inputs
from tasks.core.search.batched_boxes import BatchedBoxes
from tasks.core.search.inputs import InputSearch
from tasks.core.search.ladder import decide
from tasks.core.verdicts import Verdict
from tests.core.search.answers import TIMEOUT_SECONDS, check_answer, seen_by
from tests.networks import (
    KINDS,
    Kind,
    ball_around,
    random_network,
    random_network_of,
    random_property,
    sampled_points,
)
from tests.oracle import least_excess_at


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network counts as large, and none fits the kernel's arrays."""
    monkeypatch.setattr(networks, "LARGE", 0)
    monkeypatch.setattr(inputs, "MOST_PADDED", 0)


@pytest.mark.usefixtures("in_blocks", "all_large")
@pytest.mark.parametrize("num_inputs", ["few", "many"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_ladder_agrees_with_the_exact_oracle(
    kind: Kind, num_inputs: Literal["few", "many"]
) -> None:
    near = 0
    for case in range(8):
        generator = np.random.default_rng([KINDS.index(kind), num_inputs == "many", case])
        network = random_network_of(generator, kind, num_inputs)
        prop = random_property(generator, network)
        whole = seen_by(network, prop)
        exact = min(least_excess_at(whole, region)[0] for region in prop.unsafe)
        answer = decide(network, prop, timeout_seconds=TIMEOUT_SECONDS)
        check_answer(generator, whole, prop, answer, exact)
        near += answer.verdict not in {Verdict.ROBUST, Verdict.FALSIFIED}
    assert near <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_of_parts_hold_with_the_phases_of_what_they_are_parts_of(kind: Kind) -> None:
    settled = 0
    for case in range(20):
        generator = np.random.default_rng([KINDS.index(kind), case])
        network = random_network_of(generator, kind, "few")
        ball = ball_around(generator.normal(size=(1, network.num_inputs)) * 0.5, 0.4)
        rows = generator.normal(size=(1, network.num_outputs))
        region = UnsafeRegion(ball, rows, np.zeros(1))
        hidden = preactivation_bounds(network, ball, "crown")
        padded = BatchedBoxes(network, ball, [region], hidden, np.inf)
        boxes, phases = ball, padded.phases[None].copy()
        for _ in range(4):
            alive = np.ones((len(boxes), 1), dtype=bool)
            _, found = padded.bounds(boxes, phases, alive, 0.0, clips=False)
            lower = np.minimum(found.lower, found.closed)
            for row in range(len(boxes)):
                points = sampled_points(generator, boxes, 200, row)
                assert lower[row] <= region.excess(network(points)).min()
                values = np.concatenate(
                    [np.zeros((200, 0)), *network.preactivations(points)[:-1]], axis=1
                )
                assert (values[:, phases[row] > 0] >= 0).all()
                assert (values[:, phases[row] < 0] <= 0).all()
            settled += int((phases != 0).sum())
            split, every = found.split, np.arange(len(boxes))
            middle = (boxes.lower + boxes.upper)[every, split] / 2
            below, above = boxes.upper.copy(), boxes.lower.copy()
            below[every, split], above[every, split] = middle, middle
            boxes = Box(np.concatenate([boxes.lower, above]), np.concatenate([below, boxes.upper]))
            phases = np.concatenate([phases, phases])
    assert settled > 0


def test_the_input_behind_the_gaps_between_lines_is_halved() -> None:
    """1 - |x| - 0.9 y: the bound leans by y alone, which passes as it is; lines are around |x|."""
    first = Affine(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 9.0]]), np.zeros(3))
    last = Affine(np.array([[-1.0, -1.0, -0.1]]), np.ones(1))
    network = ReluNetwork((first, last), (np.array([False, False, True]),))
    box = Box(np.array([[-1.0, -1.0]]), np.array([[1.0, 1.0]]))
    region = UnsafeRegion(box, np.eye(1), np.zeros(1))
    hidden = preactivation_bounds(network, box, "crown")
    padded = BatchedBoxes(network, box, [region], hidden, np.inf)
    alive = np.ones((1, 1), dtype=bool)
    _, found = padded.bounds(box, padded.phases[None].copy(), alive, 0.0, clips=False)
    assert found.split[0] == 0
    assert found.lower[0] == pytest.approx(-0.9)


def test_after_the_deadline_nothing_takes_long_and_nothing_wrong_is_said() -> None:
    generator = np.random.default_rng(0)
    network = random_network(generator, (3, 30, 30, 2))
    ball = ball_around(np.zeros((1, 3)), 0.5)
    region = UnsafeRegion(ball, np.array([[1.0, -1.0]]), np.zeros(1))
    hidden = preactivation_bounds(network, ball, "crown")
    lower = []
    for deadline in (np.inf, 0.0):
        padded = BatchedBoxes(network, ball, [region], hidden, deadline)
        alive = np.ones((1, 1), dtype=bool)
        _, found = padded.bounds(ball, padded.phases[None].copy(), alive, np.inf, clips=False)
        lower.append(found.lower[0])
    assert lower[1] <= lower[0]
    points = sampled_points(generator, ball, 500)
    assert lower[1] <= region.excess(network(points)).min()


@pytest.mark.usefixtures("all_large")
def test_boxes_too_thin_to_halve_stay_open() -> None:
    """relu(x) - relu(x) + 1e-30 between neighbouring numbers: rounding hides that it is above 0."""
    last = Affine(np.array([[1.0, -1.0]]), np.zeros(1))
    network = ReluNetwork((Affine(np.ones((2, 1)), np.zeros(2)), last))
    box = Box(np.array([[1.0]]), np.array([[np.nextafter(1.0, 2.0)]]))
    region = UnsafeRegion(box, np.eye(1), np.array([1e-30]))
    search = InputSearch(network, box, [region], preactivation_bounds(network, box, "crown"))
    found = search.run(time.monotonic() + 20)
    assert not found.proved
    assert "too thin to split" in found.reason
