"""Monotone features: whether a greater value lowers a score, by how steeply the score rises.

Two rows with different values of one feature, however near, are joined by a line. The slope along
it is bounded over the box (`search.slopes`), and lines through the parts of the box where it may be
least are looked at for a fall. Only what both leave open is asked of two copies of the network.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tasks.core import reporting
from tasks.core.arrays import FloatArray, Inputs
from tasks.core.bounds.float32_error import row_error
from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.networks.network import ReluNetwork
from tasks.core.pairs.requirements import TOLERANCE, Requirement, is_by_steps, place_of
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain
from tasks.core.properties.perturbation import Perturbation
from tasks.core.search.answer import Answer
from tasks.core.search.slopes import search_slope
from tasks.core.verdicts import DecidedBy, Verdict
from tasks.core.verification.replay import float32_inside

LINES, LINE_POINTS = 8, 200  # of a part that is looked at, and of each of them
ROUNDING = 2.0**-40  # of a product or a sum of two, much more than its own


def monotone_boxes(
    perturbation: Perturbation, center: Inputs, epsilon: float, requirement: Requirement
) -> Box:
    """All rows that are compared, a box for each choice of categories."""
    boxes, _ = perturbation.boxes(center[None], epsilon)
    domain, lower, upper = perturbation.domain, boxes.lower.copy(), boxes.upper.copy()
    _, columns = place_of(domain, requirement.feature)
    lower[:, columns], upper[:, columns] = domain.lower[columns], domain.upper[columns]
    return Box(lower, upper)


def by_slopes(
    network: ReluNetwork,
    domain: Domain,
    boxes: Box,
    requirement: Requirement,
    *,
    deadline: float,
    seed: int,
) -> Answer:
    """Whether the score falls by `TOLERANCE` or more nowhere in the boxes: sound, not complete.

    The boxes, one for each choice of categories, have the feature over all its domain. Candidates
    are points (x, y), y the greater value; with `falsified` the first one's fall is beyond what
    float32 can hide. `margin` is by how much more the score may fall, and `deployed` whether that
    exceeds what float32 can do to the scores of two rows. Where the deadline has passed each box is
    bounded once.
    """
    reporting.entered(DecidedBy.BRANCH_AND_BOUND.value)
    started, question = time.monotonic(), _Question(network, domain, requirement, seed)
    found = list[_Found]()
    for place in range(len(boxes)):
        found.append(question.asked_of(boxes[place : place + 1], deadline))
        if found[-1].verdict is not Verdict.ROBUST:
            break
    bounded = sum(each.boxes for each in found)
    stage = DecidedBy.CROWN if bounded == len(found) else DecidedBy.BRANCH_AND_BOUND
    last, is_robust = found[-1], found[-1].verdict is Verdict.ROBUST
    return Answer(
        last.verdict,
        DecidedBy.ATTACK if last.verdict is Verdict.FALSIFIED else stage,
        last.candidates,
        margin=min(each.margin for each in found) if is_robust else None,
        deployed=all(each.deployed for each in found) if is_robust else None,
        reason=f"slopes: {bounded} boxes" if last.verdict is Verdict.UNKNOWN else "",
        stage_seconds={stage.value: time.monotonic() - started},
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """Of one box; see `by_slopes`."""

    verdict: Verdict
    boxes: int
    margin: float
    deployed: bool
    candidates: FloatArray


@dataclass(frozen=True, eq=False)
class _Question:
    """What is asked of every box."""

    network: ReluNetwork
    domain: Domain
    requirement: Requirement
    seed: int

    @cached_property
    def column(self) -> int:
        return int(place_of(self.domain, self.requirement.feature)[1][0])

    @cached_property
    def is_by_steps(self) -> bool:
        return is_by_steps(place_of(self.domain, self.requirement.feature)[0])

    @cached_property
    def row(self) -> FloatArray:
        """Over the two outputs: the score that is to grow."""
        assert self.requirement.positive is not None
        row = np.full(2, -1.0 if self.requirement.demand == "up" else 1.0)
        row[self.requirement.positive] *= -1
        return row

    @cached_property
    def farthest(self) -> float:
        """How far apart two values are that are compared, at most."""
        if self.is_by_steps:
            return 1.0
        span = self.domain.upper[self.column] - self.domain.lower[self.column]
        return float(span) * (1 + ROUNDING)

    def asked_of(self, box: Box, deadline: float) -> _Found:
        """What is found of one box until the deadline."""
        lines = _Lines(self, box, 2 * self._float32_error(box))
        needed = -TOLERANCE / self.farthest * (1 - 2 * ROUNDING) if self.farthest else -np.inf
        search = search_slope(
            self.network, self.row, self.column, box, needed, deadline, lines.look
        )
        margin = TOLERANCE + min(search.lower, 0.0) * self.farthest * (1 + ROUNDING)
        verdict = Verdict.FALSIFIED if lines.is_certain else Verdict.UNKNOWN
        if margin > 0:
            verdict, lines.candidates = Verdict.ROBUST, lines.candidates[:0]
        return _Found(verdict, search.boxes, margin, margin > lines.error, lines.candidates)

    def _float32_error(self, box: Box) -> float:
        """Of the score of any row of the box."""
        hidden = preactivation_bounds(self.network, box, "crown")
        return float(row_error(self.network, self.row[None], hidden, box)[0, 0])


class _Lines:
    """The greatest fall seen on the float64 network, of rows in float32, and its pair.

    `error`: of the difference of two scores in float32; `candidates`: (1, inputs + 1), or none.
    """

    def __init__(self, question: _Question, box: Box, error: float) -> None:
        self.question, self.box, self.error, self.fall = question, box, error, 0.0
        self.generator, self.values = np.random.default_rng(question.seed), self._values()
        self.candidates = np.empty((0, question.network.num_inputs + 1))

    @property
    def is_certain(self) -> bool:
        """Whether the deployed model shows it as well."""
        return self.fall > TOLERANCE + self.error

    def look(self, part: Box) -> bool:
        """At lines through a part's center and corners, over all the feature's values.

        Whether one `is_certain`.
        """
        shares = self.generator.integers(0, 2, (LINES, part.lower.shape[1])).astype(np.float64)
        shares[0] = 0.5
        points = self.question.domain.nearest(part.lower + shares * (part.upper - part.lower))
        starts = float32_inside(self.box, points).astype(np.float64)
        lines = np.repeat(starts[:, None], len(self.values), axis=1)
        lines[:, :, self.question.column] = self.values
        for line in lines:
            self._look_along(line)
        return self.is_certain

    def _look_along(self, line: FloatArray) -> None:
        scores = self.question.network(line) @ self.question.row
        first, other = _greatest_fall(scores, by_steps=self.question.is_by_steps)
        fall, domain = float(scores[first] - scores[other]), self.question.domain
        if fall >= TOLERANCE and fall > self.fall and domain.contains(line[[first, other]]).all():
            self.fall, self.candidates = fall, np.append(line[first], self.values[other])[None]

    def _values(self) -> FloatArray:
        domain, column = self.question.domain, self.question.column
        low, high = domain.lower[column], domain.upper[column]
        if self.question.is_by_steps:
            return np.arange(low, high + 1)
        values = np.linspace(low, high, LINE_POINTS)
        values = np.round(values) if domain.whole[column] else values
        return np.unique(values.astype(np.float32)).astype(np.float64)


def _greatest_fall(scores: FloatArray, *, by_steps: bool) -> tuple[int, int]:
    """Places of the greatest fall, before and after; of single steps, or of any length."""
    if by_steps:
        place = int(np.diff(scores, append=np.inf).argmin())
        return place, min(place + 1, len(scores) - 1)
    other = int((np.maximum.accumulate(scores) - scores).argmax())
    return int(scores[: other + 1].argmax()), other
