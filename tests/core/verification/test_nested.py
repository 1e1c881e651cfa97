"""Balls whose verdicts follow: as if each were asked, none that does not follow, none twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.errors import ContradictionError
from tasks.core.execution import asking
from tasks.core.execution.asking import Again, Resources
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.properties.box import Box
from tasks.core.properties.perturbation import Perturbation
from tasks.core.search.first_stages import AttackStrength
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult
from tasks.core.verification.balls import Ball, Sample
from tasks.core.verification.local_robustness import verify
from tasks.core.verification.nested import nested_answers
from tests.networks import ball_around, pixels, random_network
from tests.one_process import outcomes_here
from tests.oracle import least_margin

ONE = Resources(num_workers=1, memory_limit_bytes=2**31)
EPSILONS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.13, 0.21, 0.34)
Says = Callable[[Ball], tuple[Verdict, bool]]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "outcomes", outcomes_here)


@dataclass(eq=False)
class Oracle:
    """A question whose solver says of each ball its verdict, and whether a proof is deployed."""

    says: Says
    asked: list[Ball] = field(default_factory=list)

    def key(self, ball: Ball) -> VerdictKey:
        return VerdictKey("oracle", f"{ball.row} {ball.epsilon}", "")

    def solver(self) -> tuple[Callable[..., Callable[[Ball], Any]], tuple[Any, ...]]:
        return (lambda says: says), (self.says,)

    def seconds(self, ball: Ball) -> float:
        return 1.0

    def judged(self, outcome: Outcome[Ball, Any]) -> VerificationResult:
        self.asked.append(outcome.job)
        return self.result(outcome.job, *(outcome.answer or ()))

    def result(self, ball: Ball, verdict: Verdict, deployed: bool) -> VerificationResult:
        is_proof = verdict is Verdict.ROBUST
        told = ball.result(verdict, DecidedBy.CROWN, 1.0, deployed=deployed if is_proof else None)
        return replace(told, counterexample=None if is_proof else ball.center)

    def stored(self, result: VerificationResult) -> StoredVerdict:
        return StoredVerdict(result.verdict, result.decided_by, 1.0, deployed=result.deployed)

    def recalled(self, ball: Ball, known: StoredVerdict) -> VerificationResult:
        return self.result(ball, known.verdict, bool(known.deployed))


def points(count: int) -> Sample:
    centers = np.full((count, 2), 0.5, dtype=np.float32)
    return Sample(np.arange(count), centers, np.zeros(count, dtype=int), pixels(centers))


def asked_of(
    oracle: Oracle, sample: Sample, first: Any = None, store: VerdictStore | None = None
) -> dict[tuple[int, float], VerificationResult]:
    balls = sample.balls(EPSILONS)
    found = list(nested_answers(oracle, sample, [], balls, ONE, first=first, store=store))
    assert Counter((b.row, b.epsilon) for b, _ in found) == {(b.row, b.epsilon): 1 for b in balls}
    return {(ball.row, ball.epsilon): result for ball, result in found}


def breaking_at(radii: Sequence[float]) -> Says:
    """Each point is broken from its radius on."""
    return lambda ball: (
        Verdict.FALSIFIED if ball.epsilon >= radii[ball.row] else Verdict.ROBUST,
        True,
    )


def test_every_ball_gets_the_verdict_it_would_have_been_given() -> None:
    radii = [0.0, *EPSILONS, 1.0]
    oracle, sample = Oracle(breaking_at(radii)), points(len(radii))
    for (row, epsilon), result in asked_of(oracle, sample).items():
        is_broken = epsilon >= radii[row]
        assert result.verdict is (Verdict.FALSIFIED if is_broken else Verdict.ROBUST)
        assert result.epsilon == epsilon
        if result.follows_from is not None:
            assert (result.follows_from < epsilon) is is_broken
            word = "broken" if is_broken else "proved"
            assert result.reason == f"{word} at {result.follows_from:g}"
            assert result.seconds == 0
    most = 1 + int(np.log2(len(EPSILONS)))  # the greatest, then half of what is left
    assert max(Counter(ball.row for ball in oracle.asked).values()) <= most
    assert sum(ball.row == len(radii) - 1 for ball in oracle.asked) == 1  # robust at the greatest


def test_from_a_proof_that_is_not_deployed_nothing_follows() -> None:
    oracle = Oracle(lambda ball: (Verdict.ROBUST, ball.epsilon < 0.1))
    found = asked_of(oracle, points(1))
    assert [result.deployed for _, result in sorted(found.items())] == [True] * 5 + [False] * 3
    assert {found[0, epsilon].follows_from for epsilon in (0.13, 0.21, 0.34)} == {None}


def test_what_stays_undecided_is_asked_once_and_told_unless_it_follows() -> None:
    says = {0.34: Verdict.TIMEOUT, 0.05: Verdict.UNKNOWN, 0.08: Verdict.FALSIFIED}
    oracle = Oracle(lambda ball: (says.get(ball.epsilon, Verdict.TIMEOUT), True))
    found = asked_of(oracle, points(1))
    assert Counter(ball.epsilon for ball in oracle.asked).most_common(1)[0][1] == 1
    assert found[0, 0.34].verdict is Verdict.FALSIFIED  # it timed out, but 0.08 breaks it
    assert found[0, 0.34].follows_from == 0.08
    assert found[0, 0.05].verdict is Verdict.UNKNOWN
    assert found[0, 0.01].verdict is Verdict.TIMEOUT


def test_a_proof_beyond_a_break_is_a_contradiction() -> None:
    def says(ball: Ball) -> tuple[Verdict, bool]:
        return (Verdict.ROBUST if ball.epsilon == 0.34 else Verdict.FALSIFIED, False)

    with pytest.raises(ContradictionError, match=r"proved robust at epsilon 0\.34"):
        asked_of(Oracle(says), points(1))


def test_what_the_first_stages_leave_open_waits_for_what_they_decide_beside_it() -> None:
    """They prove at 0.08 and break at 0.21, and say nothing elsewhere: only 0.13 is solved."""
    oracle, sample, looked = Oracle(breaking_at([0.13])), points(1), list[float]()

    def first(asked: Sequence[Ball]) -> Iterator[tuple[Ball, VerificationResult | Again[Ball]]]:
        for ball in asked:
            looked.append(ball.epsilon)
            known = {0.08: Verdict.ROBUST, 0.21: Verdict.FALSIFIED}.get(ball.epsilon)
            yield ball, Again(ball) if known is None else oracle.result(ball, known, True)

    found = asked_of(oracle, sample, first)
    assert [ball.epsilon for ball in oracle.asked] == [0.13]
    assert len(looked) == len(set(looked)) <= 4
    assert found[0, 0.13].verdict is Verdict.FALSIFIED


def test_stored_verdicts_are_not_asked_again(tmp_path: Path) -> None:
    sample, says = points(3), breaking_at([0.02, 0.13, 1.0])
    with VerdictStore(tmp_path / "verdicts.db") as store:
        first, second = Oracle(says), Oracle(says)
        told = asked_of(first, sample, store=store)
        again = asked_of(second, sample, store=store)
    assert len(first.asked) > 0
    assert second.asked == []
    assert {key: r.verdict for key, r in told.items()} == {k: r.verdict for k, r in again.items()}


def test_balls_that_are_not_nested_are_refused() -> None:
    class Shrinking(Perturbation):
        def boxes(self, inputs: Any, epsilon: float) -> tuple[Box, Any]:
            return super().boxes(inputs, 0.4 - epsilon)

    sample = points(2)
    plain = sample.perturbation
    wrong = replace(
        sample, perturbation=Shrinking(plain.domain, plain.scales, plain.down, plain.up)
    )
    with pytest.raises(ContradictionError, match=r"epsilon 0\.01 is not within the next"):
        asked_of(Oracle(breaking_at([1.0, 1.0])), wrong)


def test_verdicts_on_random_networks_are_those_of_the_exact_oracle() -> None:
    """Through the whole ladder, nested and not; a counterexample lies in the ball and flips."""
    verdicts, following = Counter[Verdict](), 0
    for seed in range(2):
        generator = np.random.default_rng(seed)
        network = random_network(generator, (5, 9, 9, 3))
        images = generator.random((6, 5), dtype=np.float32)
        labels = network(images).argmax(axis=1)
        sample, runtime = (
            Sample(np.arange(6), images, labels, pixels(images)),
            NumpyRuntime(network),
        )
        rest: dict[str, Any] = {"engine": "ladder", "timeout_seconds": 10, "resources": ONE}
        rest["attack"] = AttackStrength(5, 1, 0)
        told = verify(runtime, network, sample, EPSILONS, nested=True, **rest)
        each = verify(runtime, network, sample, EPSILONS, **rest)
        assert [r.verdict for r in told] == [r.verdict for r in each]
        for result in told:
            ball = ball_around(images[result.sample_index][None], result.epsilon)
            exact = least_margin(network, ball, result.label)
            if result.verdict is Verdict.ROBUST:
                assert result.margin is not None
                assert 0 < result.margin <= exact + 1e-6
            elif result.verdict is Verdict.FALSIFIED:
                assert result.counterexample is not None
                assert ball.contains(result.counterexample[None])[0]
                assert runtime.logits(result.counterexample[None])[0].argmax() != result.label
            verdicts[result.verdict] += 1
            following += result.follows_from is not None
    assert min(verdicts[Verdict.ROBUST], verdicts[Verdict.FALSIFIED]) >= 10
    assert following >= 30
