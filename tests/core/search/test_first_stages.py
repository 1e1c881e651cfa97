"""The batched stages: every ball once, sound, and nothing that the ladder computes again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tasks.core.arrays import Inputs
from tasks.core.attacks import falsification, gradient
from tasks.core.bounds.linear import margin_lower_bounds, preactivation_bounds
from tasks.core.data.datasets import Dataset
from tasks.core.execution import asking
from tasks.core.execution.asking import Resources
from tasks.core.models.runtimes import Classifier, NumpyRuntime
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property
from tasks.core.readers.keras_network import relu_network
from tasks.core.search import box_bounds, first_stages
from tasks.core.search.answer import Answer, Known
from tasks.core.search.first_stages import AttackStrength, FirstStages
from tasks.core.search.ladder import decide
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult
from tasks.core.verification.balls import Sample
from tasks.core.verification.local_robustness import verify
from tests.networks import ball_around, pixels, random_network
from tests.one_process import outcomes_here
from tests.oracle import least_margin

ATTACK = AttackStrength(num_steps=5, num_restarts=1, seed=0)
EPSILON = 0.15


def points(count: int, seed: int = 0, inputs: int = 14) -> tuple[ReluNetwork, Sample]:
    """A random network, and points that it gives the labels of."""
    generator = np.random.default_rng(seed)
    network = random_network(generator, (inputs, 16, 16, 3))
    images = generator.random((count, inputs), dtype=np.float32)
    return network, Sample(np.arange(count), images, network(images).argmax(axis=1), pixels(images))


def stages_of(network: ReluNetwork, sample: Sample) -> FirstStages:
    return FirstStages(
        NumpyRuntime(network), network, sample.inputs, sample.labels, sample.perturbation, ATTACK
    )


def test_every_point_once_and_none_proved_that_breaks() -> None:
    """Against the exact oracle; without gradients nothing is attacked."""
    decided: Counter[DecidedBy | None] = Counter()
    for seed in range(4):
        network, sample = points(6, seed, inputs=4)
        for epsilon in (0.02, 0.1, 0.3):
            found = list(stages_of(network, sample).run([5, 0, 3], epsilon))
            assert sorted(row for row, _ in found) == [0, 3, 5]
            for row, said in found:
                ball = ball_around(sample.inputs[row][None], epsilon)
                exact = least_margin(network, ball, int(sample.labels[row]))
                if isinstance(said, Known):
                    decided[None] += 1
                    assert (said.lower <= 0).any()
                    assert said.lower.min() <= exact + 1e-6
                else:
                    decided[said.decided_by] += 1
                    assert said.verdict is Verdict.ROBUST
                    assert said.margin is not None
                    assert 0 < said.margin <= exact + 1e-6
    assert min(decided[stage] for stage in (DecidedBy.INTERVAL, DecidedBy.CROWN, None)) >= 3


def test_what_is_handed_on_holds_in_its_ball_and_is_no_looser() -> None:
    network, sample = points(8)
    handed_on = [
        (row, said)
        for row, said in stages_of(network, sample).run(range(8), EPSILON)
        if isinstance(said, Known)
    ]
    assert len(handed_on) >= 3
    for row, known in handed_on:
        ball = ball_around(sample.inputs[row][None], EPSILON)
        alone = preactivation_bounds(network, ball, "crown")
        assert known.hidden is not None
        inside = np.random.default_rng(1).uniform(ball.lower, ball.upper, (200, 14))
        values = network.preactivations(inside)[:-1]
        for ours, theirs, reached in zip(known.hidden, alone, values, strict=True):
            assert (ours.lower >= theirs.lower - 1e-12).all()  # the batch opens more units
            assert (ours.upper <= theirs.upper + 1e-12).all()
            assert (reached >= ours.lower).all()
            assert (reached <= ours.upper).all()
        lower = margin_lower_bounds(network, ball, sample.labels[row : row + 1], alone)[0]
        assert (known.lower >= lower - 1e-12).all()
        assert set(known.stage_seconds) == {"interval", "crown"}


def test_the_ladder_decides_alike_with_and_without_what_is_known() -> None:
    verdicts: Counter[Verdict] = Counter()
    for seed in range(3):
        network, sample = points(8, seed)
        for row, known in stages_of(network, sample).run(range(8), EPSILON):
            if isinstance(known, Answer):
                continue
            ball = ball_around(sample.inputs[row][None], EPSILON)
            prop = Property.robustness(ball, int(sample.labels[row]), 3)
            with_it, without = (
                decide(network, prop, timeout_seconds=10, known=what) for what in (known, None)
            )
            assert with_it.verdict is without.verdict
            if with_it.verdict is Verdict.ROBUST:
                assert with_it.margin is not None
                starts = np.random.default_rng(1).uniform(ball.lower, ball.upper, (20, 14))
                for region in prop.unsafe:
                    descended = falsification.descend(network, ball, region, starts, num_steps=40)
                    assert with_it.margin <= descended[1].min()
            verdicts[with_it.verdict] += 1
    assert min(verdicts[Verdict.ROBUST], verdicts[Verdict.FALSIFIED]) >= 3


def test_each_proof_is_held_against_the_float32_error_of_its_own_ball() -> None:
    """Of x1 + x2 and x1 at x2 = 1e-7: sums near 1 lose as much in float32, sums near 0 do not."""
    network = ReluNetwork((Affine(np.array([[1.0, 1.0], [1.0, 0.0]]), np.zeros(2)),))
    images = np.array([[0, 1e-7], [1, 1e-7], [0, 1e-7]], dtype=np.float32)
    stages = FirstStages(
        NumpyRuntime(network), network, images, np.zeros(3, dtype=int), pixels(images), ATTACK
    )
    found = dict(stages.run(range(3), 1e-9))
    holds = [answer.deployed for answer in found.values() if isinstance(answer, Answer)]
    assert (list(found), holds) == ([0, 1, 2], [True, False, True])


def test_what_breaks_in_a_batch_but_not_alone_is_left_to_the_bounds(
    classifier: Classifier, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(classifier: Classifier, images: Inputs, *rest: Any, **settings: Any) -> Any:
        labels = np.zeros(len(images), dtype=np.int64)
        return gradient.Attacked(images, labels, np.ones(len(images), dtype=bool))

    monkeypatch.setattr(first_stages, "pgd", breaking)
    right = classifier.predictions(digits.test_inputs[:5]) == digits.test_labels[:5]
    rows: Sequence[int] = np.flatnonzero(right).tolist()
    network = relu_network(classifier.model)
    stages = FirstStages(
        classifier, network, digits.test_inputs, digits.test_labels, digits.perturbation, ATTACK
    )
    found = dict(stages.run(rows, 0.01))
    assert set(found) == set(rows)
    said = [answer for answer in found.values() if isinstance(answer, Answer)]
    assert all(answer.verdict is Verdict.ROBUST for answer in said)


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, counts: Counter[str]) -> None:
    """Counts the boxes that a module has bounded by each method."""

    def count(network: ReluNetwork, ball: Box, method: str, *deadline: float) -> Any:
        counts[method] += len(ball)
        return preactivation_bounds(network, ball, method, *deadline)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "preactivation_bounds", count)


def verified(network: ReluNetwork, sample: Sample) -> list[VerificationResult]:
    return verify(
        NumpyRuntime(network),
        network,
        sample,
        [0.1, EPSILON],
        engine="ladder",
        attack=ATTACK,
        timeout_seconds=10,
        resources=Resources(num_workers=1, memory_limit_bytes=2**31),
    )


def test_bounds_of_a_ball_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "outcomes", outcomes_here)
    batched, alone = Counter[str](), Counter[str]()
    counted(monkeypatch, first_stages, batched)
    counted(monkeypatch, box_bounds, alone)
    network, sample = points(12)
    results = verified(network, sample)
    solved = [r for r in results if {"attack", "alpha_crown"} & set(r.stage_seconds)]
    assert len(solved) >= 5
    left_by_intervals = sum(r.decided_by is not DecidedBy.INTERVAL for r in results)
    assert batched == {"interval": len(results), "crown": left_by_intervals}
    assert not alone

    monkeypatch.setattr(first_stages, "HANDED_ON_BYTES", 0)
    again = verified(network, sample)
    assert alone == {"interval": len(solved), "crown": len(solved)}
    assert [r.verdict for r in again] == [r.verdict for r in results]


def test_an_attack_does_not_begin_again_where_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first goes down from the center, the second from nine other points."""
    starts: list[tuple[int, bool]] = []

    def failing(*arguments: object, num_restarts: int, from_center: bool, **rest: object) -> None:
        starts.append((num_restarts, from_center))

    monkeypatch.setattr(falsification, "search", failing)
    network, sample = points(8)
    row, _ = next(
        found
        for found in stages_of(network, sample).run(range(8), EPSILON)
        if isinstance(found[1], Known)
    )
    ball = ball_around(sample.inputs[row][None], 0.4)
    prop = Property.robustness(ball, int(sample.labels[row]), 3)
    decide(network, prop, engine="bounds", timeout_seconds=5)
    assert starts == [(1, True), (9, False)]


def test_what_a_small_ball_breaks_is_not_attacked_in_a_greater_one(
    classifier: Classifier, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked: list[int] = []
    attack: Callable[..., gradient.Attacked] = gradient.pgd

    def counting(classifier: Classifier, images: Inputs, *rest: Any, **settings: Any) -> Any:
        attacked.append(len(images))
        return attack(classifier, images, *rest, **settings)

    monkeypatch.setattr(first_stages, "pgd", counting)
    right = classifier.predictions(digits.test_inputs[:30]) == digits.test_labels[:30]
    rows: Sequence[int] = np.flatnonzero(right).tolist()
    network = relu_network(classifier.model)
    stages = FirstStages(
        classifier, network, digits.test_inputs, digits.test_labels, digits.perturbation, ATTACK
    )
    broken = []
    for epsilon in (0.05, 0.1):
        found = dict(stages.run(rows, epsilon))
        assert set(found) == set(rows)
        broken.append(
            {
                r
                for r, said in found.items()
                if isinstance(said, Answer) and said.verdict is Verdict.FALSIFIED
            }
        )
        for row in broken[-1]:
            said = found[row]
            assert isinstance(said, Answer)
            ball = ball_around(digits.test_inputs[row][None], epsilon)
            assert ball.contains(said.candidates)[0]
            point = said.candidates.astype(np.float32).reshape(1, 8, 8)
            assert classifier.predictions(point)[0] != digits.test_labels[row]
    assert broken[0]
    assert broken[0] < broken[1]
    assert attacked == [len(rows), len(rows) - len(broken[0])]
