"""Critical radius: for each point, the greatest epsilon proved and the smallest one falsified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import FloatArray, Images
from tasks.core.engine_version import ENGINE_VERSION
from tasks.core.errors import ContradictionError
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker_pool import Ending, Outcome, run_jobs
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import LinfBall, margins
from tasks.core.verdicts import NEAR_BOUNDARY, Verdict
from tasks.core.verification.balls import Sample
from tasks.core.verification.radius_search import PROBE, Findings, Job, Question, RadiusSolver

GRACE_SECONDS = 15.0  # for a solver's last step, before the process is ended from outside


@dataclass(frozen=True, eq=False)
class Bracket:
    """Where one point's critical radius lies.

    Attributes:
        proved: robust at every epsilon up to this one, for the float64 network; 0: nothing proved.
        falsified: the counterexample's own L-infinity distance, rounded up; infinite when nothing
            breaks the point up to `max_epsilon`; 0 for a misclassified point.
        counterexample: float32, the image's shape, mislabelled by the deployed model.
        complete: whether the bracket is as narrow as asked, or all up to `max_epsilon` is proved.
        reason: why it is not complete.
        stage_seconds: by stage: interval, attack, crown, and each probe of the ladder.
    """

    sample_index: int
    label: int
    proved: float
    falsified: float
    counterexample: Images | None
    seconds: float
    complete: bool
    reason: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def probes(self) -> int:
        """How many balls the ladder was asked about."""
        return sum(stage.startswith(PROBE) for stage in self.stage_seconds)


def critical_radii(
    runtime: Runtime,
    network: ReluNetwork,
    sample: Sample,
    question: Question,
    *,
    num_workers: int,
    memory_limit_bytes: int,
    store: VerdictStore | None = None,
    fresh: bool = False,
    on_result: Callable[[Bracket], None] = lambda bracket: None,
) -> list[Bracket]:
    """A bracket for every point, in the sample's order; `on_result` sees each as it comes.

    `proved` is sound for `network`, `falsified` for `runtime`, which must be the same model. The
    points of greatest clean margin, which take longest, go first. What is in the store is not
    computed again unless `fresh`; a crash or a broken memory limit is not stored.

    Raises:
        ContradictionError: a point is broken within the radius that was proved.
        CertiflowError: the store cannot be used, or a process cannot start.
    """
    brackets: dict[int, Bracket] = {}

    def arrived(job: Job, findings: Findings, seconds: float) -> None:
        brackets[job.row] = _bracket(runtime, sample, job, findings, question, seconds)
        on_result(brackets[job.row])

    jobs = [
        Job(row, image, int(label))
        for row, (image, label) in enumerate(zip(sample.images, sample.labels, strict=True))
    ]
    keys = [_key(network, job, question) for job in jobs]
    waiting = []
    for job in jobs:
        known = store.get(keys[job.row]) if store is not None and not fresh else None
        if _label(runtime, job.image) != job.label:
            arrived(job, Findings(points=job.image.reshape(1, -1).astype(np.float64)), 0.0)
        elif known is not None:
            arrived(job, _from_store(known), known.seconds)
        else:
            waiting.append(job)
    for outcome in run_jobs(
        RadiusSolver,
        (network, question),
        _hardest_first(network, waiting),
        num_workers=num_workers,
        timeout_seconds=lambda job: question.timeout_seconds + GRACE_SECONDS,
        memory_limit_bytes=memory_limit_bytes,
    ):
        arrived(outcome.job, _findings(outcome, question), outcome.seconds)
        if store is not None and outcome.ending in {Ending.DONE, Ending.TIMEOUT}:
            bracket = brackets[outcome.job.row]
            store.put(keys[outcome.job.row], _to_store(bracket, _findings(outcome, question)))
    return [brackets[job.row] for job in jobs]


def _bracket(
    runtime: Runtime,
    sample: Sample,
    job: Job,
    findings: Findings,
    question: Question,
    seconds: float,
) -> Bracket:
    """The findings, as far as the deployed model confirms them."""
    candidates = np.empty((0, job.image.size)) if findings.points is None else findings.points
    falsified, counterexample = _nearest_confirmed(runtime, job, candidates, question.max_epsilon)
    if findings.proved > 0 and falsified <= findings.proved:
        raise ContradictionError(
            f"sample {sample.indices[job.row]}: proved robust up to epsilon {findings.proved:g} by "
            f"{findings.proved_by}, yet broken at {falsified:g}: this is a defect of certiflow; "
            "please report it with the run's artifacts"
        )
    complete = falsified - findings.proved <= question.tolerance
    complete = complete or findings.proved >= question.max_epsilon
    unconfirmed = NEAR_BOUNDARY if len(candidates) else "undecided"
    return Bracket(
        sample_index=int(sample.indices[job.row]),
        label=job.label,
        proved=findings.proved,
        falsified=falsified,
        counterexample=counterexample,
        seconds=seconds,
        complete=complete,
        reason="" if complete else findings.reason or unconfirmed,
        stage_seconds=findings.stage_seconds,
    )


def _nearest_confirmed(
    runtime: Runtime, job: Job, candidates: FloatArray, max_epsilon: float
) -> tuple[float, Images | None]:
    """Of the candidates as float32 points, the nearest one that the deployed model mislabels.

    With its distance: the float64 difference of two float32 numbers errs by half a unit in the last
    place at most, so the next number up is no less than the exact distance.
    """
    lower, upper = LinfBall.around(job.image[None], max_epsilon).float32_bounds()
    points = np.clip(candidates.astype(np.float32), lower, upper)
    image = job.image.reshape(-1).astype(np.float64)
    distances = np.abs(points.astype(np.float64) - image).max(axis=1)
    for place in np.argsort(distances):
        point = points[place].reshape(job.image.shape)
        if _label(runtime, point) != job.label:
            distance = float(distances[place])
            return (float(np.nextafter(distance, np.inf)) if distance else 0.0), point
    return np.inf, None


def _label(runtime: Runtime, point: Images) -> int:
    """What the deployed model says of a point, alone in its batch."""
    return int(runtime.logits(point.reshape(1, *runtime.input_shape))[0].argmax())


def _hardest_first(network: ReluNetwork, jobs: Sequence[Job]) -> list[Job]:
    def clean_margin(job: Job) -> float:
        return float(margins(network(job.image[None]), [job.label]).min())

    return sorted(jobs, key=clean_margin, reverse=True)


def _findings(outcome: Outcome[Job, Findings], question: Question) -> Findings:
    if outcome.answer is not None:
        return outcome.answer
    if outcome.ending is Ending.TIMEOUT:
        return Findings(reason=f"time limit of {question.timeout_seconds:g} s")
    return Findings(reason=outcome.reason)


def _key(network: ReluNetwork, job: Job, question: Question) -> VerdictKey:
    image: NDArray[np.float32] = np.ascontiguousarray(job.image)
    digest = hashlib.sha256(f"critical radius of {image.shape} {job.label} ".encode())
    digest.update(f"{question.max_epsilon!r} {question.tolerance!r} ".encode())
    digest.update(image.tobytes())
    engine = f"{question.engine} v{ENGINE_VERSION}"
    settings = f"timeout {question.timeout_seconds:g} seed {question.seed}"
    return VerdictKey(network.sha256, digest.hexdigest(), f"{engine} {settings}")


def _to_store(bracket: Bracket, findings: Findings) -> StoredVerdict:
    """`margin` holds the radius proved; the counterexample holds the one falsified."""
    found = bracket.counterexample
    verdict = Verdict.UNKNOWN if found is None else Verdict.FALSIFIED
    return StoredVerdict(
        verdict=Verdict.ROBUST if found is None and bracket.complete else verdict,
        decided_by=findings.proved_by,
        seconds=bracket.seconds,
        margin=bracket.proved,
        reason=bracket.reason,
        stage_seconds=bracket.stage_seconds,
        points=None if found is None else found.reshape(1, -1).astype(np.float64),
    )


def _from_store(known: StoredVerdict) -> Findings:
    return Findings(
        known.margin or 0.0, known.decided_by, known.points, known.reason, known.stage_seconds
    )
