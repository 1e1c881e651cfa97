"""Every ball around a point at many radii, of which few are asked about: the others follow.

A greater ball holds the smaller ones, box for box. So a point that is falsified at one radius is
falsified at all greater ones, by the same counterexample, and a proof at one radius proves all
smaller ones: its margin is a lower bound there too, and so is what float32 may do to it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby

import numpy as np

from tasks.core.errors import ContradictionError
from tasks.core.execution.asking import Again, First, Question, Resources, answers
from tasks.core.execution.verdict_store import VerdictStore
from tasks.core.search.answer import Answer
from tasks.core.verdicts import Verdict, VerificationResult, check_no_contradiction
from tasks.core.verification.balls import Ball, Sample

BATCH = 1000  # boxes that are compared at a time
Place = tuple[int, float]  # row in the sample, and radius


def nested_answers(
    question: Question[Ball, Answer, VerificationResult],
    sample: Sample,
    proved: Sequence[tuple[Ball, VerificationResult]],
    waiting: Sequence[Ball],
    resources: Resources,
    *,
    store: VerdictStore | None = None,
    fresh: bool = False,
    first: First[Ball, VerificationResult] | None = None,
) -> Generator[tuple[Ball, VerificationResult], None, None]:
    """Each ball that waits with its result, as it comes or follows, also from what is `proved`.

    Between what is proved and what is broken of a point, `first` is asked about the middle radius,
    and again on both sides of what it leaves open. Then a solver is, about the greatest radius that
    is open: attacks are seldom far from the truth, so that it mostly finds a proof, which settles
    the others; where it does not, about the middle of what is left. A result that follows says
    from which radius in `reason`, names the stage that decided there, and took no time. From a
    proof that is not `deployed` nothing follows: in a smaller ball one may be.

    Raises:
        ContradictionError: a ball is proved although a smaller one is broken, or balls of two radii
            are not one within the other.
    """
    nested = _Nested(waiting)
    _check_nested(
        sample, sorted({ball.epsilon for ball in waiting} | {ball.epsilon for ball, _ in proved})
    )
    open_balls: dict[Place, Ball] = {}  # with what `first` knows of them

    def left_open_aside(asked: Sequence[Ball]) -> Iterator[tuple[Ball, VerificationResult]]:
        for ball, found in first(asked) if first is not None else ():
            if isinstance(found, Again):
                open_balls[_place(ball)] = found.job
            else:
                yield ball, found

    def taken(
        asked: Sequence[Ball], look: First[Ball, VerificationResult] | None
    ) -> Iterator[tuple[Ball, VerificationResult]]:
        with closing(
            answers(question, asked, resources, store=store, fresh=fresh, first=look)
        ) as found:
            for ball, result in found:
                yield from nested.take(ball, result)

    for ball, result in proved:
        yield from nested.take(ball, result)
    while first is not None and (asked := nested.asked(_middle, open_balls)):
        yield from taken(asked, left_open_aside)
    choice: Callable[[list[Ball]], Ball] = _greatest
    while asked := nested.asked(choice, ()):
        jobs = [open_balls.get(_place(ball), ball) for ball in asked]
        yield from taken(sorted(jobs, key=_ease), None)
        choice = _middle
    yield from nested.undecided
    check_no_contradiction(nested.found)


class _Nested:
    """What is decided of each point, and what is not.

    Attributes:
        left: by row and radius, the balls that nothing is decided of.
        not_decided: what a solver said of some of these.
        found: all that was found of a ball itself.
    """

    def __init__(self, balls: Sequence[Ball]) -> None:
        self.epsilons = sorted({ball.epsilon for ball in balls})
        self.left: dict[int, dict[float, Ball]] = {}
        for ball in balls:
            self.left.setdefault(ball.row, {})[ball.epsilon] = ball
        self.not_decided: dict[Place, VerificationResult] = {}
        self.found: list[VerificationResult] = []

    @property
    def undecided(self) -> list[tuple[Ball, VerificationResult]]:
        """What nothing was decided of, with what was said last."""
        return [
            (self.left[row][epsilon], result) for (row, epsilon), result in self.not_decided.items()
        ]

    def take(
        self, ball: Ball, result: VerificationResult
    ) -> Iterator[tuple[Ball, VerificationResult]]:
        """The result, unless it is known already, and those that follow from it."""
        self.found.append(result)
        left = self.left.get(ball.row, {})
        if result.verdict not in {Verdict.ROBUST, Verdict.FALSIFIED}:
            if ball.epsilon in left:
                self.not_decided[_place(ball)] = result
            return
        for epsilon in [each for each in left if each == ball.epsilon or _follows(result, each)]:
            self.not_decided.pop((ball.row, epsilon), None)
            told = result if epsilon == ball.epsilon else _following(result, epsilon)
            yield left.pop(epsilon), told

    def asked(self, choice: Callable[[list[Ball]], Ball], but: Container[Place]) -> list[Ball]:
        """One ball of each run of radii, point after point, that nothing is known of."""
        found = []
        for row, left in self.left.items():
            is_open = {
                epsilon: epsilon in left
                and (row, epsilon) not in but
                and (row, epsilon) not in self.not_decided
                for epsilon in self.epsilons
            }
            for with_balls, run in groupby(self.epsilons, key=is_open.__getitem__):
                if with_balls:
                    found.append(choice([left[epsilon] for epsilon in run]))
        return found


def _follows(result: VerificationResult, epsilon: float) -> bool:
    if result.verdict is Verdict.ROBUST:
        return bool(result.deployed) and epsilon < result.epsilon
    return epsilon > result.epsilon


def _following(result: VerificationResult, epsilon: float) -> VerificationResult:
    word = "proved" if result.verdict is Verdict.ROBUST else "broken"
    return replace(
        result,
        epsilon=epsilon,
        seconds=0.0,
        stage_seconds={},
        reason=f"{word} at {result.epsilon:g}",
        witness="",
        follows_from=result.epsilon,
    )


def _check_nested(sample: Sample, epsilons: Sequence[float]) -> None:
    """Raises `ContradictionError` where a ball is not within the next greater one, in float64."""
    perturbation = sample.perturbation
    most = max(1, BATCH // perturbation.most_alternatives)
    for start in range(0, len(sample.inputs), most):
        inputs = sample.inputs[start : start + most]
        boxes = [perturbation.boxes(inputs, epsilon) for epsilon in epsilons]
        for epsilon, (inner, owners), (outer, others) in zip(
            epsilons, boxes[:-1], boxes[1:], strict=False
        ):
            is_within = np.array_equal(owners, others) and bool(
                ((inner.lower >= outer.lower) & (inner.upper <= outer.upper)).all()
            )
            if not is_within:
                raise ContradictionError(
                    f"the ball at epsilon {epsilon:g} is not within the next greater one: this is "
                    "a defect of certiflow; please report it with the run's artifacts"
                )


def _place(ball: Ball) -> Place:
    return ball.row, ball.epsilon


def _middle(run: list[Ball]) -> Ball:
    return run[len(run) // 2]


def _greatest(run: list[Ball]) -> Ball:
    return run[-1]


def _ease(ball: Ball) -> float:
    """Least first, since the hardest should not come last."""
    return 0.0 if ball.known is None else float(ball.known.lower.min())
