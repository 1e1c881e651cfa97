"""Sampled points and what verifying them may cost; a record of one ball, replayed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tasks.core.arrays import FloatArray, Images, IntArray
from tasks.core.attacks.gradient import Attacked, pgd, replayed_margin
from tasks.core.models.runtimes import Classifier, Runtime
from tasks.core.properties.specification import LinfBall
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Verdict, VerificationResult


@dataclass(frozen=True, eq=False)
class Sample:
    """The points to verify: their places in the test set, images and labels."""

    indices: IntArray
    images: Images
    labels: IntArray


@dataclass(frozen=True)
class SolverLimits:
    """Where balls are solved, and for how long.

    In `num_workers` processes of this machine or, when `cluster` is the address of a Dask
    scheduler, in one for every thread of its workers; each ball within so many wall-clock seconds
    and bytes, enforced from outside the process.
    """

    num_workers: int
    timeout_seconds: float
    memory_limit_bytes: int
    cluster: str | None = None


@dataclass(frozen=True)
class AttackStrength:
    """PGD's steps, restarts and seed."""

    num_steps: int
    num_restarts: int
    seed: int

    def pgd(
        self, classifier: Classifier, images: Images, labels: IntArray, epsilon: float
    ) -> Attacked:
        """`attacks.pgd` of this strength."""
        return pgd(
            classifier,
            images,
            labels,
            epsilon,
            num_steps=self.num_steps,
            num_restarts=self.num_restarts,
            seed=self.seed,
        )


def result_of(
    sample: Sample,
    row: int,
    epsilon: float,
    verdict: Verdict,
    decided_by: DecidedBy,
    seconds: float,
) -> VerificationResult:
    """The record of a row of the sample, to be completed."""
    return VerificationResult(
        sample_index=int(sample.indices[row]),
        label=int(sample.labels[row]),
        epsilon=epsilon,
        verdict=verdict,
        decided_by=decided_by,
        seconds=seconds,
    )


def with_counterexample(
    runtime: Runtime,
    result: VerificationResult,
    image: Images,
    point: Images | FloatArray,
) -> VerificationResult:
    """`falsified` with the point if the deployed model mislabels it, else `near_boundary`."""
    ball = LinfBall.around(image[None], result.epsilon)
    replayed, margin, predicted = replayed_margin(runtime, ball, point, result.label)
    if predicted != result.label:
        return replace(
            result,
            verdict=Verdict.FALSIFIED,
            target=predicted,
            margin=margin,
            counterexample=replayed,
        )
    return replace(result, verdict=Verdict.UNKNOWN, reason=NEAR_BOUNDARY)
