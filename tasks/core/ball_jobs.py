"""Balls that go to solver processes, one a job, and what comes back, replayed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.core import ladder
from tasks.core.attacks import Images
from tasks.core.ball_sample import Sample, SolverLimits, result_of, with_counterexample
from tasks.core.cluster import run_on_cluster
from tasks.core.ladder import Answer, Engine
from tasks.core.marabou import NEAR_BOUNDARY
from tasks.core.models import Runtime
from tasks.core.network import ReluNetwork
from tasks.core.specification import BoolArray, LinfBall, Property, adversary_classes
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult
from tasks.core.worker_pool import Ending, Outcome, run_jobs

GRACE_SECONDS = 2.0  # beyond the time limit, before a process is ended from outside


@dataclass(frozen=True, eq=False)
class Job:
    """One ball for a solver process, with the adversary classes that bounds proved already."""

    row: int  # of the sample, in `Sample`
    epsilon: float
    image: Images
    label: int
    proved: BoolArray
    engine: Engine


def job_for(sample: Sample, row: np.intp, epsilon: float, proved: BoolArray, engine: Engine) -> Job:
    """The job of a row of the sample; `proved` marks adversary classes, (classes - 1,)."""
    return Job(int(row), epsilon, sample.images[row], int(sample.labels[row]), proved, engine)


@dataclass(frozen=True, eq=False)
class LadderSolver:
    """What a solver process holds: the network, sent once, the time each ball has, and the seed."""

    network: ReluNetwork
    timeout_seconds: float
    seed: int

    def __post_init__(self) -> None:
        ladder.warm_up()

    def __call__(self, job: Job) -> Answer:
        ball = LinfBall.around(job.image[None], job.epsilon)
        whole = Property.robustness(ball, job.label, self.network.num_outputs)
        left = np.flatnonzero(~job.proved)
        answer = ladder.decide(
            self.network,
            Property(tuple(whole.unsafe[index] for index in left)),
            engine=job.engine,
            timeout_seconds=self.timeout_seconds,
            seed=self.seed,
        )
        region = None if answer.region is None else int(left[answer.region])
        return replace(answer, region=region)


def run_ladder(
    network: ReluNetwork, jobs: Sequence[Job], limits: SolverLimits, seed: int
) -> Generator[Outcome[Job, Answer], None, None]:
    """Outcomes as they come, from this machine's processes or those of `limits.cluster`.

    `Answer.region` is a place in `adversary_classes` order. Close it, so
    that an error elsewhere ends the work as well. Raises as `run_jobs` and `run_on_cluster` do.
    """
    arguments = (network, limits.timeout_seconds, seed)

    def timeout_seconds(job: Job) -> float:
        return limits.timeout_seconds + GRACE_SECONDS

    if limits.cluster is not None:
        return run_on_cluster(
            limits.cluster,
            LadderSolver,
            arguments,
            jobs,
            timeout_seconds=timeout_seconds,
            memory_limit_bytes=limits.memory_limit_bytes,
        )
    return run_jobs(
        LadderSolver,
        arguments,
        jobs,
        num_workers=limits.num_workers,
        timeout_seconds=timeout_seconds,
        memory_limit_bytes=limits.memory_limit_bytes,
    )


def solved(
    runtime: Runtime, network: ReluNetwork, sample: Sample, outcome: Outcome[Job, Answer]
) -> VerificationResult:
    """The record of a job's outcome, its candidates replayed on the deployed model."""
    job, answer = outcome.job, outcome.answer
    result = result_of(
        sample, job.row, job.epsilon, Verdict.ERROR, DecidedBy.MARABOU, outcome.seconds
    )
    if outcome.ending is Ending.TIMEOUT:
        return replace(result, verdict=Verdict.TIMEOUT, reason=outcome.reason)
    if answer is None:
        return replace(result, reason=outcome.reason)
    result = replace(result, decided_by=answer.decided_by, stage_seconds=answer.stage_seconds)
    for candidate in answer.candidates:
        confirmed = with_counterexample(runtime, result, job.image, candidate)
        if confirmed.verdict is Verdict.FALSIFIED:
            return confirmed
    target = None
    if answer.region is not None:
        target = int(adversary_classes([job.label], network.num_outputs)[0][answer.region])
    if answer.verdict is Verdict.FALSIFIED:  # in float64 only: the deployed model keeps the label
        return replace(result, verdict=Verdict.UNKNOWN, target=target, reason=NEAR_BOUNDARY)
    return replace(
        result, verdict=answer.verdict, target=target, margin=answer.margin, reason=answer.reason
    )
