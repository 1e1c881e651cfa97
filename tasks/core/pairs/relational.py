"""Monotone and fair: verdicts on pairs of inputs around sampled points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.core.arrays import Inputs
from tasks.core.engine_version import ENGINE_VERSION
from tasks.core.execution.asking import Again, Resources, answers
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.pairs.pair_solver import PairGoal, PairJob, PairSolver, property_of
from tasks.core.pairs.requirements import (
    Requirement,
    are_in_order,
    breaks,
    place_of,
    second,
)
from tasks.core.properties.domain import Domain
from tasks.core.search.answer import Answer
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Verdict
from tasks.core.verification.balls import Sample
from tasks.core.verification.fewest import Rows, fewest_changes
from tasks.core.verification.replay import float32_inside, nearest_box

Pair = tuple[Inputs, Inputs]


@dataclass(frozen=True, eq=False)
class PairResult:
    """What is known of a requirement around one point.

    Attributes:
        verdict: `robust` if it holds for all pairs, `falsified` if `pair` breaks it on the deployed
            model; else as of the ladder.
        deployed: with `robust`, whether it also holds of the float32 model as it is served.
        pair: two valid inputs of one row's shape, that differ in the feature alone.
    """

    sample_index: int
    epsilon: float
    requirement: Requirement
    verdict: Verdict
    decided_by: DecidedBy
    seconds: float
    margin: float | None = None
    deployed: bool | None = None
    reason: str = ""
    pair: Pair | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)


def verify_pairs(
    runtime: Runtime,
    network: ReluNetwork,
    sample: Sample,
    epsilons: Sequence[float],
    requirements: Sequence[Requirement],
    goal: PairGoal,
    resources: Resources,
    *,
    store: VerdictStore | None = None,
    fresh: bool = False,
    on_result: Callable[[PairResult], None] = lambda result: None,
) -> list[PairResult]:
    """A verdict for every requirement around every point at every epsilon, in this order.

    `robust` is sound for `network`, `falsified` comes with a pair that breaks the requirement on
    `runtime`; whatever the points' labels are.

    Raises:
        CertiflowError: a requirement that cannot be made of such data; as `asking.answers` does.
    """
    for requirement in requirements:
        requirement.check(sample.perturbation.domain, network.num_outputs)
    question = _PairQuestion(runtime, network, sample, goal)
    jobs = [
        PairJob(row, center, epsilon, requirement)
        for requirement in requirements
        for row, center in enumerate(sample.inputs)
        for epsilon in epsilons
    ]
    found: dict[int, PairResult] = {}
    places = {job: place for place, job in enumerate(jobs)}
    with closing(answers(question, jobs, resources, store=store, fresh=fresh)) as results:
        for job, result in results:
            found[places[job]] = result
            on_result(result)
    return [found[place] for place in range(len(jobs))]


@dataclass(frozen=True, eq=False)
class _PairQuestion:
    """`asking.Question` about pairs around the points of a sample."""

    runtime: Runtime
    network: ReluNetwork
    sample: Sample
    goal: PairGoal

    @property
    def _domain(self) -> Domain:
        return self.sample.perturbation.domain

    def key(self, job: PairJob) -> VerdictKey:
        engine = f"{self.goal.engine} v{ENGINE_VERSION} timeout {self.goal.timeout_seconds:g}"
        prop, domain = property_of(self.network, self.sample, job).sha256, self._domain
        _, columns = place_of(domain, job.requirement.feature)
        asked = f"pairs {job.requirement.name} {columns.tolist()} {domain.words()} {prop}"
        return VerdictKey(self.network.sha256, asked, f"{engine} seed {self.goal.seed}")

    def solver(self) -> tuple[type[PairSolver], tuple[Any, ...]]:
        return PairSolver, (self.network, self.sample, self.goal)

    def seconds(self, job: PairJob) -> float:
        return self.goal.timeout_seconds

    def judged(self, outcome: Outcome[PairJob, Answer]) -> PairResult:
        if outcome.answer is None:
            is_late = outcome.ending is Ending.TIMEOUT
            return self._result(
                outcome.job,
                Verdict.TIMEOUT if is_late else Verdict.ERROR,
                DecidedBy.in_stage(outcome.stage) or DecidedBy.CROWN,
                outcome.seconds,
                reason=outcome.reason,
            )
        return self._answered(outcome.job, outcome.answer, outcome.seconds)

    def stored(self, result: PairResult) -> StoredVerdict | None:
        if result.verdict is Verdict.ERROR:
            return None
        points = None
        if result.pair is not None:
            points = np.stack([each.ravel() for each in result.pair]).astype(np.float64)
        return StoredVerdict(
            result.verdict,
            result.decided_by,
            result.seconds,
            margin=result.margin,
            reason=result.reason,
            deployed=result.deployed,
            stage_seconds=result.stage_seconds,
            points=points,
        )

    def recalled(self, job: PairJob, known: StoredVerdict) -> PairResult | Again[PairJob]:
        """A stored pair must break the requirement again."""
        pair = None
        if known.verdict is Verdict.FALSIFIED:
            if known.points is None:
                return Again(job)
            first, other = known.points.astype(np.float32)
            if not self._is_broken_by(job, first, other):
                return Again(job)
            pair = self._shaped(first, other)
        return self._result(
            job,
            known.verdict,
            known.decided_by,
            known.seconds,
            margin=known.margin,
            deployed=known.deployed,
            reason=known.reason,
            pair=pair,
            stage_seconds=known.stage_seconds,
        )

    def _answered(self, job: PairJob, answer: Answer, seconds: float) -> PairResult:
        """The first candidate pair that the deployed model answers wrongly decides."""
        _, columns = place_of(self._domain, job.requirement.feature)
        prop = property_of(self.network, self.sample, job)
        for candidate in answer.candidates:
            whole = candidate if prop.domain is None else prop.domain.nearest(candidate[None])[0]
            fed = float32_inside(nearest_box(prop.boxes, whole), whole[None])
            first, other = second(fed, columns)
            if self._is_broken_by(job, first[0], other[0]):
                return self._result(
                    job,
                    Verdict.FALSIFIED,
                    answer.decided_by,
                    seconds,
                    pair=self._shaped(*self._fewest(job, first[0], other[0])),
                    stage_seconds=answer.stage_seconds,
                )
        is_near = answer.verdict is Verdict.FALSIFIED
        return self._result(
            job,
            Verdict.UNKNOWN if is_near else answer.verdict,
            answer.decided_by,
            seconds,
            margin=answer.margin,
            deployed=answer.deployed,
            reason=NEAR_BOUNDARY if is_near else answer.reason,
            stage_seconds=answer.stage_seconds,
        )

    def _fewest(self, job: PairJob, first: Inputs, other: Inputs) -> Rows:
        """The pair without the changes of other features that it does not need."""
        return fewest_changes(
            self.sample.perturbation.domain,
            job.center.ravel(),
            (first, other),
            lambda pair: self._is_broken_by(job, *pair),
            kept=(job.requirement.feature,),
        )

    def _is_broken_by(self, job: PairJob, first: Inputs, other: Inputs) -> bool:
        """Whether the deployed model breaks the requirement on two valid inputs, each alone."""
        domain, center = self._domain, job.center.ravel()
        _, columns = place_of(domain, job.requirement.feature)
        if not are_in_order(job.requirement, first[columns], other[columns]):
            return False
        valid = [bool((x == center).all()) or domain.contains(x[None])[0] for x in (first, other)]
        if not all(valid):
            return False
        logits = [self.runtime.logits(each[None])[0] for each in self._shaped(first, other)]
        return breaks(job.requirement, logits[0], logits[1])

    def _shaped(self, first: Inputs, other: Inputs) -> Pair:
        shape = self.runtime.input_shape
        return first.reshape(shape), other.reshape(shape)

    def _result(
        self,
        job: PairJob,
        verdict: Verdict,
        decided_by: DecidedBy,
        seconds: float,
        **found: Any,
    ) -> PairResult:
        index = int(self.sample.indices[job.row])
        return PairResult(
            index, job.epsilon, job.requirement, verdict, decided_by, seconds, **found
        )
