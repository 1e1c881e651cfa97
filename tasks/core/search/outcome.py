"""What the searches on phases and on inputs share: how one ends, and when it has done enough."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tasks.core.arrays import FloatArray

SPARE = 64  # subproblems for the goal, beside a tenth of what the proof took

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

    def worth_more(self, heap: list[Any], subproblems: int) -> bool:
        """Of a heap of open subproblems, the least bound first, when so many were bounded."""
        if not heap:
            return False
        if heap[0][0] > 0:
            self.most = min(self.most, 1.1 * subproblems + SPARE)
            return subproblems < self.most and self.least_seen > self.bound
        return True


def worst_first(heap: list[Entry], most: int) -> list[Entry]:
    """Takes the entries of least bound; of those that exclude their regions only when all do."""
    all_excluded = heap[0][0] > 0
    taken: list[Entry] = []
    while heap and len(taken) < most and (all_excluded or not heap[0][0] > 0):
        taken.append(heapq.heappop(heap))
    return taken
