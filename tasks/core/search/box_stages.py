"""The stages of the ladder for the regions of one box, each taking what was left open."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tasks.core import reporting
from tasks.core.arrays import FloatArray
from tasks.core.attacks import falsification
from tasks.core.bounds.linear import Method
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.domain import Domain
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search import marabou
from tasks.core.search.answer import Answer, Known
from tasks.core.search.box_bounds import FEW_INPUTS, BoxBounds
from tasks.core.verdicts import NEAR_BOUNDARY, OUTSIDE_DOMAIN, WITNESSED_ONLY, DecidedBy, Verdict

if TYPE_CHECKING:
    from tasks.core.search.inputs import InputSearch
    from tasks.core.search.phases import PhaseSearch

MORE_INPUTS = 128  # up to which they are split in turn with phases, if rows of a region clip them
MOST_PRODUCTS = 2**20  # for bounds on all units of a box then: about a millisecond
FIRST_TURN = 0.5  # seconds of each search; they double
PHASES_SHARE = 0.25  # of a turn, where halving boxes is worth more
ATTACK_STEPS = 40
SLOPE_STEPS = 15

Turn = tuple["PhaseSearch | InputSearch", float]  # and the seconds of its first one
Stage = tuple[DecidedBy, Callable[[], FloatArray | None]]  # a point if it may reach a region


def searches() -> tuple[type[PhaseSearch], type[InputSearch]]:
    """Imported late: Numba takes a moment, and the processes that only wait need none of it."""
    from tasks.core.search.inputs import InputSearch
    from tasks.core.search.phases import PhaseSearch

    return PhaseSearch, InputSearch


class BoxStages:
    """What each stage does, with the bounds found so far; `seconds` gathers each stage's time."""

    def __init__(
        self,
        network: ReluNetwork,
        regions: Sequence[UnsafeRegion],
        deadline: float,
        seed: int,
        seconds: dict[str, float],
        *,
        domain: Domain | None = None,
        known: Known | None,
    ) -> None:
        self.bounds = BoxBounds(network, regions, known)
        self.is_bounded, self.is_curved = self.bounds.has_crown, network.is_curved
        self.deadline, self.seed, self.seconds, self.domain = deadline, seed, seconds, domain
        self.phases: PhaseSearch | None = None
        self.inputs: InputSearch | None = None
        self.near: list[FloatArray] = []  # points on the border, for the deployed model to judge
        self.reason = ""

    def down(self, stages: Sequence[Stage]) -> Answer:
        """One stage after the other; the last one's answer where all leave something open."""
        for decided_by, run in stages:
            point = run()
            if point is not None:
                point = self._nearest(point)
                if self._is_reached(point):
                    return self._falsified(point, decided_by)
                self.near.append(point)
            if self.bounds.excludes_all:
                return self._robust(decided_by)
        return self._open(stages[-1][0])

    def plain_bounds(self, method: Method) -> FloatArray | None:
        """Intervals or CROWN, unless CROWN's bounds were handed on."""
        if self.is_bounded:
            return None
        with self._timed(method):
            self.bounds.bound_hidden(method, self.deadline)
            self.bounds.bound_regions(method)
        return None

    def attack(self, num_restarts: int, *, from_center: bool) -> FloatArray | None:
        """Gradient descent in float64 on each region left."""
        with self._timed("attack"):
            return falsification.search(
                self.bounds.network,
                self.bounds.box,
                self.bounds.regions_left,
                domain=self.domain,
                num_steps=ATTACK_STEPS,
                num_restarts=num_restarts,
                seed=self.seed,
                deadline=self.deadline,
                from_center=from_center,
            )

    def alpha_crown(self) -> FloatArray | None:
        """Optimised slopes, with which the search on phases begins.

        With the hidden bounds there are, then with tighter ones, where most of the time goes.
        """
        from tasks.core.search.phases import optimised_root

        bounds = self.bounds
        if bounds.num_split <= FEW_INPUTS and not (self.is_curved and bounds.network.is_large):
            return None  # splitting an input is worth more
        with self._timed("alpha_crown"):
            # of many units over few inputs, bounded tightly already, all time would go there
            for num_steps in (0,) if bounds.has_few_inputs else (0, SLOPE_STEPS):
                left = bounds.left
                self.phases = search = optimised_root(
                    bounds.network,
                    bounds.box,
                    bounds.regions_left,
                    bounds.hidden,
                    num_steps,
                    self.deadline,
                    bounds.goal(),
                )
                bounds.set_hidden(search.problem.hidden)
                bounds.raise_lower(left, search.root_lower)
                if bounds.excludes_all:
                    break
        return None

    def branch_and_bound(self, share: float = 1.0) -> FloatArray | None:
        """On phases, on inputs where they are few, or on each in turn, for a share of the time.

        Goes on where it was when it is called once more.
        """
        now, few = time.monotonic(), self.bounds.has_few_inputs and not self.is_curved
        turns: list[Turn] = []
        if self.phases is None or few or self._clips():
            turns.append((self._input_search(), FIRST_TURN))
        if self.phases is not None:
            turns.append((self.phases, FIRST_TURN * (PHASES_SHARE if few else 1)))
        return self._searched(turns, now + share * (self.deadline - now))

    def split_inputs(self) -> FloatArray | None:
        """In a domain, where a search on phases ended at a point that is no input."""
        if self.phases is None or self.phases.candidate is None or self.domain is None:
            return None
        return self._searched([(self._input_search(), FIRST_TURN)], self.deadline)

    def _clips(self) -> bool:
        """Whether rows of one region, each clipped by the others, may be worth splitting inputs."""
        network, regions = self.bounds.network, self.bounds.regions_left
        products = behind = 0
        for layer in network.layers[:-1]:  # a unit's pass reads its row, and all layers before
            products += layer.matrix.shape[0] * (layer.matrix.shape[1] + behind)
            behind += layer.matrix.shape[0] * layer.matrix.shape[1]
        return (
            network.num_inputs <= MORE_INPUTS
            and products <= MOST_PRODUCTS
            and any(len(region.rows) > 1 for region in regions)
        )

    def _input_search(self) -> InputSearch:
        bounds, (_, input_search) = self.bounds, searches()
        if self.inputs is None:
            self.inputs = input_search(
                bounds.network,
                bounds.box,
                bounds.regions_left,
                bounds.hidden,
                bounds.goal(),
                self.domain,
                deadline=self.deadline,
            )
        return self.inputs

    def _searched(self, turns: Sequence[Turn], deadline: float) -> FloatArray | None:
        """Each in turn, until one ends with an answer, all without, or the deadline passes."""
        bounds, length = self.bounds, 1.0 if len(turns) > 1 else np.inf
        with self._timed("branch_and_bound"):
            while True:
                for search, seconds in turns:
                    found = search.run(min(deadline, time.monotonic() + length * seconds))
                    self.reason = found.reason
                    if found.proved:
                        bounds.lower[bounds.left] = found.lower
                    if found.proved or found.candidate is not None:
                        return found.candidate
                if not any(search.goes_on(deadline) for search, _ in turns):
                    return None
                length *= 2

    def marabou(self, share: float, again: Sequence[Stage]) -> Answer:
        """What Marabou says; what it merely witnesses is proved by the stages `again`, or open."""
        bounds = self.bounds
        with self._timed("marabou"):
            left = bounds.left
            bounds.bound_hidden("crown", self.deadline)
            answer = marabou.decide(
                bounds.network,
                bounds.box,
                bounds.regions_left,
                timeout_seconds=share * (self.deadline - time.monotonic()),
                hidden=bounds.hidden,
            )
        bounds.raise_lower(left, answer.margins)
        if answer.verdict is Verdict.ROBUST:  # by constant rows: linear bounds show them
            return self._robust(DecidedBy.CROWN)
        if answer.verdict is Verdict.FALSIFIED and not self._is_reached(answer.candidates[0]):
            answer = replace(answer, verdict=Verdict.UNKNOWN, reason=NEAR_BOUNDARY)
        reasons = [self.reason, answer.reason]
        if answer.reason == WITNESSED_ONLY:
            reasons = [WITNESSED_ONLY]
            proved = self.down(again) if again else None
            if proved is not None and proved.verdict is Verdict.ROBUST:
                return replace(proved, witness="confirmed")
            if proved is not None and proved.verdict is Verdict.FALSIFIED:
                return proved
        return Answer(
            answer.verdict,
            DecidedBy.MARABOU,
            np.concatenate([answer.candidates, self._candidates]),
            None if answer.region is None else left[answer.region],
            reason="; ".join(part for part in reasons if part),
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        reporting.entered(stage)
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started

    @property
    def _candidates(self) -> FloatArray:
        return np.array(self.near).reshape(-1, self.bounds.network.num_inputs)

    def _robust(self, stage: DecidedBy) -> Answer:
        return Answer(
            Verdict.ROBUST,
            stage,
            np.empty((0, self.bounds.network.num_inputs)),
            margin=float(self.bounds.lower.min()),
            deployed=bool((self.bounds.lower > self.bounds.float32_errors()).all()),
        )

    def _is_reached(self, point: FloatArray) -> bool:
        """Whether the point is an input and reaches a region, evaluated alone by the whole network.

        Without the dead units sums may round otherwise, which decides ties.
        """
        bounds = self.bounds
        return falsification.is_valid(self.domain, point) and any(
            falsification.reaches(bounds.whole, region, point) for region in bounds.regions
        )

    def _nearest(self, point: FloatArray) -> FloatArray:
        return point if self.domain is None else self.domain.nearest(point[None])[0]

    def _falsified(self, point: FloatArray, stage: DecidedBy) -> Answer:
        outputs = self.bounds.whole(point[None])
        excess = [float(region.excess(outputs)[0]) for region in self.bounds.regions]
        return Answer(Verdict.FALSIFIED, stage, point[None], int(np.argmin(excess)))

    def _open(self, stage: DecidedBy) -> Answer:
        late = stage is DecidedBy.BRANCH_AND_BOUND and time.monotonic() >= self.deadline
        verdict = Verdict.TIMEOUT if late else Verdict.UNKNOWN
        reason = self.reason or "bounds are too loose"
        if self.near and not any(falsification.is_valid(self.domain, p) for p in self.near):
            reason = OUTSIDE_DOMAIN
        return Answer(verdict, stage, self._candidates, self.bounds.left[0], reason=reason)
