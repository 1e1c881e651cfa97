"""The time limit is kept by every stage, and no time is no proof."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tasks.core.attacks import falsification
from tasks.core.networks.block_matrix import BlockMatrix
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.ladder import decide
from tasks.core.verdicts import DecidedBy, Engine, Verdict
from tests.core.search.answers import (
    ENGINES,
    cube,
    single,
)
from tests.networks import (
    ball_around,
    convolutional,
    random_network,
    sampled_points,
)


def hard_property(inputs: int) -> tuple[ReluNetwork, Property]:
    network = random_network(np.random.default_rng(9), (inputs, 40, 40, 1))
    return network, nearly_unsafe(network, cube(inputs, 2.0))


def nearly_unsafe(network: ReluNetwork, ball: Box) -> Property:
    """Of the first output; safe by a little, so that only a long search could prove it."""
    row = np.eye(1, network.num_outputs)
    region = UnsafeRegion(ball, row, np.zeros(1))
    starts = sampled_points(np.random.default_rng(9), ball, 200)
    least = falsification.descend(network, ball, region, starts, num_steps=100)[1].min()
    return single(UnsafeRegion(ball, row, np.array([0.2 - least])))


@pytest.mark.parametrize("inputs", [10, 20])
@pytest.mark.parametrize("engine", ENGINES)
def test_no_time_is_no_proof(engine: Engine, inputs: int) -> None:
    network, prop = hard_property(inputs)
    answer = decide(network, prop, engine=engine, timeout_seconds=0.0)
    assert answer.verdict in {Verdict.TIMEOUT, Verdict.UNKNOWN}
    assert answer.reason


@pytest.mark.parametrize("inputs", [10, 20])
def test_the_deadline_is_kept(inputs: int) -> None:
    network, prop = hard_property(inputs)
    decide(network, prop, timeout_seconds=0.0)  # compiles the kernel
    started = time.monotonic()
    answer = decide(network, prop, timeout_seconds=1.0)
    assert answer.verdict is not Verdict.ROBUST
    assert time.monotonic() - started < 4.0  # Marabou counts whole seconds
    assert answer.stage_seconds["branch_and_bound"] < 1.5


@pytest.mark.parametrize("inputs", [10, 20])
def test_without_marabou_the_search_has_all_the_time_and_the_last_word(inputs: int) -> None:
    network, prop = hard_property(inputs)
    answer = decide(network, prop, timeout_seconds=0.5, with_marabou=False)
    assert (answer.verdict, answer.decided_by) == (Verdict.TIMEOUT, DecidedBy.BRANCH_AND_BOUND)
    assert "marabou" not in answer.stage_seconds
    assert " open of " in answer.reason


def test_every_stage_keeps_the_deadline_on_a_convolutional_network() -> None:
    """None of them decides this property in these limits."""
    network = convolutional(np.random.default_rng(0), (28, 28), (16, 32), 100, 10)
    assert isinstance(network.layers[1].matrix, BlockMatrix)
    center = np.random.default_rng(1).random((1, 784))
    prop = nearly_unsafe(network, ball_around(center, 0.1))
    for limit in (0.0, 0.3, 1.0, 3.0):
        started = time.monotonic()
        answer = decide(network, prop, timeout_seconds=limit, with_marabou=False)
        assert answer.verdict is Verdict.TIMEOUT
        assert time.monotonic() - started < limit + 15.0  # a busy machine; alone it is 0.4
