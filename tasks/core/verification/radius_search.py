"""The search for one point's critical radius, on the float64 network, in a worker's process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from tasks.core.arrays import FloatArray, Inputs
from tasks.core.attacks import falsification
from tasks.core.bounds.linear import Method, margin_lower_bounds, preactivation_bounds
from tasks.core.errors import CertiflowError
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.perturbation import Perturbation
from tasks.core.properties.specification import Property, margins
from tasks.core.search.ladder import decide, warm_up
from tasks.core.verdicts import DecidedBy, Engine, Verdict
from tasks.core.verification.bisection import Reply, narrow

ATTACK_STEPS = 30
ATTACK_RESTARTS = 5
ATTACK_SHARE = 0.3  # of the time, at the most
LEAST_TOLERANCE = 1e-5  # float32 pixels are apart by 6e-8
INNER_TOLERANCE = 0.9  # of the tolerance, in float64: rounding to float32 takes the rest
PROBE = "probe_"  # how the ladder's stages are called, with a number and the radius


@dataclass(frozen=True)
class RadiusGoal:
    """What is to be known of every point, and with what effort.

    Attributes:
        max_epsilon: the greatest radius looked at, in (0, 1].
        tolerance: the bracket is complete when it is at most this wide.
        timeout_seconds: for each point.
        engine: `marabou` does without our own attack and bounds.

    Raises:
        CertiflowError: a radius out of range.
    """

    max_epsilon: float
    tolerance: float
    timeout_seconds: float
    engine: Engine = "ladder"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.max_epsilon <= 1:
            raise CertiflowError(
                f"the greatest epsilon is {self.max_epsilon:g}: expected more than 0, at most 1"
            )
        if not LEAST_TOLERANCE <= self.tolerance <= self.max_epsilon:
            raise CertiflowError(
                f"the tolerance is {self.tolerance:g}: expected {LEAST_TOLERANCE:g} to "
                f"{self.max_epsilon:g}, the greatest epsilon"
            )


@dataclass(frozen=True, eq=False)
class RadiusJob:
    """One point for a worker; `row` is its place in the sample."""

    row: int
    center: Inputs
    label: int


@dataclass(frozen=True, eq=False)
class RadiusFindings:
    """What a worker found: the radius proved and points, (n, inputs), that float64 mislabels."""

    proved: float = 0.0
    proved_by: DecidedBy = DecidedBy.CLEAN
    points: FloatArray | None = None
    reason: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RadiusSolver:
    """A worker's solver, which holds the network."""

    network: ReluNetwork
    perturbation: Perturbation
    goal: RadiusGoal

    def __post_init__(self) -> None:
        warm_up()

    def __call__(self, job: RadiusJob) -> RadiusFindings:
        return _Search(self.network, self.perturbation, self.goal, job).run()


class _Search:
    """The bracket of one point for the float64 network: attack, linear bounds, then the ladder."""

    def __init__(
        self, network: ReluNetwork, perturbation: Perturbation, goal: RadiusGoal, job: RadiusJob
    ) -> None:
        self.network, self.perturbation = network, perturbation
        self.goal, self.label = goal, job.label
        self.inputs = job.center.reshape(1, -1)
        self.center = self.inputs[0].astype(np.float64)
        self.deadline = time.monotonic() + goal.timeout_seconds
        self.tolerance = INNER_TOLERANCE * goal.tolerance
        self.proved, self.proved_by = 0.0, DecidedBy.CLEAN
        self.broken = np.inf
        self.points: list[FloatArray] = []
        self.seconds: dict[str, float] = {}

    def run(self) -> RadiusFindings:
        """Everything that is found within the time."""
        if self._is_broken(self.center):
            self._break(self.center)
        if self.goal.engine != "marabou":
            with self._timed("interval"):
                self._bound("interval")
            with self._timed("attack"):
                self._attack(time.monotonic() + ATTACK_SHARE * self.goal.timeout_seconds)
            with self._timed("crown"):
                self._bound("crown")
        narrowed = narrow(
            self._ask,
            self.proved,
            None if np.isinf(self.broken) else self.broken,
            self.goal.max_epsilon,
            tolerance=self.tolerance,
            deadline=self.deadline,
        )
        points = np.array(self.points).reshape(-1, len(self.center))
        return RadiusFindings(
            narrowed.proved, self.proved_by, points, narrowed.reason, self.seconds
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = time.monotonic() - started

    def _boxes(self, radius: float) -> Box:
        return self.perturbation.boxes(self.inputs, radius)[0]

    def _property(self, radius: float) -> Property:
        outputs, domain = self.network.num_outputs, self.perturbation.domain
        return Property.robustness(self._boxes(radius), self.label, outputs, domain)

    def _is_broken(self, point: FloatArray) -> bool:
        return bool(margins(self.network(point[None]), [self.label]).min() <= 0)

    def _break(self, point: FloatArray) -> None:
        """Takes note of a broken point, and of the nearest broken one on its way to the center.

        On that way categories stay as they are at the point.
        """
        start, domain = self.center.copy(), self.perturbation.domain
        for columns in self.perturbation.changeable:
            start[columns] = point[columns]
        nearest, low, high = point, 0.0, 1.0
        reach = float(self.perturbation.distance(self.center, point[None])[0])
        while (high - low) * reach > self.tolerance / 8:
            middle = (low + high) / 2
            between = domain.nearest((start + middle * (point - start))[None])
            if domain.contains(between)[0] and self._is_broken(between[0]):
                nearest, high = between[0], middle
            else:
                low = middle
        self.points += [point, nearest]
        distance = float(self.perturbation.distance(self.center, nearest[None])[0])
        self.broken = min(self.broken, distance)

    def _attack(self, deadline: float) -> None:
        """At doubling radii until one is broken, then between it and the last that was not."""
        missed, radius = 0.0, self.tolerance
        while time.monotonic() < deadline and self.broken - missed > self.tolerance:
            point = self._attacked(radius, deadline)
            if point is not None:
                self._break(point)
            elif radius == self.goal.max_epsilon:
                return
            else:
                missed = radius
            doubled = min(2 * radius, self.goal.max_epsilon)
            radius = doubled if np.isinf(self.broken) else (missed + self.broken) / 2

    def _attacked(self, radius: float, deadline: float) -> FloatArray | None:
        prop = self._property(radius)
        for places in prop.by_box():
            regions = [prop.unsafe[place] for place in places]
            point = falsification.search(
                self.network,
                regions[0].box,
                regions,
                domain=prop.domain,
                num_steps=ATTACK_STEPS,
                num_restarts=ATTACK_RESTARTS,
                seed=self.goal.seed,
                deadline=deadline,
            )
            if point is not None:
                return point
        return None

    def _bound(self, method: Method) -> None:
        """Bisection with bounds alone: intervals cost next to nothing, linear bounds prove more."""
        missed = min(self.broken, self.goal.max_epsilon)
        while time.monotonic() < self.deadline and missed - self.proved > self.tolerance:
            radius = (self.proved + missed) / 2
            boxes = self._boxes(radius)
            hidden = preactivation_bounds(self.network, boxes, method, self.deadline)
            labels = [self.label] * len(boxes)
            if (margin_lower_bounds(self.network, boxes, labels, hidden) > 0).all():
                self.proved, self.proved_by = radius, DecidedBy.CROWN
            else:
                missed = radius

    def _ask(self, radius: float, seconds: float) -> Reply:
        """One probe of the ladder."""
        with self._timed(f"{PROBE}{len(self.seconds)}_{radius:.5f}"):
            answer = decide(
                self.network,
                self._property(radius),
                engine=self.goal.engine,
                timeout_seconds=seconds,
                seed=self.goal.seed,
                with_marabou=False,  # which could take the process, and what is known, with it
            )
        if answer.verdict is Verdict.ROBUST:
            self.proved_by = answer.decided_by
            return Reply(proved=True)
        if answer.verdict is Verdict.FALSIFIED:
            self._break(answer.candidates[0])
            return Reply(broken=self.broken)
        self.points += list(answer.candidates)
        return Reply(reason=f"{answer.verdict} at epsilon {radius:.5f}: {answer.reason}")
