"""What an answer of the ladder must be worth, whatever it is."""

from __future__ import annotations

from typing import get_args

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.attacks import falsification
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.answer import Answer
from tasks.core.verdicts import Engine, Verdict
from tests.networks import (
    sampled_points,
)

ENGINES: tuple[Engine, ...] = get_args(Engine)
TIMEOUT_SECONDS = 10.0
ORACLE_TOLERANCE = 1e-6


def cube(inputs: int, radius: float) -> Box:
    return Box(np.full((1, inputs), -radius), np.full((1, inputs), radius))


def single(region: UnsafeRegion) -> Property:
    return Property((region,))


def seen_by(network: ReluNetwork, prop: Property) -> ReluNetwork:
    """The network whose outputs the property's rows speak of."""
    mixed = prop.unsafe[0].rows.shape[1] > network.num_outputs
    return network.with_inputs() if mixed else network


def least_found(
    generator: np.random.Generator, network: ReluNetwork, region: UnsafeRegion, start: FloatArray
) -> float:
    """The least excess that descent finds from the oracle's point and 20 restarts."""
    starts = np.vstack([start, sampled_points(generator, region.box, 20)])
    return float(falsification.descend(network, region.box, region, starts, num_steps=60)[1].min())


def check_falsified(network: ReluNetwork, prop: Property, answer: Answer) -> None:
    """The first candidate lies in its region's box and reaches the region when evaluated alone."""
    assert answer.region is not None
    region, point = prop.unsafe[answer.region], answer.candidates[:1]
    assert region.box.contains(point)[0]
    assert region.excess(network(point))[0] <= 0


def check_answer(
    generator: np.random.Generator,
    network: ReluNetwork,
    prop: Property,
    answer: Answer,
    exact: float,
) -> None:
    if answer.verdict is Verdict.FALSIFIED:
        check_falsified(network, prop, answer)
        assert exact < ORACLE_TOLERANCE
    elif answer.verdict is Verdict.ROBUST:
        assert exact > -ORACLE_TOLERANCE
        assert answer.margin is not None
        assert 0 < answer.margin <= exact + ORACLE_TOLERANCE
    else:
        assert answer.verdict in {Verdict.UNKNOWN, Verdict.TIMEOUT}, answer.reason
