"""Global robustness of tables: held against all pairs of their rows, and against sampled ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.execution import asking
from tasks.core.execution.asking import Resources
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.pairs.difference_search import DifferenceGoal
from tasks.core.pairs.global_robustness import ClassResult, global_robustness
from tasks.core.pairs.near_pairs import NearPairs
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain, Feature
from tasks.core.verdicts import Verdict
from tests.networks import random_network
from tests.one_process import outcomes_here

FEATURES = [
    Feature(name="late", kind="integer", lower=-1, upper=3),
    Feature(name="months", kind="integer", lower=0, upper=4),
    Feature(name="age", kind="integer", lower=0, upper=2),  # differs between pairs, not within
    Feature(name="sex", kind="category", categories=("m", "f")),
]
RELATIONS = ["late <= months", "late + months <= 4", "age > 0 -> months > 0"]
LOWER, UPPER = np.array([-1.0, 0, 0, 0, 1]), np.array([3.0, 4, 2, 0, 1])
DELTA = np.array([1.0, 2, 0, 0, 0])
RESOURCES = Resources(num_workers=1, memory_limit_bytes=2**31)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "outcomes", outcomes_here)


def asked(
    network: ReluNetwork, pairs: NearPairs, goal: DifferenceGoal, *, deployed: bool
) -> list[ClassResult]:
    runtime = NumpyRuntime(network) if deployed else None
    return global_robustness(network, pairs, goal, RESOURCES, runtime=runtime)


def all_pairs(relations: list[str]) -> tuple[FloatArray, FloatArray]:
    """First and second rows, from the features' and relations' words alone."""

    def is_row(late: int, months: int, age: int) -> bool:
        said = {
            "late <= months": late <= months,
            "late + months <= 4": late + months <= 4,
            "age > 0 -> months > 0": age == 0 or months > 0,
        }
        return all(said[each] for each in relations)

    rows = [row for row in itertools.product(range(-1, 4), range(5), range(3)) if is_row(*row)]
    found = [
        (one, two)
        for one, two in itertools.product(rows, rows)
        if abs(one[0] - two[0]) <= 1 and abs(one[1] - two[1]) <= 2 and one[2] == two[2]
    ]
    first, second = (np.array([[*pair[place], 0, 1] for pair in found], float) for place in (0, 1))
    return first, second


@pytest.mark.parametrize("deployed", [True, False])
@pytest.mark.parametrize("relations", [[], RELATIONS[:1], RELATIONS])
def test_brackets_hold_the_greatest_difference_of_all_pairs(
    relations: list[str], deployed: bool
) -> None:
    """Complete on whole numbers: the bracket is as narrow as asked."""
    domain = Domain.of_table(FEATURES, relations)
    pairs = NearPairs.within(Box(LOWER[None], UPPER[None]), DELTA, domain)
    first, second = all_pairs(relations)
    for seed in range(4):
        network = random_network(np.random.default_rng([seed, 5]), (5, 6, 2))
        exact = np.abs(network(second) - network(first)).max(axis=0)
        goal = DifferenceGoal(None, 0.01, 30, seed=seed)
        for result in asked(network, pairs, goal, deployed=deployed):
            assert result.verdict is Verdict.ROBUST, result.reason
            greatest = exact[result.label]
            assert greatest < result.epsilon <= greatest + 0.0101
            assert greatest - 0.0101 <= result.largest_difference <= greatest + 1e-5
            assert result.pair is not None
            assert any(
                np.array_equal(result.pair[0], one) and np.array_equal(result.pair[1], two)
                for one, two in zip(first, second, strict=True)
            )


def test_an_epsilon_is_decided_between_whole_numbers() -> None:
    """|late - 1/2| is the same at 0 and 1: between them lies a fall that no rows show."""
    network = ReluNetwork(
        (
            Affine(np.array([[1.0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0]]), np.array([-0.5, 0.5])),
            Affine(np.array([[2.0, 2.0]]), np.zeros(1)),
        )
    )
    lower, upper = LOWER.copy(), UPPER.copy()
    lower[0], upper[0] = 0, 1
    domain = Domain.of_table(FEATURES)
    pairs = NearPairs.within(Box(lower[None], upper[None]), DELTA, domain)
    (result,) = asked(network, pairs, DifferenceGoal(0.01, 0.001, 30), deployed=True)
    assert result.verdict is Verdict.ROBUST
    assert result.epsilon <= 0.01


def test_real_and_whole_features_together() -> None:
    """What is proved is not exceeded by thousands of pairs; those found are pairs."""
    features = [Feature(name="rate", upper=1), *FEATURES]
    domain = Domain.of_table(features, ["late <= months"])
    lower, upper = np.append(0.25, LOWER)[None], np.append(0.75, UPPER)[None]
    pairs = NearPairs.within(Box(lower, upper), np.append(0.1, DELTA), domain)
    generator = np.random.default_rng(9)
    first = np.round(generator.uniform(lower - 0.49, upper + 0.49, (40_000, 6)))
    first[:, 0] = generator.uniform(0.25, 0.75, len(first))
    first[:, 4:] = lower[0, 4:]
    second = first + np.round(generator.uniform(-2.49, 2.49, first.shape)) * [0, 1, 1, 0, 0, 0]
    second[:, 0] += generator.choice([-0.1, 0.1], len(first))
    both = zip(first, second, strict=True)
    kept = [place for place, pair in enumerate(both) if pairs.contains(*pair)]
    assert len(kept) > 1000
    for seed in range(3):
        network = random_network(np.random.default_rng([seed, 6]), (6, 5, 2))
        sampled = np.abs(network(second[kept]) - network(first[kept])).max(axis=0)
        for result in asked(network, pairs, DifferenceGoal(None, 0.05, 10), deployed=True):
            assert sampled[result.label] < result.epsilon
            assert result.pair is not None
            assert pairs.contains(*result.pair)


def test_one_output_is_asked_about_as_well() -> None:
    """A regression: months move its value by 3 each, by at most 2 of them."""
    network = ReluNetwork((Affine(np.array([[0.0, 3.0, 0, 0, 0]]), np.zeros(1)),))
    domain = Domain.of_table(FEATURES)
    pairs = NearPairs.within(Box(LOWER[None], UPPER[None]), DELTA, domain)
    (result,) = asked(network, pairs, DifferenceGoal(None, 0.001, 30), deployed=True)
    assert result.largest_difference == 6.0
    assert 6.0 < result.epsilon <= 6.001
