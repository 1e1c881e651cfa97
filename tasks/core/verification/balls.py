"""Balls around sampled points: what is asked of each, who solves it, and the record of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.core.arrays import Inputs, IntArray
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.agreement import MOST_BOXES
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.perturbation import Perturbation
from tasks.core.properties.specification import Property, adversary_classes, margins
from tasks.core.search import ladder
from tasks.core.search.answer import Answer, Known
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Engine, Verdict, VerificationResult
from tasks.core.verification.replay import replayed


@dataclass(frozen=True, eq=False)
class Ball:
    """One ball around a point of the sample, with what is known of its margins already.

    `row` is the point's place in the sample, `sample_index` the one in the test set. Regions of
    `known` are those of `robustness`.
    """

    row: int
    sample_index: int
    center: Inputs
    label: int
    epsilon: float
    known: Known | None = None

    def boxes(self, perturbation: Perturbation) -> Box:
        """Its inputs: a box for each choice of categories, of images one."""
        return perturbation.boxes(self.center[None], self.epsilon)[0]

    def robustness(self, perturbation: Perturbation, num_classes: int) -> Property:
        """That its label wins over all of it."""
        boxes = self.boxes(perturbation)
        return Property.robustness(boxes, self.label, num_classes, perturbation.domain)

    def result(
        self, verdict: Verdict, decided_by: DecidedBy, seconds: float, **found: Any
    ) -> VerificationResult:
        """Its record; `found` are the fields that the verdict's branch knows of."""
        return VerificationResult(
            self.sample_index, self.label, self.epsilon, verdict, decided_by, seconds, **found
        )


@dataclass(frozen=True, eq=False)
class Sample:
    """The points to verify: places in the test set, inputs, labels, and what can be done to them.

    `inputs` have the model's shape, and the perturbation treats them flat.
    """

    indices: IntArray
    inputs: Inputs
    labels: IntArray
    perturbation: Perturbation

    def balls(self, epsilons: Sequence[float]) -> list[Ball]:
        """All balls of these radii, point after point."""
        points = zip(self.indices.tolist(), self.inputs, self.labels.tolist(), strict=True)
        return [
            Ball(row, index, center, label, epsilon)
            for row, (index, center, label) in enumerate(points)
            for epsilon in epsilons
        ]

    def first_boxes(self, epsilon: float) -> Box:
        """The few at which a model is held against itself."""
        return self.perturbation.box(self.inputs[:MOST_BOXES], epsilon)


@dataclass(frozen=True, eq=False)
class LadderSolver:
    """What a solver process holds, sent once: the network, and how a ball is decided."""

    network: ReluNetwork
    perturbation: Perturbation
    engine: Engine
    timeout_seconds: float
    seed: int
    prove_again: bool = True  # what Marabou merely witnesses

    def __post_init__(self) -> None:
        ladder.warm_up()

    def __call__(self, ball: Ball) -> Answer:
        return ladder.decide(
            self.network,
            ball.robustness(self.perturbation, self.network.num_outputs),
            engine=self.engine,
            timeout_seconds=self.timeout_seconds,
            seed=self.seed,
            known=ball.known,
            prove_again=self.prove_again,
        )


def answered(
    runtime: Runtime,
    perturbation: Perturbation,
    num_classes: int,
    ball: Ball,
    answer: Answer,
    seconds: float,
) -> VerificationResult:
    """The record of an answer: `falsified` by the first candidate that `runtime` mislabels alone.

    A candidate is valid data, or the ball's center itself. Where `falsified` was said and none is
    mislabelled, the verdict is `unknown`: near the boundary.
    """
    boxes, domain = ball.boxes(perturbation), perturbation.domain
    for candidate in answer.candidates:
        point, logits = replayed(runtime, boxes, domain.nearest(candidate[None])[0])
        predicted = int(logits.argmax())
        is_there = answer.decided_by is DecidedBy.CLEAN or domain.contains(point[None])[0]
        if predicted != ball.label and is_there:
            return ball.result(
                Verdict.FALSIFIED,
                answer.decided_by,
                seconds,
                target=predicted,
                margin=float(margins(logits[None].astype(np.float64), [ball.label]).min()),
                stage_seconds=answer.stage_seconds,
                counterexample=point,
            )
    is_near = answer.verdict is Verdict.FALSIFIED
    target = None
    if answer.region is not None:
        others = adversary_classes([ball.label], num_classes)[0]
        target = int(others[answer.region % len(others)])
    return ball.result(
        Verdict.UNKNOWN if is_near else answer.verdict,
        answer.decided_by,
        seconds,
        target=target,
        margin=answer.margin,
        reason=NEAR_BOUNDARY if is_near else answer.reason,
        stage_seconds=answer.stage_seconds,
        deployed=answer.deployed,
        witness=answer.witness,
    )


def unanswered(outcome: Outcome[Ball, Answer], seconds: float) -> VerificationResult:
    """The record of a ball whose process had to be ended, or died, in the stage it told last."""
    is_late = outcome.ending is Ending.TIMEOUT
    return outcome.job.result(
        Verdict.TIMEOUT if is_late else Verdict.ERROR,
        DecidedBy.in_stage(outcome.stage) or DecidedBy.CLEAN,
        seconds,
        reason=outcome.reason,
        stage_seconds={} if outcome.job.known is None else outcome.job.known.stage_seconds,
    )
