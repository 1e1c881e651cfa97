"""What the searches on phases and on inputs share: how one ends, and when it has done enough."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import FloatArray
from tasks.core.attacks.falsification import deep_samples, reaches, search_from
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain
from tasks.core.properties.specification import UnsafeRegion

SPARE = 64  # subproblems for the goal, beside a tenth of what the proof took
FIRST_ATTACK = 512  # subproblems; each next one after twice as many
STARTS = 16
DESCENT_STEPS = 40


PhaseArray = NDArray[np.int8]  # of a network's units: 1 active, -1 inactive, 0 unknown

Entry = TypeVar("Entry", bound=tuple[Any, ...])


@dataclass(frozen=True, eq=False)
class Search:
    """How a search ended.

    Attributes:
        proved: whether every subproblem was closed: no region is reached.
        candidate: a point whose float64 outputs reach a region, shape (inputs,), or None.
        lower: the least proved bound over all open and closed subproblems.
        subproblems: how many were bounded.
        reason: why it ended with neither.
    """

    proved: bool
    candidate: FloatArray | None
    lower: float
    subproblems: int
    reason: str


@dataclass
class Goal:
    """The bound from which on a subproblem is not worth more work.

    A bound above 0 excludes a region. When all are excluded, those up to `bound` are raised with a
    few more subproblems, unless some point's excess, `least_seen`, shows that it is out of reach.
    """

    bound: float
    least_seen: float = np.inf
    most: float = np.inf

    @property
    def reachable(self) -> float:
        """`bound`, or 0 where a point shows that it is out of reach."""
        return self.bound if self.least_seen > self.bound else 0.0

    def worth_more(self, heap: list[Any], subproblems: int) -> bool:
        """Of a heap of open subproblems, the least bound first, when so many were bounded."""
        if not heap:
            return False
        if heap[0][0] > 0:
            self.most = min(self.most, 1.1 * subproblems + SPARE)
            return subproblems < self.most and self.least_seen > self.bound
        return True


class BestFirst:
    """A search over one box and the regions that share it: what both searches keep account of.

    `heap` holds the open subproblems as (bound, order, …), where a bound above 0 is proved, and
    `closed_lower` the least bound among those that were closed; see `Goal` for what `goal` bounds.
    """

    def __init__(
        self, network: ReluNetwork, box: Box, regions: Sequence[UnsafeRegion], goal: float
    ) -> None:
        self.network, self.box, self.regions, self.goal = network, box, regions, Goal(goal)
        self.heap: list[Any] = []
        self.order = itertools.count()  # ties go first in, first out
        self.subproblems = 0
        self.stuck = 0
        self.closed_lower = np.inf
        self.candidate: FloatArray | None = None
        self.attacked_at = FIRST_ATTACK

    def goes_on(self, deadline: float) -> bool:
        """Whether no point is found, open subproblems are worth more work, and time is left."""
        return (
            self.candidate is None
            and self.goal.worth_more(self.heap, self.subproblems)
            and time.monotonic() < deadline
        )

    def met(self, place: int, points: FloatArray, excess: FloatArray) -> None:
        """Points, (n, inputs), and by how much they miss the region at `place`, (n,).

        The deepest is a candidate if it reaches the region.
        """
        best = int(excess.argmin())
        self.goal.least_seen = min(self.goal.least_seen, float(excess[best]))
        if reaches(self.network, self.regions[place], points[best]):
            self.candidate = points[best]

    def attacks(self, deadline: float, domain: Domain | None = None) -> None:
        """Descends from deep samples, each time after twice as many subproblems."""
        if self.subproblems < self.attacked_at or self.candidate is not None:
            return
        self.attacked_at *= 2
        generator = np.random.default_rng(self.subproblems)
        samples = deep_samples(self.network, self.box, self.regions, domain, generator, STARTS)
        self.candidate = search_from(
            self.network,
            self.box,
            self.regions,
            *samples,
            domain=domain,
            num_steps=DESCENT_STEPS,
            deadline=deadline,
        )

    def ended(self, open_lower: float, kind: str, parts: str, stuck: str) -> Search:
        """How the search stands, `open_lower` the least proved bound of what is open.

        The words are for its reason.
        """
        proved = open_lower > 0 and self.candidate is None and not self.stuck
        reason = "" if proved else f"{kind}: {len(self.heap)} open of {self.subproblems}{parts}"
        if self.stuck:
            reason += f", {self.stuck} {stuck}"
        lower = float(min(open_lower, self.closed_lower))
        return Search(proved, self.candidate, lower, self.subproblems, reason)


def worst_first(heap: list[Entry], most: int) -> list[Entry]:
    """Takes the entries of least bound; of those that exclude their regions only when all do."""
    all_excluded = heap[0][0] > 0
    taken: list[Entry] = []
    while heap and len(taken) < most and (all_excluded or not heap[0][0] > 0):
        taken.append(heapq.heappop(heap))
    return taken
