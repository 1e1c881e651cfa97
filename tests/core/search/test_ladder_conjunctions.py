"""Regions of several rows are reached only where all rows are."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.attacks import falsification
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.ladder import decide
from tasks.core.verdicts import DecidedBy, Engine, Verdict
from tests.core.search.answers import (
    ENGINES,
    TIMEOUT_SECONDS,
    check_answer,
    check_falsified,
    cube,
    single,
)
from tests.networks import (
    box,
    random_network,
    sampled_points,
)
from tests.oracle import least_excess_at


@pytest.mark.parametrize("engine", ENGINES)
def test_conjunction_is_reached_only_where_all_rows_are(engine: Engine) -> None:
    """x1 <= 0 and x1 >= gap are each reached in the box, but never both."""
    network = ReluNetwork((Affine(np.array([[1.0, 0.0]]), np.zeros(1)),))
    rows = np.array([[1.0], [-1.0]])
    for gap, allowed in ((0.5, {Verdict.ROBUST, Verdict.UNKNOWN}), (-0.5, {Verdict.FALSIFIED})):
        region = UnsafeRegion(box([-1.0] * 2, [1.0] * 2), rows, np.array([0.0, gap]))
        answer = decide(network, single(region), engine=engine, timeout_seconds=TIMEOUT_SECONDS)
        assert answer.verdict in allowed
        assert engine == "bounds" or answer.verdict is not Verdict.UNKNOWN


@pytest.mark.parametrize("seed", range(6))
def test_conjunction_over_a_network_without_hidden_layers(seed: int) -> None:
    """More than twelve inputs, so phases would be split: there are none."""
    generator = np.random.default_rng(seed)
    network = random_network(generator, (15, 4))
    offsets = generator.uniform(0, 4, 3)
    region = UnsafeRegion(cube(15, 1.0), generator.normal(size=(3, 4)), offsets)
    answer = decide(network, single(region), timeout_seconds=TIMEOUT_SECONDS)
    check_answer(generator, network, single(region), answer, least_excess_at(network, region)[0])


def test_regions_of_unlike_numbers_of_rows() -> None:
    """One, two and three rows over one box, close to being reached: the search mixes them."""
    branched = 0
    for seed in range(24):
        generator = np.random.default_rng(seed)
        network = random_network(generator, (15, 12, 12, 4))
        ball = cube(15, 0.5)
        outputs = network(sampled_points(generator, ball, 2000))
        regions = []
        for count in (1, 3, 2):
            rows = generator.normal(size=(count, 4))
            offset = 0.9 - (outputs @ rows.T).max(axis=1).min()
            regions.append(UnsafeRegion(ball, rows, np.full(count, offset)))
        prop = Property(tuple(regions))
        answer = decide(network, prop, timeout_seconds=2.0)
        assert answer.verdict in {Verdict.FALSIFIED, Verdict.ROBUST, Verdict.TIMEOUT}
        if answer.verdict is Verdict.FALSIFIED:
            check_falsified(network, prop, answer)
        if answer.verdict is Verdict.ROBUST:
            starts = sampled_points(generator, ball, 20)
            for region in regions:
                found = falsification.descend(network, ball, region, starts, num_steps=60)[1]
                assert answer.margin is not None
                assert answer.margin <= found.min()
        branched += answer.decided_by is DecidedBy.BRANCH_AND_BOUND
        if branched == 4:
            break
    assert branched == 4


def test_rounded_weights_of_a_conjunction_prove_nothing() -> None:
    """`rows * (x1 - t) <= 0` in every row at x1 = t exactly, though each weighted sum is rounded.

    The rows sum to zero, so with equal weights the bound is nothing but rounding error.
    """
    generator = np.random.default_rng(0)
    network = ReluNetwork(
        (Affine(np.eye(1, 13), np.zeros(1)), Affine(np.eye(1), np.zeros(1))),
        (np.ones(1, dtype=bool),),
    )
    for _ in range(60):
        rows = generator.integers(-9, 10, size=int(generator.integers(2, 6))).astype(float)
        rows[-1] -= rows.sum()
        t = float(generator.integers(1, 2**40)) / 2**40  # rows * t are exact
        lower, upper, point = np.zeros((3, 1, 13))
        lower[0, 0], upper[0, 0] = t - generator.random() * 0.1, t + generator.random() * 0.1
        point[0, 0] = t
        region = UnsafeRegion(Box(lower, upper), rows[:, None], -rows * t)
        assert region.excess(network(point))[0] == 0
        answer = decide(network, single(region), timeout_seconds=0.02)
        assert answer.verdict is not Verdict.ROBUST


@pytest.mark.parametrize("seed", range(4))
def test_clauses_are_satisfied_where_an_enumeration_says_so(seed: int) -> None:
    """Sixteen inputs that must be 0 or 1, `sum of min(x, 1 - x) <= 0`, and clauses of three each.

    Each clause's unit is `relu(1 - sum of its literals)`, and the sum of them must be 0. Relaxed,
    the two rows are met by one half everywhere: only split inputs, clipped by both rows, show more.
    """
    generator = np.random.default_rng(seed)
    count, clauses = 16, 75 - 20 * (seed % 2)  # four a name are about as many as can be satisfied
    weight, bias = np.zeros((2 * count + clauses, count)), np.zeros(2 * count + clauses)
    weight[:count], weight[count : 2 * count] = np.eye(count), 2 * np.eye(count)
    bias[count : 2 * count], bias[2 * count :] = -1, 1
    assignments = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    satisfied = np.ones(2**count, dtype=bool)
    for clause in range(2 * count, 2 * count + clauses):
        names, negated = generator.permutation(count)[:3], generator.random(3) < 0.5
        weight[clause, names] = np.where(negated, 1, -1)
        bias[clause] -= negated.sum()
        satisfied &= (assignments[:, names] != negated).any(axis=1)
    output = np.zeros((2, len(bias)))
    output[0, 2 * count :], output[1, :count], output[1, count : 2 * count] = 1, 1, -1
    network = ReluNetwork((Affine(weight, bias), Affine(output, np.zeros(2))))
    region = UnsafeRegion(box([0.0] * count, [1.0] * count), np.eye(2), np.zeros(2))
    answer = decide(network, single(region), timeout_seconds=TIMEOUT_SECONDS, with_marabou=False)
    assert (answer.verdict is Verdict.FALSIFIED) == satisfied.any()
    assert (answer.verdict is Verdict.ROBUST) == (not satisfied.any())
    if satisfied.any():
        check_falsified(network, single(region), answer)
