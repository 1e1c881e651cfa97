"""The ladder that decides a property: bounds, attack, optimised bounds, branch and bound, Marabou.

Each stage takes what the one before left open; the plain bounds go first, since they cost
milliseconds and spare the attack what they exclude. Attacks only reach unsafe regions, bounds only
exclude them; what neither settles within the time is `unknown` or `timeout`. Marabou finds points,
and witnesses that there is none (see `marabou`): the time that is left then goes to a proof.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tasks.core import reporting
from tasks.core.arrays import FloatArray
from tasks.core.attacks import falsification
from tasks.core.bounds.float32_error import row_error
from tasks.core.bounds.linear import (
    interval_lower_bounds,
    linear_lower_bounds,
    preactivation_bounds,
)
from tasks.core.bounds.relaxations import Bounds
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.specification import LinfBall, Property, UnsafeRegion
from tasks.core.search import marabou
from tasks.core.verdicts import WITNESSED_ONLY, DecidedBy, Engine, Verdict, combine

if TYPE_CHECKING:
    from tasks.core.search.inputs import InputSearch
    from tasks.core.search.phases import PhaseSearch


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
        deployed: with `robust`, whether every region's bound exceeds the error of the network's
            float32 forward pass, so that it holds for the model as it is served.
        witness: `confirmed` with a proof of what Marabou had called `unsat` before.
        candidates: points, shape (n, inputs), to be replayed on the deployed model, best first.
        stage_seconds: by stage: attack, interval, crown, alpha_crown, branch_and_bound, marabou.
    """

    verdict: Verdict
    decided_by: DecidedBy
    candidates: FloatArray
    region: int | None = None
    margin: float | None = None
    deployed: bool | None = None
    witness: str = ""
    reason: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)


@np.errstate(over="ignore", invalid="ignore")  # infinities and NaN neither prove nor falsify
def decide(
    network: ReluNetwork,
    prop: Property,
    *,
    engine: Engine = "ladder",
    timeout_seconds: float,
    seed: int = 0,
    with_marabou: bool = True,
    known: FloatArray | None = None,
    prove_again: bool = True,
) -> Answer:
    """Whether `prop` holds: sound; complete but for time, near-boundary cases and the engine.

    `known`, (regions,), are sound lower bounds on the least excess of each region, -inf where none
    is known. No proof rests on Marabou.

    The time limit is kept by every stage but Marabou's own, which can overshoot by any amount: run
    this in a process that can be ended from outside, or `with_marabou=False`, which ends the ladder
    before it (and means nothing to the engine `marabou`). What Marabou merely witnesses stays open
    unless `prove_again`.
    """
    if prop.unsafe and prop.unsafe[0].rows.shape[1] > network.num_outputs:
        network = network.with_inputs()
    deadline = time.monotonic() + timeout_seconds
    seconds: dict[str, float] = {}
    answers: list[Answer] = []
    for places in _by_box(prop):
        search = _BoxLadder(network, [prop.unsafe[i] for i in places], deadline, seed, seconds)
        if known is not None:
            search.lower = known[places].copy()
        answer = search.run(engine, with_marabou, prove_again)
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
    from tasks.core.search.inputs import InputSearch
    from tasks.core.search.phases import PhaseSearch

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
    return replace(
        last,
        margin=min(answer.margin for answer in alike if answer.margin is not None),
        deployed=all(answer.deployed for answer in alike),
    )


Stage = tuple[DecidedBy, Callable[[], FloatArray | None]]


class _BoxLadder:
    """The stages for the regions of one box; `seconds` gathers each stage's time.

    `network` loses the units that are found dead; `whole` and `whole_hidden` keep them, since in
    float32 they may be a little alive.
    """

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
        self.whole_hidden: list[Bounds] = []
        self.units = [np.arange(len(layer.bias)) for layer in network.layers[:-1]]
        self.search: PhaseSearch | InputSearch | None = None
        self.near: list[FloatArray] = []  # points on the border, for the deployed model to judge
        self.reason = ""

    def run(self, engine: Engine, with_marabou: bool, prove_again: bool) -> Answer:
        """Down the ladder until all regions are excluded, one is reached, or nothing is left."""
        bounds: list[Stage] = [
            (DecidedBy.INTERVAL, self._interval),
            (DecidedBy.CROWN, self._crown),
        ]
        search: Stage = (DecidedBy.BRANCH_AND_BOUND, self._branch_and_bound)
        if engine == "marabou":
            rest = [*bounds, (DecidedBy.CROWN, self._alpha_crown), search]
            return self._marabou(1.0, rest if prove_again else [])
        stages = [
            *bounds,
            (DecidedBy.ATTACK, lambda: self._attack(FIRST_RESTARTS)),
            (DecidedBy.CROWN, self._alpha_crown),
            (DecidedBy.ATTACK, lambda: self._attack(ATTACK_RESTARTS)),
        ]
        if engine == "ladder":
            share = BRANCHING_SHARE if with_marabou else 1.0
            stages.append((DecidedBy.BRANCH_AND_BOUND, lambda: self._branch_and_bound(share)))
        answer = self._down(stages)
        is_open = answer.verdict not in {Verdict.ROBUST, Verdict.FALSIFIED}
        if is_open and engine == "ladder" and with_marabou and time.monotonic() < self.deadline:
            return self._marabou(1 / MARABOU_OVERSHOOT, [search] if prove_again else [])
        return answer

    def _down(self, stages: Sequence[Stage]) -> Answer:
        """One stage after the other; the last one's answer where all leave something open."""
        for stage, bound in stages:
            point = bound()
            if point is not None:
                if self._is_reached(point):
                    return self._falsified(point, stage)
                self.near.append(point)
            if (self.lower > 0).all():
                return self._robust(stage)
        return self._open(stages[-1][0])

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
        return np.array(self.near).reshape(-1, self.network.num_inputs)

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
            self._set_hidden(preactivation_bounds(self.network, self.box, "interval"))
            self._drop_dead_units()
            rows = np.concatenate([self.regions[index].rows for index in self._left])
            bounds = interval_lower_bounds(self.network, rows, self.hidden, self.box)
            self._raise_lower(bounds[0])
        return None

    def _crown(self) -> FloatArray | None:
        with self._timed("crown"):
            self._set_hidden(preactivation_bounds(self.network, self.box, "crown", self.deadline))
            self._drop_dead_units()
            rows = np.concatenate([self.regions[index].rows for index in self._left])
            depth = len(self.network.layers) - 1
            bounds = linear_lower_bounds(self.network, depth, rows, self.hidden, self.box)
            self._raise_lower(bounds[0])
        return None

    def _set_hidden(self, hidden: list[Bounds]) -> None:
        """Bounds on the units that are left, and so on those of the whole network."""
        self.hidden = hidden
        if not self.whole_hidden:
            self.whole_hidden = [Bounds(each.lower.copy(), each.upper.copy()) for each in hidden]
        for whole, units, bounds in zip(self.whole_hidden, self.units, hidden, strict=True):
            whole.lower[:, units], whole.upper[:, units] = bounds.lower, bounds.upper

    def _float32_errors(self) -> FloatArray:
        """By how much the deployed model may be off on each region's rows, (regions,)."""
        rows = np.concatenate([region.rows for region in self.regions])
        errors = row_error(self.whole, rows, self.whole_hidden, self.box)[0]
        ends = np.cumsum([len(region.rows) for region in self.regions])
        return np.array([part.max() for part in np.split(errors, ends[:-1])])

    def _goal(self) -> float:
        """The bound from which on a proof holds for the deployed model as well."""
        error = float(self._float32_errors().max())
        return error if np.isfinite(error) else 0.0

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
        self.units = [units[mask] for units, mask in zip(self.units, kept, strict=True)]
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
        from tasks.core.search.phases import optimised_root

        if self.network.num_inputs <= FEW_INPUTS:
            return None  # splitting an input is worth more, and is as fast
        with self._timed("alpha_crown"):
            left = self._left
            self.search = search = optimised_root(
                self.network,
                self.box,
                [self.regions[index] for index in left],
                self.hidden,
                SLOPE_STEPS,
                self.deadline,
                self._goal(),
            )
            self._set_hidden(search.problem.hidden)
            self.lower[left] = np.maximum(self.lower[left], search.root_lower)
        return None

    def _branch_and_bound(self, share: float = 1.0) -> FloatArray | None:
        """Goes on where it was when it is called once more."""
        _, input_search = _searches()
        with self._timed("branch_and_bound"):
            left = self._left
            if self.search is None:
                regions = [self.regions[index] for index in left]
                self.search = input_search(
                    self.network, self.box, regions, self.hidden, self._goal()
                )
            now = time.monotonic()
            found = self.search.run(now + share * (self.deadline - now))
            if found.proved:
                self.lower[left] = found.lower
            self.reason = found.reason
            return found.candidate

    def _marabou(self, share: float, again: Sequence[Stage]) -> Answer:
        """What Marabou says; what it merely witnesses is proved by the stages `again`, or open."""
        with self._timed("marabou"):
            left = self._left
            if not self.hidden:
                self._set_hidden(
                    preactivation_bounds(self.network, self.box, "crown", self.deadline)
                )
            answer = marabou.decide(
                self.network,
                self.box,
                [self.regions[index] for index in left],
                timeout_seconds=share * (self.deadline - time.monotonic()),
                hidden=self.hidden,
            )
        self.lower[left] = np.maximum(self.lower[left], answer.margins)
        if answer.verdict is Verdict.ROBUST:  # by constant rows: linear bounds show them
            return self._robust(DecidedBy.CROWN)
        reasons = [self.reason, answer.reason]
        if answer.reason == WITNESSED_ONLY:
            reasons = [WITNESSED_ONLY]
            proved = self._down(again) if again else None
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

    def _robust(self, stage: DecidedBy) -> Answer:
        return Answer(
            Verdict.ROBUST,
            stage,
            np.empty((0, self.network.num_inputs)),
            margin=float(self.lower.min()),
            deployed=bool((self.lower > self._float32_errors()).all()),
        )

    def _is_reached(self, point: FloatArray) -> bool:
        """Whether the point reaches a region, evaluated alone by the whole network.

        Without the dead units sums may round otherwise, which decides ties.
        """
        return any(falsification.reaches(self.whole, region, point) for region in self.regions)

    def _falsified(self, point: FloatArray, stage: DecidedBy) -> Answer:
        outputs = self.whole(point[None])
        excess = [float(region.excess(outputs)[0]) for region in self.regions]
        return Answer(Verdict.FALSIFIED, stage, point[None], int(np.argmin(excess)))

    def _open(self, stage: DecidedBy) -> Answer:
        late = stage is DecidedBy.BRANCH_AND_BOUND and time.monotonic() >= self.deadline
        verdict = Verdict.TIMEOUT if late else Verdict.UNKNOWN
        reason = self.reason or "bounds are too loose"
        return Answer(verdict, stage, self._candidates, self._left[0], reason=reason)
