"""Global robustness: how far two near inputs, anywhere in a domain, can move each output.

A network is (delta, epsilon)-globally robust in a domain if for all x1, x2 in it that are at most
delta apart in L-infinity distance every output's score differs by less than epsilon (Katz et al.
2017, "Towards Proving the Adversarial Robustness of Deep Neural Networks"). Here each input has a
delta of its own, and may have none: rows of a table differ by shares of each feature's scale.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.bounds.float32_error import point_error
from tasks.core.engine_version import ENGINE_VERSION
from tasks.core.errors import ContradictionError
from tasks.core.execution.asking import Resources, answers
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.pairs.difference_search import (
    DifferenceFindings,
    DifferenceGoal,
    DifferenceJob,
    DifferenceSolver,
)
from tasks.core.pairs.near_pairs import NearPairs
from tasks.core.pairs.twin_network import twin_network
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Verdict
from tasks.core.verification.replay import replayed

Pair = tuple[FloatArray, FloatArray]
ROUNDING_ALONE = "float32 rounding moves the score further than the network does"


@dataclass(frozen=True, eq=False)
class ClassResult:
    """What is known of one output's score.

    Attributes:
        verdict: with an epsilon asked: `robust` if the score differs by less, `falsified` if the
            pair's differs by as much. Without: `robust` if `epsilon` is the least that can be
            proved, up to the tolerance. Else `unknown` with its reason.
        epsilon: the least epsilon proved, infinite when none is: the scores of every pair differ by
            less.
        largest_difference: of the scores of `pair`, found by attack; 0 without a pair.
        pair: x1 and x2, each (inputs,), one of the pairs that were asked about.
        candidates: the twin network's points (x, d) that pairs were made of.
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
    pairs: NearPairs,
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
        CertiflowError: the pairs are not of the network's inputs, the store cannot be used; as
            `asking.answers` does.
    """
    question = _DifferenceQuestion(network, pairs, goal, runtime)
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
    pairs: NearPairs
    goal: DifferenceGoal
    runtime: Runtime | None

    def key(self, job: DifferenceJob) -> VerdictKey:
        goal = self.goal
        asked = f"{job.label} {goal.epsilon!r} {goal.tolerance!r} {self.pairs.sha256}"
        engine = f"{goal.engine} v{ENGINE_VERSION}"
        settings = f"timeout {goal.timeout_seconds:g} seed {goal.seed}"
        return VerdictKey(self.network.sha256, f"global robustness {asked}", f"{engine} {settings}")

    def solver(self) -> tuple[type[DifferenceSolver], tuple[Any, ...]]:
        twin = twin_network(self.network, self.pairs)
        loose = twin_network(self.network, self.pairs, clipped=False)
        return DifferenceSolver, (twin, loose, self.pairs, self.goal)

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
        if found >= proved and found - self._float32_error(pair, label) >= proved:
            raise ContradictionError(
                f"output {label}: proved to differ by less than {proved:g} by "
                f"{findings.decided_by}, yet a pair differs by {found:g}: this is a defect of "
                "certiflow; please report it"
            )
        known = abs(proved - found) <= self.goal.tolerance if asked is None else proved <= asked
        verdict = Verdict.ROBUST if known else Verdict.UNKNOWN
        if asked is not None and found >= asked:
            verdict = Verdict.FALSIFIED
        reason = findings.reason or (ROUNDING_ALONE if found >= proved else NEAR_BOUNDARY)
        reason = reason if verdict is Verdict.UNKNOWN else ""
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

    def _float32_error(self, pair: Pair | None, label: int) -> float:
        """By how much the difference of a pair's scores may be the deployed model's rounding."""
        if self.runtime is None or pair is None:
            return 0.0
        return float(point_error(self.network, np.stack(pair))[:, label].sum())

    def _greatest(self, points: FloatArray, label: int) -> tuple[float, Pair | None]:
        """The greatest difference of a score, and its pair, of the twin's points."""
        largest, best = 0.0, None
        for point in points:
            pair, change = self._pair(point)
            difference = abs(float(change[label]))
            if difference > largest and self.pairs.contains(*pair):
                largest, best = difference, pair
        return largest, best

    def _pair(self, point: FloatArray) -> tuple[Pair, FloatArray]:
        """x1 and x2 = clip(x1 + d) of a point (x, d) of the twin, and how the scores change.

        The change d of a real number is shortened by two units in the last place of the greatest
        one there, so that rounding leaves the pair inside.
        """
        pairs, size = self.pairs, self.pairs.domain.num_inputs
        whole = np.broadcast_to(pairs.domain.whole, size)[pairs.columns]
        unit = float(np.finfo(np.float64 if self.runtime is None else np.float32).eps)
        greatest = np.abs([pairs.box.lower[0], pairs.box.upper[0]]).max(axis=0)[pairs.columns]
        spare = np.where(whole, 0.0, 2 * unit * np.maximum(greatest, pairs.most))
        most = np.maximum(pairs.most - spare, 0.0)
        first, before = self._replayed(pairs.domain.nearest(point[:size]))
        moved = first.copy()
        moved[pairs.columns] += np.clip(point[size:], -most, most)
        second, after = self._replayed(pairs.domain.nearest(moved))
        return (first, second), after - before

    def _replayed(self, point: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The point as the model is fed it, and its scores."""
        box = self.pairs.box
        if self.runtime is None:
            inside = np.clip(point, box.lower[0], box.upper[0])
            return inside, self.network(inside[None])[0]
        fed, logits = replayed(self.runtime, box, point)
        return fed.reshape(-1).astype(np.float64), logits.astype(np.float64)
