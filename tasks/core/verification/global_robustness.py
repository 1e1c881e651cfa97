"""Global robustness: how far two near inputs, anywhere in a domain, can move each output.

A network is (delta, epsilon)-globally robust in a domain if for all x1, x2 in it that are at most
delta apart in L-infinity distance every output's score differs by less than epsilon (Katz et al.
2017, "Towards Proving the Adversarial Robustness of Deep Neural Networks").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.engine_version import ENGINE_VERSION
from tasks.core.errors import ContradictionError
from tasks.core.execution.asking import Resources, answers
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Verdict
from tasks.core.verification.difference_search import (
    DifferenceFindings,
    DifferenceGoal,
    DifferenceJob,
    DifferenceSolver,
)
from tasks.core.verification.replay import replayed
from tasks.core.verification.twin_network import twin_network

Pair = tuple[FloatArray, FloatArray]


@dataclass(frozen=True, eq=False)
class ClassResult:
    """What is known of one output's score.

    Attributes:
        verdict: with an epsilon asked: `robust` if the score differs by less, `falsified` if the
            pair's differs by as much. Without: `robust` if `epsilon` is the least that can be
            proved, up to the tolerance. Else `unknown` with its reason.
        epsilon: the least epsilon proved, infinite when none is: the score of any two points of the
            domain at most delta apart differs by less.
        largest_difference: of the scores of `pair`, found by attack; 0 without a pair.
        pair: x1 and x2, each (inputs,), inside the domain, at most delta apart.
        candidates: the twin network's points (x, d), (n, 2 inputs), that pairs were made of.
    """

    label: int
    verdict: Verdict
    epsilon: float
    largest_difference: float
    pair: Pair | None
    seconds: float
    decided_by: DecidedBy
    reason: str = ""
    candidates: FloatArray = field(default_factory=lambda: np.empty((0, 0)))


def global_robustness(
    network: ReluNetwork,
    domain: Box,
    delta: float,
    goal: DifferenceGoal,
    resources: Resources,
    *,
    runtime: Runtime | None = None,
    store: VerdictStore | None = None,
    fresh: bool = False,
    on_result: Callable[[ClassResult], None] = lambda result: None,
) -> list[ClassResult]:
    """One result per output, in their order; `on_result` sees each as it comes.

    `epsilon` is sound for the float64 network. Pairs are replayed on `runtime`, in float32, or on
    the float64 network without one. What is in the store is not computed again unless `fresh`.

    Raises:
        ContradictionError: a pair differs by as much as was proved impossible.
        CertiflowError: the domain is not one box of the network's inputs, delta is negative, the
            store cannot be used; as `asking.answers` does.
    """
    question = _DifferenceQuestion(network, domain, delta, goal, runtime)
    jobs = [DifferenceJob(label) for label in range(network.num_outputs)]
    results: dict[int, ClassResult] = {}
    with closing(answers(question, jobs, resources, store=store, fresh=fresh)) as found:
        for job, result in found:
            results[job.label] = result
            on_result(result)
    return [results[label] for label in range(network.num_outputs)]


@dataclass(frozen=True, eq=False)
class _DifferenceQuestion:
    """`asking.Question` about the outputs of a network."""

    network: ReluNetwork
    domain: Box
    delta: float
    goal: DifferenceGoal
    runtime: Runtime | None

    def key(self, job: DifferenceJob) -> VerdictKey:
        goal, domain = self.goal, self.domain
        asked = f"{self.delta!r} {job.label} {goal.epsilon!r} {goal.tolerance!r}"
        digest = hashlib.sha256(f"global robustness {domain.lower.shape} {asked} ".encode())
        for bound in (domain.lower, domain.upper):
            digest.update(np.ascontiguousarray(bound).tobytes())
        engine = f"{goal.engine} v{ENGINE_VERSION}"
        settings = f"timeout {goal.timeout_seconds:g} seed {goal.seed}"
        return VerdictKey(self.network.sha256, digest.hexdigest(), f"{engine} {settings}")

    def solver(self) -> tuple[type[DifferenceSolver], tuple[Any, ...]]:
        twin = twin_network(self.network, self.domain, self.delta)
        loose = twin_network(self.network, self.domain, self.delta, clipped=False)
        return DifferenceSolver, (twin, loose, self.domain, self.delta, self.goal)

    def seconds(self, job: DifferenceJob) -> float:
        return self.goal.timeout_seconds

    def judged(self, outcome: Outcome[DifferenceJob, DifferenceFindings]) -> ClassResult:
        findings = outcome.answer
        if findings is None:
            limit = f"time limit of {self.goal.timeout_seconds:g} s"
            reason = limit if outcome.ending is Ending.TIMEOUT else outcome.reason
            findings = DifferenceFindings(reason=reason)
        return self._result(outcome.job.label, findings, outcome.seconds)

    def stored(self, result: ClassResult) -> StoredVerdict:
        """`margin` holds the epsilon proved; the points are those that were replayed."""
        return StoredVerdict(
            verdict=result.verdict,
            decided_by=result.decided_by,
            seconds=result.seconds,
            margin=result.epsilon,
            reason=result.reason,
            points=result.candidates,
        )

    def recalled(self, job: DifferenceJob, known: StoredVerdict) -> ClassResult:
        points = np.empty((0, 0)) if known.points is None else known.points
        proved = np.inf if known.margin is None else known.margin
        findings = DifferenceFindings(proved, known.decided_by, points, known.reason)
        return self._result(job.label, findings, known.seconds)

    def _result(self, label: int, findings: DifferenceFindings, seconds: float) -> ClassResult:
        proved, asked = findings.proved, self.goal.epsilon
        found, pair = self._greatest(findings.points, label)
        if found >= proved:
            raise ContradictionError(
                f"output {label}: proved to differ by less than {proved:g} by "
                f"{findings.decided_by}, yet a pair differs by {found:g}: this is a defect of "
                "certiflow; please report it"
            )
        known = proved - found <= self.goal.tolerance if asked is None else proved <= asked
        verdict = Verdict.ROBUST if known else Verdict.UNKNOWN
        if asked is not None and found >= asked:
            verdict = Verdict.FALSIFIED
        reason = "" if verdict is not Verdict.UNKNOWN else findings.reason or NEAR_BOUNDARY
        return ClassResult(
            label,
            verdict,
            proved,
            found,
            pair,
            seconds,
            findings.decided_by,
            reason,
            findings.points,
        )

    def _greatest(self, points: FloatArray, label: int) -> tuple[float, Pair | None]:
        """The greatest difference of a score, and its pair, of the twin's points."""
        largest, best = 0.0, None
        for point in points:
            pair, change = self._pair(point)
            inside = all(self.domain.contains(x[None])[0] for x in pair)
            if not inside or np.abs(pair[1] - pair[0]).max() > self.delta:
                continue
            difference = abs(float(change[label]))
            if difference > largest:
                largest, best = difference, pair
        return largest, best

    def _pair(self, point: FloatArray) -> tuple[Pair, FloatArray]:
        """x1 and x2 = clip(x1 + d) of a point (x, d) of the twin, and how the scores change.

        The change d is shortened by two units in the last place of the domain's greatest number, so
        that rounding leaves the pair inside.
        """
        size, delta = self.domain.lower.shape[1], self.delta
        unit = np.finfo(np.float64 if self.runtime is None else np.float32).eps
        reach = max(float(np.abs([self.domain.lower, self.domain.upper]).max()), delta)
        most = max(delta - 2 * float(unit) * reach, 0.0)
        first, before = self._replayed(point[:size])
        second, after = self._replayed(first + np.clip(point[size:], -most, most))
        return (first, second), after - before

    def _replayed(self, point: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The point as the model is fed it, and its scores."""
        if self.runtime is None:
            inside = np.clip(point, self.domain.lower[0], self.domain.upper[0])
            return inside, self.network(inside[None])[0]
        fed, logits = replayed(self.runtime, self.domain, point)
        return fed.reshape(-1).astype(np.float64), logits.astype(np.float64)
