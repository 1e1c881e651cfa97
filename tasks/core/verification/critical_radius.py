"""Critical radius: for each point, the greatest epsilon proved and the smallest one falsified."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import FloatArray, Inputs
from tasks.core.engine_version import ENGINE_VERSION
from tasks.core.errors import ContradictionError
from tasks.core.execution.asking import Again, Resources, answers
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import margins
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Verdict
from tasks.core.verification.balls import Sample
from tasks.core.verification.radius_search import (
    PROBE,
    RadiusFindings,
    RadiusGoal,
    RadiusJob,
    RadiusSolver,
)
from tasks.core.verification.replay import replayed


@dataclass(frozen=True, eq=False)
class Bracket:
    """Where one point's critical radius lies.

    Attributes:
        proved: robust at every epsilon up to this one, for the float64 network; 0: nothing proved.
        falsified: the counterexample's own L-infinity distance, rounded up; infinite when nothing
            breaks the point up to `max_epsilon`; 0 for a misclassified point.
        counterexample: float32, the center's shape, mislabelled by the deployed model.
        complete: whether the bracket is as narrow as asked, or all up to `max_epsilon` is proved.
        reason: why it is not complete.
        stage_seconds: by stage: interval, attack, crown, and each probe of the ladder.
        proved_by: the stage that proved `proved`, `clean` when nothing is.
    """

    sample_index: int
    label: int
    proved: float
    falsified: float
    counterexample: Inputs | None
    seconds: float
    complete: bool
    reason: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    proved_by: DecidedBy = DecidedBy.CLEAN

    @property
    def probes(self) -> int:
        """How many balls the ladder was asked about."""
        return sum(stage.startswith(PROBE) for stage in self.stage_seconds)


def critical_radii(
    runtime: Runtime,
    network: ReluNetwork,
    sample: Sample,
    goal: RadiusGoal,
    resources: Resources,
    *,
    store: VerdictStore | None = None,
    fresh: bool = False,
    on_result: Callable[[Bracket], None] = lambda bracket: None,
) -> list[Bracket]:
    """A bracket for every point, in the sample's order; `on_result` sees each as it comes.

    `proved` is sound for `network`, `falsified` for `runtime`, which must be the same model. The
    points of greatest clean margin, which take longest, go first. What is in the store is not
    computed again unless `fresh`; a crash or a broken memory limit is not stored.

    Raises:
        ContradictionError: a point is broken within the radius that was proved.
        CertiflowError: the store cannot be used; as `asking.answers` does.
    """
    question = _RadiusQuestion(runtime, network, sample, goal)
    brackets: dict[int, Bracket] = {}
    waiting = []
    for row, (center, label) in enumerate(zip(sample.inputs, sample.labels, strict=True)):
        job = RadiusJob(row, center, int(label))
        itself = RadiusFindings(points=center.reshape(1, -1).astype(np.float64))
        bracket = question.bracket(job, itself, 0.0)
        if bracket.counterexample is None:
            waiting.append(job)
        else:
            brackets[row] = bracket
            on_result(bracket)
    hardest_first = _hardest_first(network, waiting)
    with closing(answers(question, hardest_first, resources, store=store, fresh=fresh)) as found:
        for job, bracket in found:
            brackets[job.row] = bracket
            on_result(bracket)
    return [brackets[row] for row in range(len(sample.labels))]


def radius_here(
    runtime: Runtime, network: ReluNetwork, sample: Sample, goal: RadiusGoal
) -> Bracket:
    """The bracket of a sample's only point, in this process; see `critical_radii`.

    The engine is to be one that keeps its time, not `marabou`.
    """
    started = time.monotonic()
    question = _RadiusQuestion(runtime, network, sample, goal)
    job = RadiusJob(0, sample.inputs[0], int(sample.labels[0]))
    itself = RadiusFindings(points=sample.inputs[:1].reshape(1, -1).astype(np.float64))
    bracket = question.bracket(job, itself, 0.0)
    if bracket.counterexample is not None:
        return bracket
    findings = RadiusSolver(network, sample.perturbation, goal)(job)
    return question.bracket(job, findings, time.monotonic() - started)


def _hardest_first(network: ReluNetwork, jobs: Sequence[RadiusJob]) -> list[RadiusJob]:
    def clean_margin(job: RadiusJob) -> float:
        return float(margins(network(job.center[None]), [job.label]).min())

    return sorted(jobs, key=clean_margin, reverse=True)


@dataclass(frozen=True, eq=False)
class _RadiusQuestion:
    """`asking.Question` about the points of a sample."""

    runtime: Runtime
    network: ReluNetwork
    sample: Sample
    goal: RadiusGoal

    def key(self, job: RadiusJob) -> VerdictKey:
        goal = self.goal
        center: NDArray[np.float32] = np.ascontiguousarray(job.center)
        digest = hashlib.sha256(f"critical radius of {center.shape} {job.label} ".encode())
        digest.update(f"{goal.max_epsilon!r} {goal.tolerance!r} ".encode())
        digest.update(center.tobytes())
        digest.update(self.sample.perturbation.sha256.encode())
        engine = f"{goal.engine} v{ENGINE_VERSION}"
        settings = f"timeout {goal.timeout_seconds:g} seed {goal.seed}"
        return VerdictKey(self.network.sha256, digest.hexdigest(), f"{engine} {settings}")

    def solver(self) -> tuple[type[RadiusSolver], tuple[Any, ...]]:
        return RadiusSolver, (self.network, self.sample.perturbation, self.goal)

    def seconds(self, job: RadiusJob) -> float:
        return self.goal.timeout_seconds

    def judged(self, outcome: Outcome[RadiusJob, RadiusFindings]) -> Bracket:
        findings = outcome.answer
        if findings is None:
            limit = f"time limit of {self.goal.timeout_seconds:g} s"
            reason = limit if outcome.ending is Ending.TIMEOUT else outcome.reason
            findings = RadiusFindings(reason=reason)
        return self.bracket(outcome.job, findings, outcome.seconds)

    def stored(self, bracket: Bracket) -> StoredVerdict:
        """`margin` holds the radius proved; the counterexample holds the one falsified."""
        found = bracket.counterexample
        verdict = Verdict.UNKNOWN if found is None else Verdict.FALSIFIED
        return StoredVerdict(
            verdict=Verdict.ROBUST if found is None and bracket.complete else verdict,
            decided_by=bracket.proved_by,
            seconds=bracket.seconds,
            margin=bracket.proved,
            reason=bracket.reason,
            stage_seconds=bracket.stage_seconds,
            points=None if found is None else found.reshape(1, -1).astype(np.float64),
        )

    def recalled(self, job: RadiusJob, known: StoredVerdict) -> Bracket | Again[RadiusJob]:
        """A stored counterexample must break the model again."""
        proved = known.margin or 0.0
        findings = RadiusFindings(
            proved, known.decided_by, known.points, known.reason, known.stage_seconds
        )
        bracket = self.bracket(job, findings, known.seconds)
        lost = known.points is not None and bracket.counterexample is None
        return Again(job) if lost else bracket

    def bracket(self, job: RadiusJob, findings: RadiusFindings, seconds: float) -> Bracket:
        """The findings, as far as the deployed model confirms them."""
        index = int(self.sample.indices[job.row])
        candidates = np.empty((0, job.center.size)) if findings.points is None else findings.points
        falsified, counterexample = self.falsified(job, candidates, self.goal.max_epsilon)
        if findings.proved > 0 and falsified <= findings.proved:
            raise ContradictionError(
                f"sample {index}: proved robust up to epsilon {findings.proved:g} by "
                f"{findings.proved_by}, yet broken at {falsified:g}: this is a defect of "
                "certiflow; please report it with the run's artifacts"
            )
        complete = falsified - findings.proved <= self.goal.tolerance
        complete = complete or findings.proved >= self.goal.max_epsilon
        unconfirmed = NEAR_BOUNDARY if len(candidates) else "undecided"
        return Bracket(
            sample_index=index,
            label=job.label,
            proved=findings.proved,
            falsified=falsified,
            counterexample=counterexample,
            seconds=seconds,
            complete=complete,
            reason="" if complete else findings.reason or unconfirmed,
            stage_seconds=findings.stage_seconds,
            proved_by=findings.proved_by,
        )

    def falsified(
        self, job: RadiusJob, candidates: FloatArray, max_epsilon: float
    ) -> tuple[float, Inputs | None]:
        """The distance of the nearest candidate that the deployed model mislabels, and its point.

        A candidate is valid data, or the center itself.
        """
        perturbation, center = self.sample.perturbation, job.center.reshape(-1)
        boxes = perturbation.boxes(center[None], max_epsilon)[0]
        valid = perturbation.domain.nearest(candidates)
        fed = [replayed(self.runtime, boxes, candidate) for candidate in valid]
        points = np.array([point.ravel() for point, _ in fed]).reshape(-1, len(center))
        distances = perturbation.distance(center, points.astype(np.float64))
        for place in np.argsort(distances):
            point, logits = fed[place]
            is_itself = bool((points[place] == center).all())
            is_there = is_itself or bool(perturbation.domain.contains(point[None])[0])
            if int(logits.argmax()) != job.label and is_there:
                return float(distances[place]), point
        return np.inf, None
