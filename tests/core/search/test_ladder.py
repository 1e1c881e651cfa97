"""The ladder decides as the exact oracle does: no wrong verdict, no margin that is too high."""

from __future__ import annotations

import os
from collections import Counter
from typing import Literal

import numpy as np
import pytest

from tasks.core.networks.block_matrix import BlockMatrix
from tasks.core.networks.matrices import DenseMatrix
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.ladder import decide
from tasks.core.verdicts import WITNESSED_ONLY, DecidedBy, Engine, Verdict
from tests.core.search.answers import (
    ENGINES,
    TIMEOUT_SECONDS,
    check_answer,
    check_falsified,
    least_found,
    seen_by,
)
from tests.networks import (
    KINDS,
    Kind,
    box,
    hand_computed,
    random_network_of,
    random_property,
)
from tests.oracle import least_excess_at

CASES = int(os.environ.get("CERTIFLOW_ORACLE_CASES", "200"))
NEAR_BOUNDARY = 1e-4


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("num_inputs", ["few", "many"])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_exact_oracle(kind: Kind, num_inputs: Literal["few", "many"]) -> None:
    """All engines on the same random properties; the ladder leaves none but near zero."""
    verdicts: Counter[Verdict] = Counter()
    stages: Counter[DecidedBy] = Counter()
    for case in range(-(-CASES // 6)):
        generator = np.random.default_rng([KINDS.index(kind), num_inputs == "many", case])
        network = random_network_of(generator, kind, num_inputs)
        kept = {type(layer.matrix) for layer in network.layers}
        assert kept == {DenseMatrix if kind == "dense" else BlockMatrix}
        prop = random_property(generator, network)
        whole = seen_by(network, prop)
        found = [least_excess_at(whole, region) for region in prop.unsafe]
        exact = min(value for value, _ in found)
        answers = {
            engine: decide(network, prop, engine=engine, timeout_seconds=TIMEOUT_SECONDS)
            for engine in ENGINES
        }
        for answer in answers.values():
            check_answer(generator, whole, prop, answer, exact)
        given = {answer.verdict for answer in answers.values()}
        assert not given >= {Verdict.ROBUST, Verdict.FALSIFIED}
        if Verdict.ROBUST in given:
            for region, (_, start) in zip(prop.unsafe, found, strict=True):
                assert least_found(generator, whole, region, start) > 0
        if answers["ladder"].verdict is Verdict.UNKNOWN:
            witnessed = answers["ladder"].reason == WITNESSED_ONLY  # with more time, proved
            assert abs(exact) < NEAR_BOUNDARY or (witnessed and exact > 0)
        verdicts[answers["ladder"].verdict] += 1
        stages[answers["ladder"].decided_by] += 1
    total = verdicts.total()
    assert verdicts[Verdict.UNKNOWN] <= max(1, total / 50)
    if total >= 30:  # the cases are worth something
        assert verdicts[Verdict.ROBUST] >= total / 5
        assert verdicts[Verdict.FALSIFIED] >= total / 5
        assert stages[DecidedBy.BRANCH_AND_BOUND] >= 1


def test_hand_computed() -> None:
    """Margin relu(x1 + x2) + 1 - relu(x1 - x2): at least 2/3 on the first box, 0 at (-1, -2)."""
    near = Property.robustness(box([0.0, 0.0], [1.0, 0.5]), 0, 2)
    answer = decide(hand_computed(), near, timeout_seconds=TIMEOUT_SECONDS)
    assert answer.verdict is Verdict.ROBUST
    assert answer.margin == pytest.approx(2 / 3)
    far = Property.robustness(box([-1.0, -2.0], [1.0, 0.5]), 0, 2)
    answer = decide(hand_computed(), far, timeout_seconds=TIMEOUT_SECONDS)
    assert answer.verdict is Verdict.FALSIFIED
    check_falsified(hand_computed(), far, answer)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_region_named_is_the_one_reached(engine: Engine) -> None:
    """Two boxes, taken in turn; only the third region, in the second box, is reached."""
    identity = ReluNetwork((Affine(np.eye(2), np.zeros(2)),))
    row, one, other = np.array([[1.0, 0.0]]), box([1.0, 0.0], [2.0, 1.0]), box([3.0] * 2, [4.0] * 2)
    offsets = (-0.5, -2.5, -3.5, 0.0)
    prop = Property(
        tuple(
            UnsafeRegion(ball, row, np.array([offset]))
            for ball, offset in zip((one, other, other, one), offsets, strict=True)
        )
    )
    answer = decide(identity, prop, engine=engine, timeout_seconds=TIMEOUT_SECONDS)
    assert (answer.verdict, answer.region) == (Verdict.FALSIFIED, 2)
    check_falsified(identity, prop, answer)


def test_margin_is_the_least_of_all_regions_over_all_boxes() -> None:
    """|x| + 0.01 and 1000 |x| + 1: the first is excluded early in every part of the box."""
    network = ReluNetwork(
        (
            Affine(np.ones((2, 1)), np.array([0.0, 2.0])),
            Affine(np.array([[2.0, -1.0], [2000.0, -1000.0]]), np.array([2.0, 2000.0])),
        )
    )
    for upper in (1.2, 1.22, 1.24, 1.27):
        ball = box([-1.0], [upper])
        regions = tuple(
            UnsafeRegion(ball, row[None], np.array([offset]))
            for row, offset in zip(np.eye(2), (0.01, 1.0), strict=True)
        )
        answer = decide(network, Property(regions), timeout_seconds=TIMEOUT_SECONDS)
        assert (answer.verdict, answer.decided_by) == (Verdict.ROBUST, DecidedBy.BRANCH_AND_BOUND)
        assert answer.margin is not None
        assert answer.margin <= 0.01


@pytest.mark.parametrize("engine", ENGINES)
def test_no_unsafe_region_is_no_proof(engine: Engine) -> None:
    answer = decide(hand_computed(), Property(()), engine=engine, timeout_seconds=1.0)
    assert answer.verdict is Verdict.UNKNOWN
    assert answer.reason
