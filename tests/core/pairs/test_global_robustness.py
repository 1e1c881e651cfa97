"""Global robustness: the twin network is exact, and what is proved is never exceeded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError, ContradictionError
from tasks.core.execution import asking
from tasks.core.execution.asking import Resources
from tasks.core.execution.verdict_store import VerdictStore
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.runtimes import NumpyRuntime, Runtime
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.pairs.difference_search import (
    DifferenceFindings,
    DifferenceGoal,
    DifferenceJob,
)
from tasks.core.pairs.global_robustness import ClassResult, global_robustness
from tasks.core.pairs.near_pairs import NearPairs
from tasks.core.pairs.twin_network import twin_network
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain
from tasks.core.verdicts import Verdict
from tests.networks import box, random_network
from tests.oracle import least_margin

DELTA = 0.05
DOMAIN = box([0.25, 0.0, 0.5], [0.25, 1.0, 0.75])


def results_of(
    network: ReluNetwork,
    goal: DifferenceGoal,
    domain: Box = DOMAIN,
    runtime: Runtime | None = None,
    store: VerdictStore | None = None,
) -> list[ClassResult]:
    return global_robustness(
        network,
        near(domain),
        goal,
        Resources(num_workers=2, memory_limit_bytes=2**31),
        runtime=runtime,
        store=store,
    )


def near(domain: Box, delta: float = DELTA) -> NearPairs:
    """All pairs of a box at most delta apart in every input, which may be any real number."""
    size = domain.lower.shape[1]
    return NearPairs.within(domain, np.full(size, delta), Domain((size,)))


def pairs(domain: Box, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Points (x, d) of the twin's box, half of them corners, and their pairs."""
    generator = np.random.default_rng(7)
    twins = near(domain).points
    spread = generator.random((count, twins.lower.shape[1]))
    spread[: count // 2] = spread[: count // 2].round()
    points = twins.lower + spread * (twins.upper - twins.lower)
    first = points[:, : domain.lower.shape[1]]
    return points, first, np.clip(first + changes(domain, points), domain.lower, domain.upper)


def changes(domain: Box, points: FloatArray) -> FloatArray:
    """d of points (x, d), 0 where nothing can differ."""
    size = domain.lower.shape[1]
    found = np.zeros((len(points), size))
    found[:, near(domain).columns] = points[:, size:]
    return found


@pytest.mark.parametrize("widths", [(3, 2), (3, 8, 2), (3, 8, 6, 2)])
def test_the_twin_is_the_difference_of_two_passes(widths: tuple[int, ...]) -> None:
    for seed in range(5):
        network = random_network(np.random.default_rng(seed), widths)
        points, first, second = pairs(DOMAIN, 400)
        twin = twin_network(network, near(DOMAIN))
        expected = network(second) - network(first)
        np.testing.assert_allclose(twin(points), expected, atol=1e-12)
        loose = twin_network(network, near(DOMAIN), clipped=False)
        expected = network(first + changes(DOMAIN, points)) - network(first)
        np.testing.assert_allclose(loose(points), expected, atol=1e-12)


def test_linear_units_pass_in_both_copies() -> None:
    network = random_network(np.random.default_rng(0), (3, 6, 2))
    mixed = ReluNetwork(network.layers, (np.arange(6) % 2 == 0,))
    points, first, second = pairs(DOMAIN, 200)
    twin = twin_network(mixed, near(DOMAIN))
    np.testing.assert_allclose(twin(points), mixed(second) - mixed(first), atol=1e-12)


def test_a_linear_model_moves_by_the_norm_of_its_row() -> None:
    """The first input is a point, so that only the others move: delta times their weights."""
    network = ReluNetwork((Affine(np.array([[5.0, 2.0, -1.0], [1.0, 0.0, 3.0]]), np.zeros(2)),))
    results = results_of(network, DifferenceGoal(None, 0.001, 20))
    for result, norm in zip(results, (3.0, 3.0), strict=True):
        assert result.verdict is Verdict.ROBUST
        assert result.largest_difference <= norm * DELTA + 1e-12
        assert norm * DELTA <= result.epsilon <= norm * DELTA + 0.001


@pytest.mark.parametrize("deployed", [True, False])
def test_brackets_hold_the_exact_greatest_difference(deployed: bool) -> None:
    for seed in range(3):
        network = random_network(np.random.default_rng(seed), (3, 5, 2))
        runtime = NumpyRuntime(network) if deployed else None
        results = results_of(network, DifferenceGoal(None, 0.002, 20), runtime=runtime)
        _, first, second = pairs(DOMAIN, 20_000)
        sampled = np.abs(network(second) - network(first)).max(axis=0)
        for result in results:
            assert result.verdict is Verdict.ROBUST, result.reason
            assert result.epsilon - result.largest_difference <= 0.002
            assert sampled[result.label] < result.epsilon
            exact = greatest_difference(network, result.label)
            assert result.largest_difference <= exact + 1e-5 <= result.epsilon + 2e-5
            assert result.pair is not None
            near, far = result.pair
            assert np.abs(far - near).max() <= DELTA
            assert DOMAIN.contains(near[None])[0]
            assert DOMAIN.contains(far[None])[0]


def greatest_difference(network: ReluNetwork, label: int) -> float:
    """By the mixed-integer oracle: the least "margin" of 0 over the difference."""
    twin = twin_network(network, near(DOMAIN))
    last = twin.layers[-1]
    zero = np.zeros((1, last.weight.shape[1]))
    rows = Affine(np.vstack([zero, last.weight[[label]]]), np.zeros(2))
    hidden, linear = _without_linear(twin)
    return -least_margin(ReluNetwork((*hidden, _signed(rows, linear))), near(DOMAIN).points, 0)


def _without_linear(twin: ReluNetwork) -> tuple[list[Affine], NDArray[np.bool_]]:
    """The oracle knows ReLUs alone: a unit that passes is shifted by what makes it positive."""
    layers: list[Affine] = []
    previous = np.zeros(twin.num_inputs, dtype=bool)
    for layer, linear in zip(twin.layers[:-1], twin.linear, strict=True):
        shifted = _signed(layer, previous)
        layers.append(Affine(shifted.weight, shifted.bias + 100.0 * linear))
        previous = linear
    return layers, previous


def _signed(layer: Affine, shifted: NDArray[np.bool_]) -> Affine:
    return Affine(layer.weight, layer.bias - 100.0 * layer.weight @ shifted)


def test_an_epsilon_asked_is_decided() -> None:
    network = random_network(np.random.default_rng(1), (3, 5, 2))
    exact = [greatest_difference(network, label) for label in range(2)]
    above = results_of(network, DifferenceGoal(1.05 * max(exact), 0.01, 20))
    assert {result.verdict for result in above} == {Verdict.ROBUST}
    below = results_of(
        network, DifferenceGoal(0.9 * min(exact), 0.01, 20), runtime=NumpyRuntime(network)
    )
    assert {result.verdict for result in below} == {Verdict.FALSIFIED}
    assert all(result.largest_difference >= 0.9 * min(exact) for result in below)


def test_no_time_no_claim() -> None:
    network = random_network(np.random.default_rng(1), (3, 5, 2))
    for result in results_of(network, DifferenceGoal(None, 0.01, 0.0)):
        assert (result.verdict, result.epsilon) == (Verdict.UNKNOWN, np.inf)
        assert result.reason == "time limit of 0 s"


def test_a_second_call_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, goal = (
        random_network(np.random.default_rng(2), (3, 5, 2)),
        DifferenceGoal(None, 0.01, 9),
    )
    with VerdictStore(tmp_path / "verdicts.db") as store:
        first = results_of(network, goal, store=store)
        jobs: list[int] = []

        def counted(*arguments: object, **options: object) -> Iterator[object]:
            jobs.append(len(arguments[2]))
            yield from ()

        monkeypatch.setattr(asking, "run_jobs", counted)
        second = results_of(network, goal, store=store)
    assert jobs == [0]
    for before, after in zip(first, second, strict=True):
        assert (before.epsilon, before.largest_difference) == (
            after.epsilon,
            after.largest_difference,
        )


def answering(monkeypatch: pytest.MonkeyPatch, findings: DifferenceFindings) -> None:
    """Every job has these findings."""

    def answered(
        make: object, arguments: object, jobs: list[DifferenceJob], **options: object
    ) -> Iterator[Outcome[DifferenceJob, DifferenceFindings]]:
        for job in jobs:
            yield Outcome(job, Ending.DONE, findings, "", 0.0)

    monkeypatch.setattr(asking, "run_jobs", answered)


@pytest.mark.parametrize("deployed", [True, False])
def test_a_pair_beyond_the_proof_stops_the_run(
    monkeypatch: pytest.MonkeyPatch, deployed: bool
) -> None:
    network = ReluNetwork((Affine(np.array([[5.0, 2.0, -1.0]]), np.zeros(1)),))
    point = np.array([[0.25, 0.5, 0.6, DELTA, 0.0]])
    answering(monkeypatch, DifferenceFindings(proved=0.01, points=point))
    runtime = NumpyRuntime(network) if deployed else None
    with pytest.raises(ContradictionError, match=r"output 0: proved to differ by less than 0\.01"):
        results_of(network, DifferenceGoal(None, 0.01, 9), runtime=runtime)


def test_what_float32_alone_moves_is_no_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 2^24 there are even numbers only: 0.96 more is nothing, 1.15 more is 2."""
    network = ReluNetwork((Affine(np.array([[0.0, 4.0, 0.0]]), np.array([2.0**24])),))
    point = np.array([[0.25, 0.24, 0.6, DELTA, 0.0]])
    answering(monkeypatch, DifferenceFindings(proved=0.2001, points=point))
    (result,) = results_of(network, DifferenceGoal(None, 0.001, 9), runtime=NumpyRuntime(network))
    assert (result.epsilon, result.largest_difference) == (0.2001, 2.0)
    assert result.verdict is Verdict.UNKNOWN
    assert "float32 rounding" in result.reason


def test_impossible_goals_are_refused() -> None:
    network = random_network(np.random.default_rng(1), (3, 5, 2))
    with pytest.raises(CertiflowError, match="the pairs are of 1 inputs: expected 3"):
        twin_network(network, near(box([0.0], [1.0])))
    with pytest.raises(CertiflowError, match="one box of 3 inputs"):
        NearPairs.within(box([0.0], [1.0]), np.full(1, DELTA), Domain((3,)))
    with pytest.raises(CertiflowError, match="delta is -1"):
        near(DOMAIN, -1.0)
    with pytest.raises(CertiflowError, match="no two images of the domain differ"):
        near(DOMAIN, 0.0)
    with pytest.raises(CertiflowError, match="epsilon is 0"):
        DifferenceGoal(0.0, 0.1, 1.0)
    with pytest.raises(CertiflowError, match="tolerance is 0"):
        DifferenceGoal(None, 0.0, 1.0)
