"""Verdicts, how they combine, and the record of one point at one radius."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import ContradictionError


class Verdict(StrEnum):
    """What is known of a ball. Attacks only falsify, bounds and solvers only prove."""

    ROBUST = "robust"  # VNN-COMP unsat: every point of the ball keeps the label, strictly
    FALSIFIED = "falsified"  # VNN-COMP sat: a stored point of the ball gets another label
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    ERROR = "error"


VERDICT_COLUMNS = tuple(verdict.value for verdict in Verdict)  # wherever they are counted


class DecidedBy(StrEnum):
    """The stage that gave the verdict."""

    CLEAN = "clean"
    ATTACK = "attack"
    INTERVAL = "interval"
    CROWN = "crown"
    BRANCH_AND_BOUND = "branch_and_bound"
    MARABOU = "marabou"

    @classmethod
    def in_stage(cls, stage: str) -> DecidedBy | None:
        """The one that is answerable for what happens in a stage of the ladder; None outside."""
        return cls("crown" if stage == "alpha_crown" else stage) if stage else None


Engine = Literal["ladder", "bounds", "marabou"]

# Reasons of `unknown`.
NEAR_BOUNDARY = "near_boundary"  # a counterexample that the deployed model does not confirm
OUTSIDE_DOMAIN = "outside the domain"  # all points found to break it are no valid inputs
WITNESSED_ONLY = "witnessed by Marabou only"  # which computes with tolerances and proves nothing

CHECKED, NO_CERTIFICATE = "checked", "none"  # of a proof's certificate, where one was asked for

WEAKEST_FIRST = (
    Verdict.FALSIFIED,
    Verdict.ERROR,
    Verdict.TIMEOUT,
    Verdict.UNKNOWN,
    Verdict.ROBUST,
)


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict for a ball from one per adversary class; no class is no proof: `unknown`.

    Any falsified falsifies, only all robust is robust, else the weakest answer is kept.
    """
    return min(verdicts, key=WEAKEST_FIRST.index, default=Verdict.UNKNOWN)


@dataclass(frozen=True, eq=False)
class VerificationResult:
    """One point at one radius.

    Attributes:
        target: the adversary class of the counterexample, or the class that stayed undecided.
        margin: proved lower bound on the smallest margin, or the counterexample's margin on the
            deployed model; None where neither is known.
        seconds: time spent on this ball alone, the batched stages' time shared evenly.
        stage_seconds: the ladder's time by stage, as far as it got.
        counterexample: float32, the image's shape; only with `falsified`.
        deployed: with `robust`, whether the margin exceeds the float32 forward pass's error for any
            order of sums, so that the proof holds for the model as it is served.
        witness: with a proof of other stages, what Marabou said of it: `confirmed`, `undecided`,
            or nothing where it was not asked.
        witness_seconds: what asking Marabou took where another stage had proved the ball before.
        follows_from: the other radius at which it was decided, of which this one's verdict follows.
        certificate: with a proof, `checked` where the independent checker passed its certificate,
            `none` where there is none; nothing where none was asked for.
    """

    sample_index: int
    label: int
    epsilon: float
    verdict: Verdict
    decided_by: DecidedBy
    seconds: float
    target: int | None = None
    margin: float | None = None
    reason: str = ""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    counterexample: NDArray[np.float32] | None = None
    deployed: bool | None = None
    witness: str = ""
    witness_seconds: float = 0.0
    follows_from: float | None = None
    certificate: str = ""


def check_no_contradiction(results: Sequence[VerificationResult]) -> None:
    """Raises `ContradictionError` when a ball is proved although a smaller one is broken."""
    broken: dict[int, float] = {}
    for result in results:
        if result.verdict is Verdict.FALSIFIED:
            known = broken.get(result.sample_index, np.inf)
            broken[result.sample_index] = min(known, result.epsilon)
    for result in results:
        smallest = broken.get(result.sample_index, np.inf)
        if result.verdict is Verdict.ROBUST and result.epsilon >= smallest:
            raise ContradictionError(
                f"sample {result.sample_index}: proved robust at epsilon {result.epsilon:g} by "
                f"{result.decided_by}, yet broken at {smallest:g}: this is a defect of certiflow; "
                "please report it with the run's artifacts"
            )
