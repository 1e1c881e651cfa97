"""Monotone and fair, held against all pairs of small tables, and on networks made for it."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.execution import asking
from tasks.core.execution.asking import Resources
from tasks.core.execution.verdict_store import VerdictStore
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.networks.side_by_side import paired
from tasks.core.pairs.monotone import monotone_boxes
from tasks.core.pairs.pair_solver import PairGoal
from tasks.core.pairs.relational import PairResult, verify_pairs
from tasks.core.pairs.requirements import (
    TOLERANCE,
    Requirement,
    are_in_order,
    pair_property,
)
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation
from tasks.core.verdicts import Verdict
from tasks.core.verification.balls import Sample
from tasks.core.verification.replay import float32_inside
from tests.networks import random_network
from tests.one_process import outcomes_here
from tests.oracle import least_excess

CASES = int(os.environ.get("CERTIFLOW_PAIR_CASES", "60"))
FEATURES = [
    Feature(name="late", kind="integer", lower=0, upper=2, mutable=False),
    Feature(name="amount", kind="integer", lower=0, upper=3, scale=1),
    Feature(name="flag", kind="binary", mutable=False),
    Feature(name="sex", kind="category", categories=("m", "f", "x"), mutable=False),
]
DOMAIN = Domain.of_table(FEATURES)
TABLE = Perturbation.of_table(DOMAIN, np.zeros((1, 6), np.float32), "absolute")
REALS = Perturbation.of_table(
    Domain.of_table(
        [Feature(name="rate", mutable=False), Feature(name="one"), Feature(name="two")]
    ),
    np.zeros((1, 3), np.float32),
    "absolute",
)
GOAL = PairGoal("ladder", 20.0, 0)
RESOURCES = Resources(num_workers=1, memory_limit_bytes=2**31)
REQUIREMENTS = [
    Requirement("late", "up", 1),
    Requirement("amount", "down", 1),
    Requirement("sex", "same"),
    Requirement("flag", "same"),
]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "outcomes", outcomes_here)


def asked(network: ReluNetwork, row: FloatArray, *requirements: Requirement) -> list[PairResult]:
    inputs = row[None].astype(np.float32)
    sample = Sample(np.array([9]), inputs, np.array([0]), TABLE)
    return verify_pairs(
        NumpyRuntime(network), network, sample, [1.0], requirements, GOAL, RESOURCES
    )


def all_pairs(row: FloatArray, requirement: Requirement) -> list[tuple[FloatArray, FloatArray]]:
    """Every pair: the amount within 1 of the row's, the required feature over all its values."""
    near = [a for a in range(4) if abs(a - row[1]) <= 1]
    found = []
    if requirement.feature == "amount":
        for value in range(3):
            first, other = row.copy(), row.copy()
            first[1], other[1] = value, value + 1
            found.append((first, other))
        return found
    for amount in near:
        base = row.copy()
        base[1] = amount
        if requirement.feature == "late":
            for one, next_one in itertools.pairwise(range(3)):
                first, other = base.copy(), base.copy()
                first[0], other[0] = one, next_one
                found.append((first, other))
        elif requirement.feature == "flag":
            for value in range(2):
                other = base.copy()
                other[2] = value
                found.append((base, other))
        else:
            for kind in np.eye(3):
                found.append((base, np.concatenate([base[:3], kind])))
    return found


def is_broken(network: ReluNetwork, pair: tuple[FloatArray, ...], required: Requirement) -> bool:
    logits = network(np.stack(pair))
    if required.demand == "same":
        one, other = logits.argmax(axis=1)
        return bool(one != other)
    change = float(np.diff(logits[:, 1] - logits[:, 0])[0])
    return (change if required.demand == "up" else -change) <= -TOLERANCE


def test_verdicts_are_those_of_all_pairs() -> None:
    verdicts: dict[str, Counter[Verdict]] = {each.name: Counter() for each in REQUIREMENTS}
    for case in range(CASES):
        generator = np.random.default_rng([3, case])
        network = random_network(generator, (6, 6, 4, 2))
        row = np.round(generator.uniform(DOMAIN.lower - 0.49, DOMAIN.upper + 0.49))
        row[3:] = np.eye(3)[generator.integers(0, 3)]
        for required, result in zip(REQUIREMENTS, asked(network, row, *REQUIREMENTS), strict=True):
            pairs = all_pairs(row, required)
            broken = any(is_broken(network, pair, required) for pair in pairs)
            expected = Verdict.FALSIFIED if broken else Verdict.ROBUST
            assert result.verdict is expected, (case, required, result)
            assert (result.sample_index, result.requirement) == (9, required)
            if result.pair is not None:
                first, other = (each.astype(float) for each in result.pair)
                assert any(
                    np.array_equal(first, one) and np.array_equal(other, two)
                    for one, two in [*pairs, *((b, a) for a, b in pairs)]
                )
                assert is_broken(network, (first, other), required)
            verdicts[required.name][result.verdict] += 1
    for name, counted in verdicts.items():
        assert len(counted) == 2, name


def linear(*weights: float) -> ReluNetwork:
    """The score of class 1 is this sum."""
    return ReluNetwork((Affine(np.array([[0.0] * 6, weights]), np.zeros(2)),))


def test_a_feature_without_effect_is_monotone_and_fair() -> None:
    row = np.array([1.0, 2, 0, 1, 0, 0])
    results = asked(linear(0, 0.5, 0, 0, 0, 0), row, *REQUIREMENTS)
    assert [result.verdict for result in results] == [
        Verdict.ROBUST,
        Verdict.FALSIFIED,  # a greater amount is to lower the score
        Verdict.ROBUST,
        Verdict.ROBUST,
    ]
    assert results[0].deployed


def test_real_features_are_compared_in_order() -> None:
    features = [Feature(name="rate", upper=1, mutable=False), Feature(name="other", upper=1)]
    table = Perturbation.of_table(Domain.of_table(features), np.eye(2, dtype=np.float32))
    sample = Sample(np.array([0]), np.full((1, 2), 0.5, np.float32), np.array([0]), table)
    hump = ReluNetwork(
        (
            Affine(np.array([[1.0, 0], [1.0, 0]]), np.array([0.0, -0.5])),
            Affine(np.array([[0.0, 0.0], [1.0, -2.0]]), np.zeros(2)),
        )
    )
    rising = ReluNetwork((hump.layers[0], Affine(np.array([[0.0, 0.0], [1.0, -0.5]]), np.zeros(2))))
    for network, verdict in ((hump, Verdict.FALSIFIED), (rising, Verdict.ROBUST)):
        (result,) = verify_pairs(
            NumpyRuntime(network),
            network,
            sample,
            [0.1],
            [Requirement("rate", "up", 1)],
            GOAL,
            RESOURCES,
        )
        assert result.verdict is verdict, result
        if result.pair is not None:
            assert result.pair[0][0] < result.pair[1][0]
            assert result.pair[0][1] == result.pair[1][1]


def asked_of_reals(
    network: ReluNetwork, center: FloatArray, epsilon: float, requirement: Requirement
) -> PairResult:
    """Of a table of real features, the first of which is asked about."""
    sample = Sample(np.array([0]), center[None].astype(np.float32), np.array([0]), REALS)
    (result,) = verify_pairs(
        NumpyRuntime(network), network, sample, [epsilon], [requirement], GOAL, RESOURCES
    )
    return result


def least_excess_of_reals(
    network: ReluNetwork, center: FloatArray, epsilon: float, requirement: Requirement
) -> float:
    """How far two copies are from breaking it, by mixed-integer programming."""
    prop = pair_property(REALS, center.astype(np.float32), epsilon, requirement, 2)
    (region,) = prop.unsafe
    return least_excess(paired(network, np.array([0])).with_inputs(), region)


@pytest.mark.parametrize("widths", [(3, 4, 2), (3, 3, 3, 2)])
def test_real_features_are_decided_as_the_oracle_does(widths: tuple[int, ...]) -> None:
    """Each is farther from the border than the oracle errs."""
    verdicts: Counter[Verdict] = Counter()
    for case in range(25):
        generator = np.random.default_rng([17, case])
        network = random_network(generator, widths)
        center, epsilon = generator.uniform(0.2, 0.8, 3), float(generator.choice([0.02, 0.3]))
        requirement = Requirement("rate", "up" if case % 2 else "down", 1)
        least = least_excess_of_reals(network, center, epsilon, requirement)
        result = asked_of_reals(network, center, epsilon, requirement)
        assert abs(least) > 1e-5
        expected = Verdict.FALSIFIED if least < 0 else Verdict.ROBUST
        assert result.verdict is expected, (case, least, result)
        verdicts[result.verdict] += 1
    assert min(verdicts[Verdict.ROBUST], verdicts[Verdict.FALSIFIED]) > 3, verdicts


def test_no_pair_breaks_what_is_proved_of_real_features() -> None:
    """Thousands of pairs, near and far, of the model in float32 where `deployed` says so."""
    proved = deployed = 0
    for case in range(30):
        generator = np.random.default_rng([18, case])
        network = random_network(generator, (3, 6, 5, 2))
        scaled = Affine(network.layers[-1].weight / 100, network.layers[-1].bias / 100)
        network = ReluNetwork((*network.layers[:-1], scaled))
        center, epsilon = generator.uniform(0.2, 0.8, 3), 0.05
        requirement = Requirement("rate", "up", 1)
        result = asked_of_reals(network, center, epsilon, requirement)
        if result.verdict is not Verdict.ROBUST:
            continue
        proved += 1
        box = monotone_boxes(REALS, center.astype(np.float32), epsilon, requirement)
        first = generator.uniform(box.lower, box.upper, (5000, 3))
        first[:2500, 1:] = np.where(
            generator.random((2500, 2)) < 0.5, box.lower[:, 1:], box.upper[:, 1:]
        )
        other = first.copy()
        far = generator.random(5000) ** generator.choice([1, 8], 5000)
        other[:, 0] += far * (1 - first[:, 0])
        first, other = (float32_inside(box, each) for each in (first, other))
        scores = [network(each) @ [-1.0, 1.0] for each in (first, other)]
        assert result.margin is not None
        assert 0 < result.margin <= TOLERANCE
        assert (scores[1] - scores[0] >= result.margin - TOLERANCE - 1e-12).all()
        if result.deployed:
            deployed += 1
            runtime = NumpyRuntime(network)
            fed = [runtime.logits(each).astype(np.float64) @ [-1.0, 1.0] for each in (first, other)]
            assert (fed[1] - fed[0] > -TOLERANCE).all()
    assert proved > 5
    assert deployed > 5


@pytest.mark.parametrize("slope", [1e-3, -1e-3])
def test_a_feature_of_many_whole_numbers_is_decided_in_one_box(slope: float) -> None:
    features = [Feature(name="n", kind="integer", upper=1e4), Feature(name="other")]
    domain = Domain.of_table(features)
    table = Perturbation.of_table(domain, np.array([[0, 0], [9, 1]], np.float32))
    requirement = Requirement("n", "up", 1)
    center = np.array([5, 0.5], np.float32)
    assert len(pair_property(table, center, 0.1, requirement, 2).unsafe) == 1
    network = ReluNetwork((Affine(np.array([[0.0, 0.0], [slope, 1.0]]), np.zeros(2)),))
    sample = Sample(np.array([0]), center[None], np.array([0]), table)
    (result,) = verify_pairs(
        NumpyRuntime(network), network, sample, [0.1], [requirement], GOAL, RESOURCES
    )
    assert result.verdict is (Verdict.ROBUST if slope > 0 else Verdict.FALSIFIED)
    if result.pair is not None:
        first, other = result.pair
        assert first[0] < other[0]
        assert domain.contains(np.stack(result.pair)).all()


def test_verdicts_are_stored_for_the_columns_and_relations_asked_about(tmp_path: Path) -> None:
    """Both features have the same values, and the decision depends on one of them alone."""
    network = ReluNetwork((Affine(np.array([[0.0, 0.0], [0.0, 1.0]]), np.array([0.5, 0])),))
    verdicts = []
    with VerdictStore(tmp_path / "verdicts.db") as store:
        for names in (("a", "b"), ("b", "a")):
            features = [Feature(name=name, kind="integer", upper=3, scale=1) for name in names]
            domain = Domain.of_table(features)
            table = Perturbation.of_table(domain, np.zeros((1, 2), np.float32), "absolute")
            sample = Sample(np.array([0]), np.ones((1, 2), np.float32), np.array([0]), table)
            (result,) = verify_pairs(
                NumpyRuntime(network),
                network,
                sample,
                [1.0],
                [Requirement("a", "same")],
                GOAL,
                RESOURCES,
                store=store,
            )
            verdicts.append(result.verdict)
    assert verdicts == [Verdict.ROBUST, Verdict.FALSIFIED]


def test_pairs_in_the_wrong_order_break_nothing() -> None:
    up, same = Requirement("late", "up", 1), Requirement("late", "same")
    one, two = np.ones(1, np.float32), np.full(1, 2, np.float32)
    assert are_in_order(up, one, two)
    assert are_in_order(up, one, one)
    assert not are_in_order(up, two, one)
    assert are_in_order(same, two, one)


@pytest.mark.parametrize(
    ("requirement", "classes", "said"),
    [
        (Requirement("age", "same"), 2, "no feature 'age'; expected one of late, amount"),
        (Requirement("sex", "up", 1), 2, "sex is a category, whose values have no order"),
        (Requirement("late", "up", 1), 3, "of two classes"),
        (Requirement("late", "up"), 2, "set data.positive"),
    ],
)
def test_requirements_that_cannot_be_made(
    requirement: Requirement, classes: int, said: str
) -> None:
    with pytest.raises(CertiflowError, match=said):
        requirement.check(DOMAIN, classes)
