"""Verification with Marabou 2.0.0, and what its `unsat` is worth.

Marabou (Wu et al. 2024, "Marabou 2.0: A Versatile Formal Analyzer of Neural Networks") computes in
floating point and fixes every variable whose bounds are within 1e-5 of each other; so it calls
queries `unsat` that have a counterexample when weights, radii or neurons are small. Three things
make that rare here:

1. Every variable is scaled: inputs are x = c + r·u with u in [-1, 1], a neuron with bounds
   [l, h] becomes z / (h - l), so that no range is tiny. ReLU is positively homogeneous, so
   relu(z) / s = relu(z / s).
2. Neurons that cannot be positive are dropped and neurons that cannot be negative are linear. One
   that is barely unstable (|l| or h below `BARELY_UNSTABLE` of its range) would itself have a tiny
   range on one side: it is replaced by a free variable that over-approximates it.
3. The question has a margin: is there a point with every row of the region at most `QUERY_MARGIN`
   of its range over the box? `sat` is only a candidate, to be replayed on the network. When its
   replay stops short of the boundary, the question is asked once more with the margin on the other
   side, for a point clearly beyond.

Still an `unsat` is no proof. Tolerances that are small in each variable can be large together:
where units have a small positive part they grow by a factor in each layer, and a variable that is
fixed restricts those that it was computed from, which no bound on the way forwards sees. An error
analysis that let every scaled variable be off by 1e-5, and what is computed from it by as much
times the absolute coefficients, let two false ones through in some ten thousand. So Marabou is a
witness: the answer is `unknown`, for the reason `WITNESSED_ONLY`, and whoever asked proves it
again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.core.arrays import BoolArray, FloatArray
from tasks.core.attacks.falsification import descend
from tasks.core.bounds.linear import linear_lower_bounds, preactivation_bounds
from tasks.core.bounds.relaxations import Bounds
from tasks.core.bounds.rounding import UNIT_ROUNDOFF, evaluation_error
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search.encoding import Encoding
from tasks.core.verdicts import NEAR_BOUNDARY, WITNESSED_ONLY, Verdict, combine

QUERY_MARGIN = 1e-3  # of the margin's range; a hundred times Marabou's bound tolerance
POLISH_STEPS = 100


@dataclass(frozen=True, eq=False)
class MarabouAnswer:
    """What Marabou says of the regions of one box.

    Attributes:
        verdict: `falsified` only when a point of the box reaches a region strictly in float64,
            `robust` only when rows that are constant over the box exclude every region.
        region: the place of the region reached, or of the first that stayed open.
        margins: for each region what its constant rows prove of its excess; -inf where nothing.
        reason: why there is no verdict; `WITNESSED_ONLY` when Marabou finds no region reached.
        candidates: points, shape (n, inputs), to be replayed on the deployed model, best first.
    """

    verdict: Verdict
    region: int | None
    margins: FloatArray
    reason: str
    candidates: FloatArray


def decide(
    network: ReluNetwork,
    box: Box,
    regions: Sequence[UnsafeRegion],
    *,
    timeout_seconds: float,
    hidden: Sequence[Bounds] | None = None,
) -> MarabouAnswer:
    """Whether a region of `box` (one box) is reached; that none is, Marabou can only witness.

    One query per region, most threatening (lowest bound) first; the first strict counterexample
    ends it. `hidden` may give sound bounds on the hidden layers that are already known.
    """
    deadline = time.monotonic() + timeout_seconds
    hidden = list(hidden or preactivation_bounds(network, box, "crown"))
    questions = [_Question.of(network, box, region, hidden) for region in regions]
    if not all(question.is_finite for question in questions):
        nothing, open_margins = np.empty((0, network.num_inputs)), np.full(len(regions), -np.inf)
        return MarabouAnswer(
            Verdict.UNKNOWN, None, open_margins, "bounds overflow float64", nothing
        )
    query = _Query.build(network, box, hidden)
    answers: dict[int, _RegionAnswer] = {}
    for index in np.argsort([question.lower.max() for question in questions]):
        answer = _decide_region(network, box, query, questions[index], deadline)
        answers[int(index)] = answer
        if answer.verdict is Verdict.FALSIFIED:
            break
    return _summary(answers, len(regions), network.num_inputs)


@dataclass(frozen=True, eq=False)
class _Question:
    """May every row of `region`, between `lower` and `upper` up to `error`, be zero or less?"""

    region: UnsafeRegion
    lower: FloatArray
    upper: FloatArray
    error: FloatArray

    @classmethod
    def of(
        cls, network: ReluNetwork, box: Box, region: UnsafeRegion, hidden: list[Bounds]
    ) -> _Question:
        rows, depth = region.rows, len(network.layers) - 1
        both = linear_lower_bounds(network, depth, np.vstack([rows, -rows]), hidden, box)[0]
        error = evaluation_error(network, rows, hidden, box)[0]
        # the offset is one more sum
        error = error + UNIT_ROUNDOFF * 4 * (np.abs(both).max(initial=0) + np.abs(region.offsets))
        lower, upper = both[: len(rows)] + region.offsets, -both[len(rows) :] + region.offsets
        return cls(region, lower, upper, error)

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite([self.lower, self.upper, self.error]).all())

    @property
    def span(self) -> FloatArray:
        return self.upper - self.lower

    @property
    def varying(self) -> BoolArray:
        """Rows that vary over the box by more than rounding: others must not be scaled."""
        least = np.maximum(QUERY_MARGIN * self.span, 4 * self.error)
        return least < 0.1 * self.span

    def __getitem__(self, rows: BoolArray) -> _Question:
        region = UnsafeRegion(self.region.box, self.region.rows[rows], self.region.offsets[rows])
        return _Question(region, self.lower[rows], self.upper[rows], self.error[rows])


@dataclass(frozen=True, eq=False)
class _RegionAnswer:
    """One region: a verdict, the margin proved, and the solver's point if it gave one."""

    verdict: Verdict
    reason: str
    margin: float | None
    candidate: FloatArray | None


def _decide_region(
    network: ReluNetwork, box: Box, query: _Query, question: _Question, deadline: float
) -> _RegionAnswer:
    """A row that is constant up to rounding excludes the region or is not asked.

    Without it there are more points, so that `unsat` says as much; points are replayed on all rows.
    """
    constant = float(question.lower[~question.varying].max(initial=-np.inf))
    if constant > 0:
        return _RegionAnswer(Verdict.ROBUST, "", constant, None)
    asked = question[question.varying]
    if len(asked.lower) == 0:
        return _replayed(network, box, question, (box.lower[0] + box.upper[0]) / 2)
    limits = np.maximum(QUERY_MARGIN * asked.span, 4 * asked.error)
    code, inputs = _ask(query, asked, limits, deadline)
    if code == "sat":
        answer = _replayed(network, box, question, inputs)
        if answer.verdict is not Verdict.FALSIFIED:
            code, inputs = _ask(query, asked, -limits, deadline)
            answer = _replayed(network, box, question, inputs) if code == "sat" else answer
        return answer
    verdict, reason = WITHOUT_PROOF.get(code, (Verdict.ERROR, f"solver answered {code}"))
    return _RegionAnswer(verdict, reason, None, None)


WITHOUT_PROOF = {
    "unsat": (Verdict.UNKNOWN, WITNESSED_ONLY),
    "TIMEOUT": (Verdict.TIMEOUT, "solver time limit"),
    "UNKNOWN": (Verdict.UNKNOWN, "solver answered UNKNOWN"),
}


def _ask(
    query: _Query, question: _Question, limits: FloatArray, deadline: float
) -> tuple[str, FloatArray]:
    """Marabou's code on `rows @ outputs + offsets <= limits`, and its point."""
    seconds = deadline - time.monotonic()
    return (
        query.ask_at_most(question, limits, seconds) if seconds > 0 else ("TIMEOUT", query.center)
    )


def _replayed(
    network: ReluNetwork, box: Box, question: _Question, inputs: FloatArray
) -> _RegionAnswer:
    """`falsified` if the polished point is strictly inside the region, beyond rounding.

    Solver points often sit exactly on the boundary; a few steps further they are strict.
    """
    points, _ = descend(network, box, question.region, inputs[None], num_steps=POLISH_STEPS)
    values = (network(points) @ question.region.rows.T)[0] + question.region.offsets
    if (values < -question.error).all():
        return _RegionAnswer(Verdict.FALSIFIED, "", None, points[0])
    return _RegionAnswer(Verdict.UNKNOWN, NEAR_BOUNDARY, None, points[0])


def _summary(answers: dict[int, _RegionAnswer], num_regions: int, num_inputs: int) -> MarabouAnswer:
    """One answer for the box; the newest candidate comes first."""
    points = [a.candidate for a in reversed(answers.values()) if a.candidate is not None]
    candidates = np.array(points).reshape(-1, num_inputs)
    margins = np.full(num_regions, -np.inf)
    for place, answer in answers.items():
        margins[place] = -np.inf if answer.margin is None else answer.margin
    verdict = combine(answer.verdict for answer in answers.values())
    if verdict is Verdict.ROBUST:
        return MarabouAnswer(verdict, None, margins, "", candidates)
    # of the unknown ones, one that Marabou did not even witness comes first
    alike = [(r, a) for r, a in answers.items() if a.verdict is verdict]
    region, answer = min(alike, key=lambda pair: pair[1].reason == WITNESSED_ONLY)
    return MarabouAnswer(verdict, region, margins, answer.reason, candidates)


class _Query(Encoding):
    """The encoding, and how Marabou is asked about it."""

    def ask_at_most(
        self, question: _Question, limits: FloatArray, timeout_seconds: float
    ) -> tuple[str, FloatArray]:
        """Is there an input with `rows @ outputs + offsets <= limits`?

        Returns Marabou's code or what it raised, and for `sat` the inputs, shape (inputs,), inside
        the box.
        """
        from maraboupy import MarabouCore

        query, options = self._query(question, limits), MarabouCore.Options()
        options._verbosity = 0
        options._timeoutInSeconds = max(1, int(timeout_seconds))
        try:
            code, values, _ = MarabouCore.solve(query, options, "")
        except Exception as error:  # of C++: IndexError, RuntimeError, and what it throws next
            return f"with {type(error).__name__}: {error}", self.center
        if code != "sat":
            return code, self.center
        point = self.center.copy()
        units = np.array([values[variable] for variable in range(len(self.free_inputs))])
        point[self.free_inputs] += self.radius[self.free_inputs] * np.clip(units, -1, 1)
        return code, point

    def _query(self, question: _Question, limits: FloatArray) -> Any:
        """The encoding as Marabou's query, with a variable for each row, in units of its span.

        Its lower bound lies at least one unit below the limit, since Marabou answers `sat` to
        contradictory bounds.
        """
        from maraboupy import MarabouCore

        region, spans = question.region, question.span
        first, rows = len(self.lower), len(region.rows)
        query = MarabouCore.InputQuery()
        query.setNumberOfVariables(first + rows)
        least = np.minimum(question.lower / spans, limits / spans - 1)
        for variable, bound in enumerate([*self.lower, *least.tolist()]):
            query.setLowerBound(variable, bound)
        for variable, bound in enumerate([*self.upper, *(limits / spans).tolist()]):
            query.setUpperBound(variable, bound)
        for index, variable in enumerate([*range(len(self.free_inputs)), *self.slacks]):
            query.markInputVariable(variable, index)
        answers = [
            (
                region.rows[row] @ self.coefficients / spans[row],
                -float(region.rows[row] @ self.constants + region.offsets[row]) / spans[row],
                first + row,
            )
            for row in range(rows)
        ]
        for coefficients, constant, variable in [*self.equations, *answers]:
            equation = MarabouCore.Equation()
            for column in np.flatnonzero(coefficients):
                equation.addAddend(float(coefficients[column]), int(column))
            equation.addAddend(-1.0, variable)
            equation.setScalar(constant)
            query.addEquation(equation)
        for before, after in self.relus:
            MarabouCore.addReluConstraint(query, before, after)
        return query
