"""The ladder that decides a property: bounds, attack, optimised bounds, branch and bound, Marabou.

Each stage takes what the one before left open; the plain bounds go first, since they cost
milliseconds and spare the attack what they exclude. Attacks only reach unsafe regions, bounds only
exclude them; what neither settles within the time is `unknown` or `timeout`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from tasks.core import falsification, marabou
from tasks.core.bounds import (
    Bounds,
    interval_lower_bounds,
    linear_lower_bounds,
    preactivation_bounds,
)
from tasks.core.network import Affine, ReluNetwork
from tasks.core.specification import FloatArray, LinfBall, Property, UnsafeRegion
from tasks.core.verdicts import DecidedBy, Verdict, combine

if TYPE_CHECKING:
    from tasks.core.branch_and_bound import PhaseSearch
    from tasks.core.input_splitting import InputSearch

Engine = Literal["ladder", "marabou", "bounds"]

ENGINE_VERSION = "3"  # changes whenever a verdict or its time could: stored ones are then not used
FEW_INPUTS = 12  # up to which inputs are split instead of phases
ATTACK_STEPS = 40
FIRST_RESTARTS, ATTACK_RESTARTS = 1, 10  # before and after the optimised bounds
SLOPE_STEPS = 15
BRANCHING_SHARE = 0.95  # of the time; the rest is Marabou's
MARABOU_OVERSHOOT = 2.0  # by which its own time limit is often overrun


@dataclass(frozen=True, eq=False)
class Answer:
    """What is known of a property.

    Attributes:
        verdict: `robust` (VNN-COMP `unsat`): no unsafe region is reached, in exact arithmetic for
            the float64 network. `falsified` (`sat`): the first candidate reaches one in float64.
        decided_by: the stage that gave the verdict, or the last one that tried.
        region: place in `Property.unsafe` of the region reached or left open.
        margin: with `robust`, the proved lower bound on the least excess over all regions.
        candidates: points, shape (n, inputs), to be replayed on the deployed model, best first.
        stage_seconds: by stage: attack, interval, crown, alpha_crown, branch_and_bound, marabou.
    """

    verdict: Verdict
    decided_by: DecidedBy
    candidates: FloatArray
    region: int | None = None
    margin: float | None = None
    reason: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)


def decide(
    network: ReluNetwork,
    prop: Property,
    *,
    engine: Engine = "ladder",
    timeout_seconds: float,
    seed: int = 0,
    with_marabou: bool = True,
) -> Answer:
    """Whether `prop` holds: sound; complete but for time, near-boundary cases and the engine.

    The time limit is kept by every stage but Marabou's own, which can overshoot by any amount: run
    this in a process that can be ended from outside, or `with_marabou=False`, which ends the ladder
    before it (and means nothing to the engine `marabou`).
    """
    if prop.unsafe and prop.unsafe[0].rows.shape[1] > network.num_outputs:
        network = network.with_inputs()
    deadline = time.monotonic() + timeout_seconds
    seconds: dict[str, float] = {}
    answers: list[Answer] = []
    for places in _by_box(prop):
        search = _BoxLadder(network, [prop.unsafe[i] for i in places], deadline, seed, seconds)
        answer = search.run(engine, with_marabou)
        region = None if answer.region is None else places[answer.region]
        answers.append(replace(answer, region=region, stage_seconds=seconds))
        if answer.verdict is Verdict.FALSIFIED:
            break
    return _combined(answers, network.num_inputs, seconds)


def warm_up() -> None:
    """Compiles both searches' kernels, or loads them from Numba's cache.

    A process that decides under time limits calls this first, so that none of them pays for it.
    """
    one = Affine(np.eye(2), np.zeros(2))
    network = ReluNetwork((one, one))
    box = LinfBall(np.full((1, 2), -1.0), np.ones((1, 2)))
    region = UnsafeRegion(box, np.eye(2), np.ones(2))
    hidden = preactivation_bounds(network, box, "crown")
    for search in _searches():
        search(network, box, [region], hidden).run(deadline=0.0)


def _searches() -> tuple[type[PhaseSearch], type[InputSearch]]:
    """Imported late: Numba takes a moment, and the processes that only wait need none of it."""
    from tasks.core.branch_and_bound import PhaseSearch
    from tasks.core.input_splitting import InputSearch

    return PhaseSearch, InputSearch


def _by_box(prop: Property) -> list[list[int]]:
    """Places of the regions that share a box, box after box."""
    groups: dict[tuple[bytes, bytes], list[int]] = {}
    for index, region in enumerate(prop.unsafe):
        key = (region.box.lower.tobytes(), region.box.upper.tobytes())
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _combined(answers: Sequence[Answer], num_inputs: int, seconds: dict[str, float]) -> Answer:
    """One answer for all boxes: the weakest; of proofs, the stage furthest down the ladder."""
    verdict = combine(answer.verdict for answer in answers)
    alike = [answer for answer in answers if answer.verdict is verdict]
    if not alike:
        nothing = np.empty((0, num_inputs))
        return Answer(verdict, DecidedBy.INTERVAL, nothing, reason="no unsafe region is given")
    if verdict is not Verdict.ROBUST:
        return alike[0]
    stages = list(DecidedBy)
    last = max(alike, key=lambda answer: stages.index(answer.decided_by))
    margin = min(answer.margin for answer in alike if answer.margin is not None)
    return Answer(verdict, last.decided_by, last.candidates, None, margin, "", seconds)


class _BoxLadder:
    """The stages for the regions of one box; `seconds` gathers each stage's time."""

    def __init__(
        self,
        network: ReluNetwork,
        regions: list[UnsafeRegion],
        deadline: float,
        seed: int,
        seconds: dict[str, float],
    ) -> None:
        self.whole, self.network = network, network
        self.regions, self.box = regions, regions[0].box
        self.deadline, self.seed, self.seconds = deadline, seed, seconds
        self.lower = np.full(len(regions), -np.inf)  # proved so far, on each region's excess
        self.hidden: list[Bounds] = []
        self.rooted: PhaseSearch | None = None  # by alpha-CROWN, over the regions it found open
        self.reason = ""

    def run(self, engine: Engine, with_marabou: bool) -> Answer:
        """Down the ladder until all regions are excluded, one is reached, or nothing is left."""
        if engine == "marabou":
            return self._marabou(share=1.0)
        stages: list[tuple[DecidedBy, Callable[[], FloatArray | None]]] = [
            (DecidedBy.INTERVAL, self._interval),
            (DecidedBy.CROWN, self._crown),
            (DecidedBy.ATTACK, lambda: self._attack(FIRST_RESTARTS)),
            (DecidedBy.CROWN, self._alpha_crown),
            (DecidedBy.ATTACK, lambda: self._attack(ATTACK_RESTARTS)),
        ]
        if engine == "ladder":
            share = BRANCHING_SHARE if with_marabou else 1.0
            stages.append((DecidedBy.BRANCH_AND_BOUND, lambda: self._branch_and_bound(share)))
        for stage, bound in stages:
            point = bound()
            if point is not None:  # reaches a region, evaluated alone
                return self._falsified(point, stage)
            if (self.lower > 0).all():
                return self._robust(stage)
        if engine == "bounds" or not with_marabou:
            return self._open(stages[-1][0])
        return self._marabou(share=1 / MARABOU_OVERSHOOT)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started

    @property
    def _left(self) -> list[int]:
        return [int(index) for index in np.flatnonzero(~(self.lower > 0))]

    def _attack(self, num_restarts: int) -> FloatArray | None:
        with self._timed("attack"):
            return falsification.search(
                self.network,
                self.box,
                [self.regions[index] for index in self._left],
                num_steps=ATTACK_STEPS,
                num_restarts=num_restarts,
                seed=self.seed,
                deadline=self.deadline,
            )

    def _interval(self) -> FloatArray | None:
        with self._timed("interval"):
            self.hidden = preactivation_bounds(self.network, self.box, "interval")
            self._drop_dead_units()
            rows = np.concatenate([self.regions[index].rows for index in self._left])
            bounds = interval_lower_bounds(self.network, rows, self.hidden, self.box)
            self._raise_lower(bounds[0])
        return None

    def _crown(self) -> FloatArray | None:
        with self._timed("crown"):
            self.hidden = preactivation_bounds(self.network, self.box, "crown", self.deadline)
            self._drop_dead_units()
            rows = np.concatenate([self.regions[index].rows for index in self._left])
            depth = len(self.network.layers) - 1
            bounds = linear_lower_bounds(self.network, depth, rows, self.hidden, self.box)
            self._raise_lower(bounds[0])
        return None

    def _drop_dead_units(self) -> None:
        """Goes on with the network without the ReLUs that are zero in the whole box.

        There it is the same function, and after certified training much smaller.
        """
        kept = [
            ~(bounds.upper[0] <= 0) | linear
            for bounds, linear in zip(self.hidden, self.network.linear, strict=True)
        ]
        for mask in kept:
            mask[:1] |= not mask.any()  # a layer of no units would be a shape for nobody
        self.network = self.network.restricted(kept)
        self.hidden = [bounds[:, mask] for bounds, mask in zip(self.hidden, kept, strict=True)]

    def _raise_lower(self, bounds: FloatArray) -> None:
        """With bounds on every row of the regions left: of each the greatest proves most."""
        left = self._left
        counts = [len(self.regions[index].rows) for index in left]
        for index, rows in zip(left, np.split(bounds, np.cumsum(counts)[:-1]), strict=True):
            excess = rows + self.regions[index].offsets
            excess = excess - np.abs(excess) * 2.0**-52  # the sum's own rounding
            self.lower[index] = max(self.lower[index], excess.max())

    def _alpha_crown(self) -> FloatArray | None:
        from tasks.core.branch_and_bound import optimised_root

        if self.network.num_inputs <= FEW_INPUTS:
            return None  # splitting an input is worth more, and is as fast
        with self._timed("alpha_crown"):
            left = self._left
            self.rooted = optimised_root(
                self.network,
                self.box,
                [self.regions[index] for index in left],
                self.hidden,
                SLOPE_STEPS,
                self.deadline,
            )
            self.hidden = self.rooted.problem.hidden
            self.lower[left] = np.maximum(self.lower[left], self.rooted.root_lower)
        return None

    def _branch_and_bound(self, share: float) -> FloatArray | None:
        _, input_search = _searches()
        with self._timed("branch_and_bound"):
            left = self._left
            regions = [self.regions[index] for index in left]
            search = self.rooted or input_search(self.network, self.box, regions, self.hidden)
            now = time.monotonic()
            found = search.run(now + share * (self.deadline - now))
            if found.proved:
                self.lower[left] = found.lower
            self.reason = found.reason
            return found.candidate

    def _marabou(self, share: float) -> Answer:
        with self._timed("marabou"):
            left = self._left
            answer = marabou.decide(
                self.network,
                self.box,
                [self.regions[index] for index in left],
                timeout_seconds=share * (self.deadline - time.monotonic()),
                hidden=self.hidden or None,
            )
        if answer.verdict is Verdict.ROBUST:
            self.lower[left] = answer.margin
            return self._robust(DecidedBy.MARABOU)
        return Answer(
            answer.verdict,
            DecidedBy.MARABOU,
            answer.candidates,
            None if answer.region is None else left[answer.region],
            None,
            "; ".join(part for part in (self.reason, answer.reason) if part),
        )

    def _robust(self, stage: DecidedBy) -> Answer:
        nothing = np.empty((0, self.network.num_inputs))
        return Answer(Verdict.ROBUST, stage, nothing, None, float(self.lower.min()))

    def _falsified(self, point: FloatArray, stage: DecidedBy) -> Answer:
        outputs = self.whole(point[None])
        excess = [float(region.excess(outputs)[0]) for region in self.regions]
        return Answer(Verdict.FALSIFIED, stage, point[None], int(np.argmin(excess)))

    def _open(self, stage: DecidedBy) -> Answer:
        nothing = np.empty((0, self.network.num_inputs))
        late = stage is DecidedBy.BRANCH_AND_BOUND and time.monotonic() >= self.deadline
        verdict = Verdict.TIMEOUT if late else Verdict.UNKNOWN
        reason = self.reason or "bounds are too loose"
        return Answer(verdict, stage, nothing, self._left[0], None, reason)
