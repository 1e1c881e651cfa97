"""Balls around sampled points: what is asked of each, who solves it, and the record of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.core.arrays import Images, IntArray
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.agreement import MOST_BOXES
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import Box, Property, adversary_classes, margins
from tasks.core.search import ladder
from tasks.core.search.answer import Answer, Known
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Engine, Verdict, VerificationResult
from tasks.core.verification.replay import replayed


@dataclass(frozen=True, eq=False)
class Ball:
    """One ball around a point of the sample, with what is known of its margins already.

    `row` is the point's place in the sample, `sample_index` the one in the test set. Regions of
    `known` are in `adversary_classes` order.
    """

    row: int
    sample_index: int
    image: Images
    label: int
    epsilon: float
    known: Known | None = None

    @property
    def box(self) -> Box:
        """Its inputs: a batch of one."""
        return Box.around(self.image[None], self.epsilon)

    def robustness(self, num_classes: int) -> Property:
        """That its label wins over all of it."""
        return Property.robustness(self.box, self.label, num_classes)

    def result(
        self, verdict: Verdict, decided_by: DecidedBy, seconds: float, **found: Any
    ) -> VerificationResult:
        """Its record; `found` are the fields that the verdict's branch knows of."""
        return VerificationResult(
            self.sample_index, self.label, self.epsilon, verdict, decided_by, seconds, **found
        )


@dataclass(frozen=True, eq=False)
class Sample:
    """The points to verify: their places in the test set, images and labels."""

    indices: IntArray
    images: Images
    labels: IntArray

    def balls(self, epsilons: Sequence[float]) -> list[Ball]:
        """All balls of these radii, point after point."""
        points = zip(self.indices.tolist(), self.images, self.labels.tolist(), strict=True)
        return [
            Ball(row, index, image, label, epsilon)
            for row, (index, image, label) in enumerate(points)
            for epsilon in epsilons
        ]

    def first_boxes(self, epsilon: float) -> Box:
        """The few at which a model is held against itself."""
        return Box.around(self.images[:MOST_BOXES], epsilon)


@dataclass(frozen=True, eq=False)
class LadderSolver:
    """What a solver process holds: the network, sent once, and how a ball is decided."""

    network: ReluNetwork
    engine: Engine
    timeout_seconds: float
    seed: int
    prove_again: bool = True  # what Marabou merely witnesses

    def __post_init__(self) -> None:
        ladder.warm_up()

    def __call__(self, ball: Ball) -> Answer:
        return ladder.decide(
            self.network,
            ball.robustness(self.network.num_outputs),
            engine=self.engine,
            timeout_seconds=self.timeout_seconds,
            seed=self.seed,
            known=ball.known,
            prove_again=self.prove_again,
        )


def answered(
    runtime: Runtime, num_classes: int, ball: Ball, answer: Answer, seconds: float
) -> VerificationResult:
    """The record of an answer: `falsified` by the first candidate that `runtime` mislabels alone.

    Where `falsified` was said and none is mislabelled, the verdict is `unknown`: near the boundary.
    """
    for candidate in answer.candidates:
        point, logits = replayed(runtime, ball.box, candidate)
        predicted = int(logits.argmax())
        if predicted != ball.label:
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
        target = int(adversary_classes([ball.label], num_classes)[0][answer.region])
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
