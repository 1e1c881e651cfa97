"""The search for one score's greatest difference over near pairs, in a worker's process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.attacks import falsification
from tasks.core.bounds.linear import linear_lower_bounds, preactivation_bounds
from tasks.core.errors import CertiflowError
from tasks.core.networks.network import ReluNetwork
from tasks.core.pairs.near_pairs import NearPairs
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.answer import Answer
from tasks.core.search.ladder import decide, warm_up
from tasks.core.verdicts import DecidedBy, Engine, Verdict
from tasks.core.verification.bisection import Reply, narrow

ATTACK_STEPS = 60
ATTACK_RESTARTS = 50
INNER_TOLERANCE = 0.9  # of the tolerance: the replay in float32 takes the rest


@dataclass(frozen=True)
class DifferenceGoal:
    """What is to be known of every output, and with what effort.

    Attributes:
        epsilon: the difference that no pair may reach; None: find the least one.
        tolerance: how near the least one is to be found, in units of the score.
        timeout_seconds: for each output.

    Raises:
        CertiflowError: epsilon or the tolerance is not positive.
    """

    epsilon: float | None
    tolerance: float
    timeout_seconds: float
    engine: Engine = "ladder"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epsilon is not None and not self.epsilon > 0:
            raise CertiflowError(f"epsilon is {self.epsilon:g}: expected a positive number")
        if not self.tolerance > 0:
            raise CertiflowError(f"the tolerance is {self.tolerance:g}: expected more than 0")


@dataclass(frozen=True)
class DifferenceJob:
    """One output for a worker."""

    label: int


@dataclass(frozen=True, eq=False)
class DifferenceFindings:
    """A difference that no pair reaches, and points (x, d) of pairs, (n, …), with great ones."""

    proved: float = np.inf
    decided_by: DecidedBy = DecidedBy.CLEAN
    points: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    reason: str = ""


@dataclass(frozen=True, eq=False)
class DifferenceSolver:
    """A worker's solver, which holds the twin network, and `loose`, the one that is not clipped."""

    twin: ReluNetwork
    loose: ReluNetwork
    pairs: NearPairs
    goal: DifferenceGoal

    def __post_init__(self) -> None:
        warm_up()

    def __call__(self, job: DifferenceJob) -> DifferenceFindings:
        return _Search(self.twin, self.loose, self.pairs, self.goal, job.label).run()


class _Search:
    """One score. Pairs can be swapped, so that only the second point's excess is looked at."""

    def __init__(
        self,
        twin: ReluNetwork,
        loose: ReluNetwork,
        pairs: NearPairs,
        goal: DifferenceGoal,
        label: int,
    ) -> None:
        self.twin, self.loose, self.goal = twin, loose, goal
        self.box, self.valid, self.num_inputs = pairs.points, pairs.valid, pairs.domain.num_inputs
        self.row = np.eye(twin.num_outputs)[[label]]
        self.deadline = time.monotonic() + goal.timeout_seconds
        self.proved, self.decided_by = np.inf, DecidedBy.CLEAN
        self.found = 0.0
        self.points: list[FloatArray] = []

    def run(self) -> DifferenceFindings:
        """Attack, linear bounds, then the ladder, within the time."""
        if self.goal.timeout_seconds <= 0:
            return DifferenceFindings(reason="time limit of 0 s")
        self._attack()
        self._bound()
        reason = self._find_least() if self.goal.epsilon is None else self._decide()
        points = np.array(self.points).reshape(-1, self.twin.num_inputs)
        return DifferenceFindings(self.proved, self.decided_by, points, reason)

    def _region(self, epsilon: float) -> UnsafeRegion:
        return UnsafeRegion(self.box, -self.row, np.array([epsilon]))

    def _attack(self) -> None:
        """From random points of the domain with the greatest changes."""
        generator = np.random.default_rng(self.goal.seed)
        spread = generator.random((ATTACK_RESTARTS, self.twin.num_inputs))
        changes = spread[:, self.num_inputs :]
        changes[:] = changes.round()
        starts = self.box.lower + spread * (self.box.upper - self.box.lower)
        points, excess = falsification.descend(
            self.twin,
            self.box,
            self._region(0.0),
            starts,
            domain=self.valid,
            num_steps=ATTACK_STEPS,
            deadline=self.deadline,
        )
        best = int(np.argmin(excess))
        if np.isfinite(excess[best]):
            self.points.append(points[best])
            self.found = max(0.0, self._difference(points[best]))

    def _difference(self, point: FloatArray) -> float:
        return float((self.twin(point[None]) @ self.row.T)[0, 0])

    def _bound(self) -> None:
        """What backward linear bounds prove at once, the better of both twins."""
        for twin in (self.twin, self.loose):
            hidden = preactivation_bounds(twin, self.box, "crown", self.deadline)
            last = len(twin.layers) - 1
            lower = linear_lower_bounds(twin, last, -self.row, hidden, self.box)
            self.proved = min(self.proved, float(np.nextafter(-lower[0, 0], np.inf)))
        self.decided_by = DecidedBy.CROWN

    def _decide(self) -> str:
        """Whether the epsilon asked is reached; the reason if that stays open."""
        assert self.goal.epsilon is not None
        if self.found >= self.goal.epsilon:
            self.decided_by = DecidedBy.ATTACK
            return ""
        if self.proved <= self.goal.epsilon:
            return ""
        return self._ask(self.goal.epsilon, self.deadline - time.monotonic()).reason

    def _find_least(self) -> str:
        narrowed = narrow(
            self._ask,
            self.proved,
            self.found,
            0.0,
            tolerance=INNER_TOLERANCE * self.goal.tolerance,
            deadline=self.deadline,
        )
        return narrowed.reason

    def _ask(self, epsilon: float, seconds: float) -> Reply:
        """The easier question first: what holds of more pairs holds of those in the domain."""
        deadline = time.monotonic() + seconds
        answer = self._answer(self.loose, epsilon, seconds)
        if answer.verdict in {Verdict.FALSIFIED, Verdict.UNKNOWN}:  # by a pair outside, perhaps
            answer = self._answer(self.twin, epsilon, deadline - time.monotonic())
            self.points += list(answer.candidates)
        if answer.verdict is Verdict.ROBUST:
            self.proved, self.decided_by = epsilon, answer.decided_by
            return Reply(proved=True)
        if answer.verdict is Verdict.FALSIFIED:
            if self.goal.epsilon is not None:
                self.decided_by = answer.decided_by
            return Reply(broken=max(epsilon, self._difference(answer.candidates[0])))
        return Reply(reason=f"{answer.verdict} at {epsilon:.5g}: {answer.reason}")

    def _answer(self, twin: ReluNetwork, epsilon: float, seconds: float) -> Answer:
        return decide(
            twin,
            Property((self._region(epsilon),), self.valid),
            engine=self.goal.engine,
            timeout_seconds=seconds,
            seed=self.goal.seed,
            with_marabou=False,  # which could take the process, and what is known, with it
        )
