"""Exact verification with Marabou 2.0.0, asked in an encoding that makes its `unsat` trustworthy.

Marabou (Wu et al. 2024, "Marabou 2.0: A Versatile Formal Analyzer of Neural Networks") fixes every
variable whose bounds are within 1e-5 of each other, and so calls queries `unsat` that have a
counterexample when weights, radii or neurons are small. Three things prevent that here:

1. Every variable is scaled: inputs are x = c + r·u with u in [-1, 1], a neuron with bounds
   [l, h] becomes z / (h - l), so that no range is tiny. ReLU is positively homogeneous, so
   relu(z) / s = relu(z / s).
2. Neurons that cannot be positive are dropped and neurons that cannot be negative are linear. One
   that is barely unstable (|l| or h below `BARELY_UNSTABLE` of its range) would itself have a tiny
   range on one side: it is replaced by a free variable that over-approximates it.
3. The question has a margin: is there a point with true logit - other <= `QUERY_MARGIN` of that
   margin's range over the ball? `unsat` then holds in spite of Marabou's tolerances; `sat` is only
   a candidate, to be replayed on the network. When its replay stops short of the boundary, the
   question is asked once more with the margin on the other side, for a point clearly beyond.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.core.bounds import (
    Bounds,
    evaluation_error,
    linear_lower_bounds,
    preactivation_bounds,
)
from tasks.core.network import ReluNetwork
from tasks.core.specification import FloatArray, LinfBall, adversary_classes, margin_rows
from tasks.core.verdicts import Verdict, combine

QUERY_MARGIN = 1e-3  # of the margin's range; a hundred times Marabou's bound tolerance
BARELY_UNSTABLE = 1e-3  # of a neuron's range; a hundred times Marabou's bound tolerance
POLISH_STEPS = 50
NEAR_BOUNDARY = "near_boundary"


@dataclass(frozen=True, eq=False)
class BallAnswer:
    """What Marabou says of one ball.

    Attributes:
        verdict: `falsified` only when a point of the ball has a negative margin in float64.
        target: the class of the counterexample or the first class that stayed open.
        margin: with `robust`, the margin that was proved, at least.
        candidates: points, shape (n, inputs), to be replayed on the deployed model, best first.
    """

    verdict: Verdict
    target: int | None
    margin: float | None
    reason: str
    candidates: FloatArray


def decide(
    network: ReluNetwork,
    ball: LinfBall,
    label: int,
    *,
    timeout_seconds: float,
    proved: NDArray[np.bool_] | None = None,
) -> BallAnswer:
    """Whether `label` wins strictly over the whole `ball` (one box): sound; complete but for time.

    One query per adversary class, most threatening (lowest bound on the margin) first; the first
    strict counterexample ends it. Classes marked in `proved` (`adversary_classes` order) are not
    asked again.
    """
    deadline = time.monotonic() + timeout_seconds
    hidden = preactivation_bounds(network, ball, "crown")
    rows = margin_rows([label], network.num_outputs)
    depth = len(network.layers) - 1
    lower = linear_lower_bounds(network, depth, rows, hidden, ball)[0]
    upper = -linear_lower_bounds(network, depth, -rows, hidden, ball)[0]
    error = evaluation_error(network, rows[0], hidden, ball)[0]
    targets = adversary_classes([label], network.num_outputs)[0]
    skip = np.zeros(len(targets), dtype=bool) if proved is None else proved

    if not np.isfinite([lower, upper, error]).all():
        nothing = np.empty((0, network.num_inputs))
        return BallAnswer(Verdict.UNKNOWN, None, None, "bounds overflow float64", nothing)
    query = _Query.build(network, ball, hidden)
    known = [_ClassAnswer(Verdict.ROBUST, "", float(bound), None) for bound in lower[skip]]
    answers: dict[int, _ClassAnswer] = {}
    for index in (index for index in np.argsort(lower) if not skip[index]):
        question = _Question(
            rows[0, index], float(lower[index]), float(upper[index]), float(error[index])
        )
        answer = _decide_class(network, ball, query, question, deadline)
        answers[int(targets[index])] = answer
        if answer.verdict is Verdict.FALSIFIED:
            break
    return _summary(answers, known, network.num_inputs)


@dataclass(frozen=True, eq=False)
class _Question:
    """May `row @ logits`, which lies in [lower, upper] up to `error`, be zero or less?"""

    row: FloatArray
    lower: float
    upper: float
    error: float


@dataclass(frozen=True, eq=False)
class _ClassAnswer:
    """One adversary class: a verdict, the margin proved, and the solver's point if it gave one."""

    verdict: Verdict
    reason: str
    margin: float | None
    candidate: FloatArray | None


def _decide_class(
    network: ReluNetwork, ball: LinfBall, query: _Query, question: _Question, deadline: float
) -> _ClassAnswer:
    span = question.upper - question.lower
    threshold = max(QUERY_MARGIN * span, 4 * question.error)
    if threshold >= 0.1 * span:  # the margin is constant up to rounding: nothing to search
        if question.lower > 0:
            return _ClassAnswer(Verdict.ROBUST, "", question.lower, None)
        return _replayed(network, ball, question, (ball.lower[0] + ball.upper[0]) / 2)
    answer = _ask(network, ball, query, question, threshold, deadline)
    if answer.reason != NEAR_BOUNDARY:
        return answer
    beyond = _ask(network, ball, query, question, -threshold, deadline)
    return answer if beyond.verdict is Verdict.ROBUST else beyond


def _ask(
    network: ReluNetwork,
    ball: LinfBall,
    query: _Query,
    question: _Question,
    limit: float,
    deadline: float,
) -> _ClassAnswer:
    """Marabou on `row @ logits <= limit`: `robust` when it says that no point is there."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        return _ClassAnswer(Verdict.TIMEOUT, "no time left for this class", None, None)
    span = question.upper - question.lower
    code, inputs = query.ask_at_most(question.row, limit, question.lower, span, seconds)
    match code:
        case "sat":
            return _replayed(network, ball, question, inputs)
        case "unsat":  # half of the limit is left to the solver's tolerances
            return _ClassAnswer(Verdict.ROBUST, "", limit / 2, None)
        case "TIMEOUT":
            return _ClassAnswer(Verdict.TIMEOUT, "solver time limit", None, None)
        case "UNKNOWN":
            return _ClassAnswer(Verdict.UNKNOWN, "solver answered UNKNOWN", None, None)
    return _ClassAnswer(Verdict.ERROR, f"solver answered {code}", None, None)


def _replayed(
    network: ReluNetwork, ball: LinfBall, question: _Question, inputs: FloatArray
) -> _ClassAnswer:
    """`falsified` if the polished point is strictly on the other side, beyond rounding."""
    point = polish(network, ball, question.row, inputs)
    if float(question.row @ network(point[None])[0]) < -question.error:
        return _ClassAnswer(Verdict.FALSIFIED, "", None, point)
    return _ClassAnswer(Verdict.UNKNOWN, NEAR_BOUNDARY, None, point)


def _summary(
    asked: dict[int, _ClassAnswer], proved: list[_ClassAnswer], num_inputs: int
) -> BallAnswer:
    """One answer for the ball; the newest candidate comes first."""
    answers = [*proved, *asked.values()]
    points = [a.candidate for a in reversed(answers) if a.candidate is not None]
    candidates = np.array(points).reshape(-1, num_inputs)
    verdict = combine(answer.verdict for answer in answers)
    if verdict is Verdict.ROBUST:
        margin = min(answer.margin for answer in answers if answer.margin is not None)
        return BallAnswer(verdict, None, margin, "", candidates)
    target, answer = next((t, a) for t, a in asked.items() if a.verdict is verdict)
    return BallAnswer(verdict, target, None, answer.reason, candidates)


def polish(network: ReluNetwork, ball: LinfBall, row: FloatArray, start: FloatArray) -> FloatArray:
    """The point of least `row @ logits` that sign-gradient descent from `start` finds in the ball.

    Solver points often sit exactly on the decision boundary; a few steps further they are strict.
    """
    lower, upper = ball.lower[0], ball.upper[0]
    step = (upper - lower) / 4
    best = point = np.clip(start, lower, upper)
    best_value = float(row @ network(best[None])[0])
    for _ in range(POLISH_STEPS):
        gradient = network.gradient(point[None], row[None])[0]
        point = np.clip(point - step * np.sign(gradient), lower, upper)
        value = float(row @ network(point[None])[0])
        if value < best_value:
            best, best_value = point, value
        else:
            point, step = best, step / 2
    return best


@dataclass
class _Query:
    """A query in Marabou's variables, and the activations as affine functions of them.

    `coefficients` (units, variables) and `constants` (units,) describe the layer reached so far.
    """

    coefficients: FloatArray
    constants: FloatArray
    lower: list[float]
    upper: list[float]
    center: FloatArray
    radius: FloatArray
    free_inputs: NDArray[np.intp]
    equations: list[tuple[FloatArray, float, int]] = field(default_factory=list)
    relus: list[tuple[int, int]] = field(default_factory=list)
    slacks: list[int] = field(default_factory=list)  # marked as inputs, else Marabou fails

    @classmethod
    def build(cls, network: ReluNetwork, ball: LinfBall, hidden: list[Bounds]) -> _Query:
        center = (ball.lower[0] + ball.upper[0]) / 2
        radius = (ball.upper[0] - ball.lower[0]) / 2
        free = np.flatnonzero(radius > 0)
        first = network.layers[0]
        query = cls(
            coefficients=first.weight[:, free] * radius[free],
            constants=first(center[None])[0],
            lower=[-1.0] * len(free),
            upper=[1.0] * len(free),
            center=center,
            radius=radius,
            free_inputs=free,
        )
        for layer, bounds in zip(network.layers[1:], hidden, strict=True):
            query._apply_relu(bounds.lower[0], bounds.upper[0])
            query.constants = layer.weight @ query.constants + layer.bias
            query.coefficients = layer.weight @ query.coefficients
        return query

    def _apply_relu(self, lower: FloatArray, upper: FloatArray) -> None:
        """Replaces pre-activations by their ReLUs, exactly but for barely unstable units."""
        span = upper - lower
        dead = upper <= 0
        barely_positive = ~dead & (lower < 0) & (upper < BARELY_UNSTABLE * span)
        barely_negative = (lower < 0) & (upper > 0) & (-lower < BARELY_UNSTABLE * span)
        exact = (lower < 0) & (upper > 0) & ~barely_positive & ~barely_negative
        self._add_exact_relus(np.flatnonzero(exact), lower, upper)
        constant = dead | barely_positive
        self.coefficients[constant] = 0
        self.constants[constant] = 0
        for unit in np.flatnonzero(barely_positive):  # relu(z) in [0, h]
            self._add_slack(int(unit), upper[unit])
        for unit in np.flatnonzero(barely_negative):  # relu(z) - z in [0, -l]
            self._add_slack(int(unit), -lower[unit])

    def _add_exact_relus(
        self, units: NDArray[np.intp], lower: FloatArray, upper: FloatArray
    ) -> None:
        for unit in units:
            scale = upper[unit] - lower[unit]
            before = self._new_variable(lower[unit] / scale, upper[unit] / scale)
            after = self._new_variable(0.0, upper[unit] / scale)
            row = self.coefficients[unit] / scale
            self.equations.append((row.copy(), -self.constants[unit] / scale, before))
            self.relus.append((before, after))
        self._widen()
        for unit, (_, after) in zip(units, self.relus[len(self.relus) - len(units) :], strict=True):
            self.coefficients[unit] = 0
            self.constants[unit] = 0
            self.coefficients[unit, after] = upper[unit] - lower[unit]

    def _add_slack(self, unit: int, size: float) -> None:
        variable = self._new_variable(0.0, 1.0)
        self.slacks.append(variable)
        self._widen()
        self.coefficients[unit, variable] = size

    def _new_variable(self, lower: float, upper: float) -> int:
        self.lower.append(float(lower))
        self.upper.append(float(upper))
        return len(self.lower) - 1

    def _widen(self) -> None:
        missing = len(self.lower) - self.coefficients.shape[1]
        self.coefficients = np.pad(self.coefficients, ((0, 0), (0, missing)))

    def ask_at_most(
        self, row: FloatArray, threshold: float, lower: float, span: float, timeout_seconds: float
    ) -> tuple[str, FloatArray]:
        """Is there an input with `row @ logits <= threshold`, asked in units of `span`?

        Returns Marabou's code, and for `sat` the inputs, shape (inputs,), inside the ball. The
        lower bound on the answer lies at least one unit below the threshold, since Marabou answers
        `sat` to contradictory bounds.
        """
        from maraboupy import MarabouCore

        limit = threshold / span
        answer = len(self.lower)
        query = MarabouCore.InputQuery()
        query.setNumberOfVariables(answer + 1)
        for variable, bound in enumerate([*self.lower, min(lower / span, limit - 1)]):
            query.setLowerBound(variable, bound)
        for variable, bound in enumerate([*self.upper, limit]):
            query.setUpperBound(variable, bound)
        for index, variable in enumerate([*range(len(self.free_inputs)), *self.slacks]):
            query.markInputVariable(variable, index)
        question = (row @ self.coefficients / span, -float(row @ self.constants) / span, answer)
        for coefficients, constant, variable in [*self.equations, question]:
            equation = MarabouCore.Equation()
            for column in np.flatnonzero(coefficients):
                equation.addAddend(float(coefficients[column]), int(column))
            equation.addAddend(-1.0, variable)
            equation.setScalar(constant)
            query.addEquation(equation)
        for before, after in self.relus:
            MarabouCore.addReluConstraint(query, before, after)
        options = MarabouCore.Options()
        options._verbosity = 0
        options._timeoutInSeconds = max(1, int(timeout_seconds))
        code, values, _ = MarabouCore.solve(query, options, "")
        if code != "sat":
            return code, self.center
        point = self.center.copy()
        units = np.array([values[variable] for variable in range(len(self.free_inputs))])
        point[self.free_inputs] += self.radius[self.free_inputs] * np.clip(units, -1, 1)
        return code, point
