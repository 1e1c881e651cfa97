"""The ladder that decides sampled points: clean, attack, linear bounds, Marabou."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.core import marabou
from tasks.core.attacks import Attacked, Classifier, Images, pgd, replayed_margin
from tasks.core.bounds import margin_lower_bounds, preactivation_bounds
from tasks.core.errors import ContradictionError
from tasks.core.marabou import BallAnswer
from tasks.core.network import ReluNetwork
from tasks.core.specification import FloatArray, IntArray, LinfBall
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult, check_no_contradiction
from tasks.core.worker_pool import Ending, Outcome, run_jobs

Engine = Literal["ladder", "marabou"]


@dataclass(frozen=True, eq=False)
class SolverJob:
    """One ball for a solver process, with the adversary classes that bounds proved already."""

    row: int  # of the sample, in `Sample`
    epsilon: float
    image: Images
    label: int
    proved: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sample:
    """The points to verify: their places in the test set, images and labels."""

    indices: IntArray
    images: Images
    labels: IntArray


@dataclass(frozen=True)
class SolverLimits:
    """Per ball: wall-clock seconds and bytes, enforced from outside the solver's process."""

    num_workers: int
    timeout_seconds: float
    memory_limit_bytes: int


@dataclass(frozen=True)
class AttackStrength:
    """PGD's steps, restarts and seed."""

    num_steps: int
    num_restarts: int
    seed: int


def verify(
    classifier: Classifier,
    network: ReluNetwork,
    sample: Sample,
    epsilons: Sequence[float],
    *,
    engine: Engine,
    attack: AttackStrength,
    limits: SolverLimits,
    on_result: Callable[[VerificationResult], None] = lambda result: None,
) -> list[VerificationResult]:
    """A verdict for every sampled point at every epsilon, ordered by sample and epsilon.

    `ladder`: misclassified? attacked? bounded? what is left is solved. `marabou`: every point that
    is classified right goes to the solver alone. `robust` is sound for `network`; `falsified` comes
    with a point that `classifier` mislabels.

    Raises:
        ContradictionError: a ball was proved robust and is also broken.
    """
    results: list[VerificationResult] = []

    def record(decided: Iterator[VerificationResult]) -> None:
        for result in decided:
            results.append(result)
            on_result(result)

    right = classifier.predictions(sample.images) == sample.labels
    record(_misclassified(classifier, sample, np.flatnonzero(~right), epsilons))
    jobs: list[SolverJob] = []
    broken: dict[int, Images] = {}
    for epsilon in sorted(epsilons):
        open_rows = np.flatnonzero(right)
        proved = np.zeros((len(sample.labels), network.num_outputs - 1), dtype=bool)
        if engine == "ladder":
            record(_attack(classifier, sample, open_rows, epsilon, attack, broken))
            open_rows = np.array([row for row in open_rows if row not in broken], dtype=np.intp)
            record(_bound(network, sample, open_rows, epsilon, proved))
            open_rows = open_rows[~proved[open_rows].all(axis=1)]
        jobs += [_job(sample, row, epsilon, proved[row]) for row in open_rows]
    record(_solve(classifier, network, sample, jobs, limits))
    check_no_contradiction(results)
    _attack_proofs(classifier, sample, results, attack)
    return sorted(results, key=lambda result: (result.sample_index, result.epsilon))


def _result(
    sample: Sample,
    row: int,
    epsilon: float,
    verdict: Verdict,
    decided_by: DecidedBy,
    seconds: float,
) -> VerificationResult:
    return VerificationResult(
        sample_index=int(sample.indices[row]),
        label=int(sample.labels[row]),
        epsilon=epsilon,
        verdict=verdict,
        decided_by=decided_by,
        seconds=seconds,
    )


def _misclassified(
    classifier: Classifier, sample: Sample, rows: NDArray[np.intp], epsilons: Sequence[float]
) -> Iterator[VerificationResult]:
    """A misclassified point is its own counterexample at every epsilon."""
    for row in rows:
        for epsilon in epsilons:
            result = _result(sample, row, epsilon, Verdict.FALSIFIED, DecidedBy.CLEAN, 0.0)
            yield _with_counterexample(classifier, result, sample.images[row], sample.images[row])


def _attack(
    classifier: Classifier,
    sample: Sample,
    rows: NDArray[np.intp],
    epsilon: float,
    attack: AttackStrength,
    broken: dict[int, Images],
) -> Iterator[VerificationResult]:
    """FGSM, then PGD, on rows that no smaller ball has broken; adds what breaks to `broken`."""
    started = monotonic()
    left = np.array([row for row in rows if row not in broken], dtype=np.intp)
    attacked = _pgd(classifier, sample.images[left], sample.labels[left], epsilon, attack)
    seconds = (monotonic() - started) / max(len(rows), 1)
    broken.update(zip(left[attacked.broken], attacked.points[attacked.broken], strict=True))
    for row in rows:
        if row not in broken:
            continue
        result = _result(sample, row, epsilon, Verdict.FALSIFIED, DecidedBy.ATTACK, seconds)
        result = _with_counterexample(classifier, result, sample.images[row], broken[row])
        if result.verdict is Verdict.FALSIFIED:
            yield result
        else:  # it flips in a batch but not alone: not a counterexample
            del broken[row]


def _pgd(
    classifier: Classifier,
    images: Images,
    labels: IntArray,
    epsilon: float,
    attack: AttackStrength,
) -> Attacked:
    return pgd(
        classifier,
        images,
        labels,
        epsilon,
        num_steps=attack.num_steps,
        num_restarts=attack.num_restarts,
        seed=attack.seed,
    )


def _with_counterexample(
    classifier: Classifier,
    result: VerificationResult,
    image: Images,
    point: Images | FloatArray,
) -> VerificationResult:
    """`falsified` with the point if the deployed model mislabels it, else `near_boundary`."""
    ball = LinfBall.around(image[None], result.epsilon)
    replayed, margin, predicted = replayed_margin(classifier, ball, point, result.label)
    if predicted != result.label:
        return replace(
            result,
            verdict=Verdict.FALSIFIED,
            target=predicted,
            margin=margin,
            counterexample=replayed,
        )
    return replace(result, verdict=Verdict.UNKNOWN, reason=marabou.NEAR_BOUNDARY)


def _bound(
    network: ReluNetwork,
    sample: Sample,
    rows: NDArray[np.intp],
    epsilon: float,
    proved: NDArray[np.bool_],
) -> Iterator[VerificationResult]:
    """CROWN; marks in `proved` (rows, adversary classes) what it proves."""
    started = monotonic()
    ball = LinfBall.around(sample.images[rows], epsilon)
    hidden = preactivation_bounds(network, ball, "crown")
    lower = margin_lower_bounds(network, ball, sample.labels[rows], hidden)
    seconds = (monotonic() - started) / max(len(rows), 1)
    proved[rows] = lower > 0
    for row, margin in zip(rows, lower.min(axis=1), strict=True):
        if margin > 0:
            result = _result(sample, row, epsilon, Verdict.ROBUST, DecidedBy.CROWN, seconds)
            yield replace(result, margin=float(margin))


def _job(sample: Sample, row: np.intp, epsilon: float, proved: NDArray[np.bool_]) -> SolverJob:
    return SolverJob(int(row), epsilon, sample.images[row], int(sample.labels[row]), proved)


@dataclass(frozen=True, eq=False)
class MarabouSolver:
    """What a solver process holds: the network, sent once, and the time each ball has."""

    network: ReluNetwork
    timeout_seconds: float

    def __call__(self, job: SolverJob) -> BallAnswer:
        ball = LinfBall.around(job.image[None], job.epsilon)
        return marabou.decide(
            self.network,
            ball,
            job.label,
            timeout_seconds=self.timeout_seconds,
            proved=job.proved,
        )


def _solve(
    classifier: Classifier,
    network: ReluNetwork,
    sample: Sample,
    jobs: Sequence[SolverJob],
    limits: SolverLimits,
) -> Iterator[VerificationResult]:
    outcomes: Iterator[Outcome[SolverJob, BallAnswer]] = run_jobs(
        MarabouSolver,
        (network, limits.timeout_seconds),
        jobs,
        num_workers=limits.num_workers,
        timeout_seconds=limits.timeout_seconds,
        memory_limit_bytes=limits.memory_limit_bytes,
    )
    for outcome in outcomes:
        yield _solved(classifier, sample, outcome)


def _solved(
    classifier: Classifier, sample: Sample, outcome: Outcome[SolverJob, BallAnswer]
) -> VerificationResult:
    """The record of a solver's outcome, its candidates replayed on the deployed model."""
    job, answer = outcome.job, outcome.answer
    result = _result(
        sample, job.row, job.epsilon, Verdict.ERROR, DecidedBy.MARABOU, outcome.seconds
    )
    if outcome.ending is Ending.TIMEOUT:
        return replace(result, verdict=Verdict.TIMEOUT, reason=outcome.reason)
    if answer is None:
        return replace(result, reason=outcome.reason)
    for candidate in answer.candidates:
        confirmed = _with_counterexample(classifier, result, job.image, candidate)
        if confirmed.verdict is Verdict.FALSIFIED:
            return confirmed
    if answer.verdict is Verdict.FALSIFIED:  # in float64 only: the deployed model keeps the label
        return replace(
            result, verdict=Verdict.UNKNOWN, target=answer.target, reason=marabou.NEAR_BOUNDARY
        )
    return replace(
        result,
        verdict=answer.verdict,
        target=answer.target,
        margin=answer.margin,
        reason=answer.reason,
    )


def _attack_proofs(
    classifier: Classifier,
    sample: Sample,
    results: Sequence[VerificationResult],
    attack: AttackStrength,
) -> None:
    """Attacks every ball that the solver proved: the bounds' were attacked before they were."""
    row_of = {int(index): row for row, index in enumerate(sample.indices)}
    claims = [
        r for r in results if r.verdict is Verdict.ROBUST and r.decided_by is DecidedBy.MARABOU
    ]
    for epsilon in {claim.epsilon for claim in claims}:
        rows = np.array([row_of[c.sample_index] for c in claims if c.epsilon == epsilon])
        attacked = _pgd(classifier, sample.images[rows], sample.labels[rows], epsilon, attack)
        for row in rows[attacked.broken]:
            raise ContradictionError(
                f"sample {sample.indices[row]}: Marabou proved it robust at epsilon {epsilon:g}, "
                "yet PGD breaks it: this is a defect; please report it with the run's artifacts"
            )
