"""The record of a ball, by where its answer comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.core.data.datasets import Dataset
from tasks.core.execution.verdict_store import VerdictKey
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.runtimes import Classifier, NumpyRuntime
from tasks.core.search.answer import Answer, Known
from tasks.core.search.first_stages import AttackStrength
from tasks.core.verdicts import DecidedBy, Verdict
from tasks.core.verification.balls import Ball, Sample, answered, unanswered
from tasks.core.verification.local_robustness import LocalRobustness
from tests.networks import hand_computed, pixels

BALL = Ball(3, 7, np.array([0.25, 0.75], dtype=np.float32), 0, 0.125)
PIXELS = pixels(BALL.center[None])


def test_balls_are_those_of_every_point_and_radius() -> None:
    images = np.array([[0.25, 0.75], [0.0, 0.5]], dtype=np.float32)
    sample = Sample(np.array([7, 4]), images, np.array([0, 1]), pixels(images))
    found = [
        (ball.row, ball.sample_index, ball.label, ball.epsilon) for ball in sample.balls([0.1, 0.2])
    ]
    assert found == [(0, 7, 0, 0.1), (0, 7, 0, 0.2), (1, 4, 1, 0.1), (1, 4, 1, 0.2)]
    np.testing.assert_array_equal(BALL.boxes(sample.perturbation).lower, [[0.125, 0.625]])


def test_a_candidate_is_moved_into_the_ball_and_judged_there(
    classifier: Classifier, digits: Dataset
) -> None:
    image, label = digits.test_inputs[0], int(digits.test_labels[0])
    outside = Answer(Verdict.FALSIFIED, DecidedBy.ATTACK, np.full((1, 64), 9.0))
    verdicts = set()
    for ball in (Ball(0, 0, image, label, 0.05), Ball(0, 0, image, label, 1.0)):
        result = answered(classifier, digits.perturbation, 10, ball, outside, 0.0)
        verdicts.add(result.verdict)
        if result.verdict is Verdict.FALSIFIED:
            assert result.counterexample is not None
            assert result.margin is not None
            assert ball.boxes(digits.perturbation).contains(result.counterexample[None])[0]
            assert result.margin < 0
            assert result.target != label
        else:
            assert result.reason == "near_boundary"
    assert verdicts == {Verdict.FALSIFIED, Verdict.UNKNOWN}


def test_the_first_candidate_that_flips_is_the_counterexample() -> None:
    """Of relu(x1 + x2) + 1 and relu(x1 - x2): the second is never greater in [0, 1] x [0, 1]."""
    runtime = NumpyRuntime(hand_computed())
    candidates = np.array([[0.25, 0.75], [0.3, 0.7]])
    answer = Answer(Verdict.UNKNOWN, DecidedBy.CROWN, candidates, region=0, reason="too loose")
    result = answered(runtime, PIXELS, 2, BALL, answer, 0.5)
    assert (result.verdict, result.reason, result.target) == (Verdict.UNKNOWN, "too loose", 1)
    wrong = Ball(3, 7, BALL.center, 1, BALL.epsilon)
    result = answered(runtime, PIXELS, 2, wrong, answer, 0.5)
    assert (result.verdict, result.decided_by, result.target) == (
        Verdict.FALSIFIED,
        DecidedBy.CROWN,
        0,
    )
    np.testing.assert_array_equal(result.counterexample, BALL.center)


@pytest.mark.parametrize(
    ("ending", "verdict"), [(Ending.TIMEOUT, Verdict.TIMEOUT), (Ending.FAILED, Verdict.ERROR)]
)
def test_a_ball_without_an_answer_keeps_what_batches_took(ending: Ending, verdict: Verdict) -> None:
    known = Known(np.zeros(1), stage_seconds={"crown": 0.25})
    ball = Ball(3, 7, BALL.center, 0, 0.125, known)
    result = unanswered(Outcome(ball, ending, None, "why", 1.0, "alpha_crown"), 1.25)
    assert (result.verdict, result.decided_by) == (verdict, DecidedBy.CROWN)
    assert (result.reason, result.seconds) == ("why", 1.25)
    assert result.stage_seconds == {"crown": 0.25}


def test_the_key_holds_all_that_a_verdict_depends_on() -> None:
    network = hand_computed()

    def key(ball: Ball = BALL, **changes: Any) -> VerdictKey:
        settings: dict[str, Any] = {
            "engine": "marabou",
            "timeout_seconds": 5.0,
            "attack": AttackStrength(5, 1, 0),
        }
        return LocalRobustness(NumpyRuntime(network), network, PIXELS, **(settings | changes)).key(
            ball
        )

    others = [
        key(replace(BALL, epsilon=0.25)),
        key(replace(BALL, center=np.array([0.25, 0.5], dtype=np.float32))),
        key(replace(BALL, label=1)),
        key(engine="ladder"),
        key(timeout_seconds=6.0),
        key(attack=AttackStrength(6, 1, 0)),
        key(attack=AttackStrength(5, 2, 0)),
        key(attack=AttackStrength(5, 1, 1)),
        key(prove_again=False),
    ]
    assert len({key(), *others}) == 1 + len(others)
    assert key(replace(BALL, row=4, sample_index=9)) == key()
