"""Balls that go to solver processes, one a job, and what comes back, replayed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.core.arrays import FloatArray, Images
from tasks.core.execution.cluster import run_on_cluster
from tasks.core.execution.worker_pool import Ending, Outcome, run_jobs
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import LinfBall, Property, adversary_classes
from tasks.core.search import ladder
from tasks.core.search.ladder import Answer
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Engine, Verdict, VerificationResult
from tasks.core.verification.ball_sample import Sample, SolverLimits, result_of, with_counterexample

GRACE_SECONDS = 2.0  # beyond the time limit, before a process is ended from outside


@dataclass(frozen=True, eq=False)
class Job:
    """One ball for a solver process, with what bounds proved of the margins already.

    `known`, (classes - 1,), are lower bounds in `adversary_classes` order, or -inf.
    """

    row: int  # of the sample, in `Sample`
    epsilon: float
    image: Images
    label: int
    known: FloatArray
    engine: Engine
    prove_again: bool  # what Marabou merely witnesses


def job_for(
    sample: Sample,
    row: np.intp,
    epsilon: float,
    known: FloatArray,
    engine: Engine,
    *,
    prove_again: bool = True,
) -> Job:
    """The job of a row of the sample."""
    image, label = sample.images[row], int(sample.labels[row])
    return Job(int(row), epsilon, image, label, known, engine, prove_again)


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
        return ladder.decide(
            self.network,
            Property.robustness(ball, job.label, self.network.num_outputs),
            engine=job.engine,
            timeout_seconds=self.timeout_seconds,
            seed=self.seed,
            known=job.known,
            prove_again=job.prove_again,
        )


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
    stage = DecidedBy.in_stage(outcome.stage) or DecidedBy.CLEAN
    result = result_of(sample, job.row, job.epsilon, Verdict.ERROR, stage, outcome.seconds)
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
        result,
        verdict=answer.verdict,
        target=target,
        margin=answer.margin,
        deployed=answer.deployed,
        witness=answer.witness,
        reason=answer.reason,
    )
