"""Local robustness of sampled points: clean prediction, attack, bounds, and the ladder's rest.

The first stages are batched over the sample in this process; what they leave open goes, one point
and radius a job, to processes that run `ladder.decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from tasks.core import ladder
from tasks.core.attacks import Attacked, Classifier, Images, pgd, replayed_margin
from tasks.core.bounds import (
    Method,
    interval_lower_bounds,
    linear_lower_bounds,
    preactivation_bounds,
)
from tasks.core.errors import ContradictionError
from tasks.core.ladder import ENGINE_VERSION, Answer, Engine
from tasks.core.marabou import NEAR_BOUNDARY
from tasks.core.models import Runtime
from tasks.core.network import ReluNetwork
from tasks.core.specification import (
    BoolArray,
    FloatArray,
    IntArray,
    LinfBall,
    Property,
    adversary_classes,
    margin_rows,
)
from tasks.core.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult, check_no_contradiction
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
    runtime: Runtime,
    network: ReluNetwork,
    sample: Sample,
    epsilons: Sequence[float],
    *,
    engine: Engine,
    attack: AttackStrength,
    limits: SolverLimits,
    witness_share: float = 0.0,
    store: VerdictStore | None = None,
    fresh: bool = False,
    on_result: Callable[[VerificationResult], None] = lambda result: None,
) -> list[VerificationResult]:
    """A verdict for every sampled point at every epsilon, ordered by sample and epsilon.

    `ladder` and `bounds` take what attacks and CROWN leave open down `ladder.decide`; `marabou`
    gives every point that is classified right to the solver alone. `robust` is sound for
    `network`; `falsified` comes with a point that `runtime` mislabels. Verdicts in `store` are
    taken from there, unless `fresh`, and new ones are put there as they come. A seeded
    `witness_share` of the balls that the ladder proved without Marabou is given to Marabou as well.

    Raises:
        ContradictionError: a ball was proved robust and is also broken.
    """
    results = _Recorder(runtime, network, sample, engine, attack, limits, store, on_result)
    right = runtime.logits(sample.images).argmax(axis=1) == sample.labels
    results.record(_misclassified(runtime, sample, np.flatnonzero(~right), epsilons))
    if not fresh:
        results.recall(np.flatnonzero(right), epsilons)
    jobs: list[tuple[float, Job]] = []
    broken: dict[int, Images] = {}
    for epsilon in sorted(epsilons):
        rows = results.missing(np.flatnonzero(right), epsilon)
        proved = np.zeros((len(sample.labels), network.num_outputs - 1), dtype=bool)
        threat = np.zeros(len(sample.labels))
        if engine != "marabou":
            results.record(_attack(runtime, sample, rows, epsilon, attack, broken))
            rows = results.missing(rows, epsilon)
            for method in ("interval", "crown"):
                bounded = _bound(network, sample, rows, epsilon, method, proved, threat)
                results.record(bounded)
                rows = results.missing(rows, epsilon)
        jobs += [(threat[row], _job(sample, row, epsilon, proved[row], engine)) for row in rows]
    hardest_first = [job for _, job in sorted(jobs, key=lambda entry: entry[0])]
    results.record(
        _solved(runtime, network, sample, outcome)
        for outcome in _run(network, hardest_first, limits, attack.seed)
    )
    check_no_contradiction(results.found)
    _attack_proofs(runtime, sample, results.found, attack)
    if engine != "marabou":
        results.found = _witnessed(
            runtime, network, sample, results.found, limits, attack.seed, witness_share
        )
    return sorted(results.found, key=lambda result: (result.sample_index, result.epsilon))


class _Recorder:
    """The results so far; puts new ones into the store and takes known ones from it."""

    def __init__(
        self,
        runtime: Runtime,
        network: ReluNetwork,
        sample: Sample,
        engine: Engine,
        attack: AttackStrength,
        limits: SolverLimits,
        store: VerdictStore | None,
        on_result: Callable[[VerificationResult], None],
    ) -> None:
        self.runtime, self.network, self.sample = runtime, network, sample
        self.store, self.on_result = store, on_result
        self.engine = (
            f"{engine} v{ENGINE_VERSION} timeout {limits.timeout_seconds:g} "
            f"pgd {attack.num_steps}x{attack.num_restarts} seed {attack.seed}"
        )
        self.found: list[VerificationResult] = []
        self.decided: set[tuple[int, float]] = set()
        self.row_of = {int(index): row for row, index in enumerate(sample.indices)}

    def record(self, decided: Iterator[VerificationResult]) -> None:
        """Adds results as they come."""
        for result in decided:
            self._add(result)
            if self.store is not None and result.verdict is not Verdict.ERROR:
                self.store.put(self._key(result.sample_index, result.epsilon), _stored(result))

    def recall(self, rows: NDArray[np.intp], epsilons: Sequence[float]) -> None:
        """Adds what the store knows; a stored counterexample must break the model again."""
        if self.store is None:
            return
        indices = [int(self.sample.indices[row]) for row in rows]
        keys = {
            self._key(index, epsilon): (index, epsilon) for index in indices for epsilon in epsilons
        }
        for key, stored in self.store.get_many(list(keys)).items():
            index, epsilon = keys[key]
            result = _recalled(self.runtime, self.sample, self.row_of[index], epsilon, stored)
            if result is not None:
                self._add(result)

    def missing(self, rows: NDArray[np.intp], epsilon: float) -> NDArray[np.intp]:
        """Those of `rows` without a result at `epsilon`."""
        indices = self.sample.indices
        open_rows = [row for row in rows if (int(indices[row]), epsilon) not in self.decided]
        return np.array(open_rows, dtype=np.intp)

    def _add(self, result: VerificationResult) -> None:
        self.found.append(result)
        self.decided.add((result.sample_index, result.epsilon))
        self.on_result(result)

    def _key(self, sample_index: int, epsilon: float) -> VerdictKey:
        row = self.row_of[sample_index]
        ball = LinfBall.around(self.sample.images[row][None], epsilon)
        label = int(self.sample.labels[row])
        prop = Property.robustness(ball, label, self.network.num_outputs)
        return VerdictKey(self.network.sha256, prop.sha256, self.engine)


def _stored(result: VerificationResult) -> StoredVerdict:
    point = result.counterexample
    return StoredVerdict(
        verdict=result.verdict,
        decided_by=result.decided_by,
        seconds=float(result.seconds),
        margin=result.margin,
        reason=result.reason,
        target=result.target,
        stage_seconds=dict(result.stage_seconds),
        points=None if point is None else point.astype(np.float64).reshape(1, -1),
    )


def _recalled(
    runtime: Runtime, sample: Sample, row: int, epsilon: float, stored: StoredVerdict
) -> VerificationResult | None:
    result = _result(sample, row, epsilon, stored.verdict, stored.decided_by, stored.seconds)
    result = replace(
        result,
        target=stored.target,
        margin=stored.margin,
        reason=stored.reason,
        stage_seconds=stored.stage_seconds,
    )
    if stored.verdict is not Verdict.FALSIFIED:
        return result
    if stored.points is None:
        return None
    replayed = _with_counterexample(runtime, result, sample.images[row], stored.points[0])
    return replayed if replayed.verdict is Verdict.FALSIFIED else None


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
    runtime: Runtime, sample: Sample, rows: NDArray[np.intp], epsilons: Sequence[float]
) -> Iterator[VerificationResult]:
    """A misclassified point is its own counterexample at every epsilon."""
    for row in rows:
        for epsilon in epsilons:
            result = _result(sample, row, epsilon, Verdict.FALSIFIED, DecidedBy.CLEAN, 0.0)
            yield _with_counterexample(runtime, result, sample.images[row], sample.images[row])


def _attack(
    runtime: Runtime,
    sample: Sample,
    rows: NDArray[np.intp],
    epsilon: float,
    attack: AttackStrength,
    broken: dict[int, Images],
) -> Iterator[VerificationResult]:
    """FGSM, then PGD, on rows that no smaller ball has broken; adds what breaks to `broken`.

    Only a Keras model has gradients here; others are attacked in float64 by the ladder.
    """
    if not isinstance(runtime, Classifier):
        return
    started = monotonic()
    left = np.array([row for row in rows if row not in broken], dtype=np.intp)
    attacked = _pgd(runtime, sample.images[left], sample.labels[left], epsilon, attack)
    seconds = (monotonic() - started) / max(len(rows), 1)
    broken.update(zip(left[attacked.broken], attacked.points[attacked.broken], strict=True))
    for row in rows:
        if row not in broken:
            continue
        result = _result(sample, row, epsilon, Verdict.FALSIFIED, DecidedBy.ATTACK, seconds)
        result = _with_counterexample(runtime, result, sample.images[row], broken[row])
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


def _bound(
    network: ReluNetwork,
    sample: Sample,
    rows: NDArray[np.intp],
    epsilon: float,
    method: Method,
    proved: BoolArray,
    threat: FloatArray,
) -> Iterator[VerificationResult]:
    """Marks in `proved` (rows, adversary classes) what bounds prove; `threat` gets the least."""
    if len(rows) == 0:
        return
    started = monotonic()
    ball = LinfBall.around(sample.images[rows], epsilon)
    hidden = preactivation_bounds(network, ball, method)
    margins = margin_rows(sample.labels[rows], network.num_outputs)
    if method == "interval":
        lower = interval_lower_bounds(network, margins, hidden, ball)
    else:
        lower = linear_lower_bounds(network, len(network.layers) - 1, margins, hidden, ball)
    seconds = (monotonic() - started) / len(rows)
    proved[rows], threat[rows] = lower > 0, lower.min(axis=1)
    stage = DecidedBy.INTERVAL if method == "interval" else DecidedBy.CROWN
    for row, margin in zip(rows, lower.min(axis=1), strict=True):
        if margin > 0:
            result = _result(sample, row, epsilon, Verdict.ROBUST, stage, seconds)
            yield replace(result, margin=float(margin))


def _job(sample: Sample, row: np.intp, epsilon: float, proved: BoolArray, engine: Engine) -> Job:
    return Job(int(row), epsilon, sample.images[row], int(sample.labels[row]), proved, engine)


@dataclass(frozen=True, eq=False)
class LadderSolver:
    """What a solver process holds: the network, sent once, the time each ball has, and the seed."""

    network: ReluNetwork
    timeout_seconds: float
    seed: int

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


def _run(
    network: ReluNetwork, jobs: Sequence[Job], limits: SolverLimits, seed: int
) -> Iterator[Outcome[Job, Answer]]:
    return run_jobs(
        LadderSolver,
        (network, limits.timeout_seconds, seed),
        jobs,
        num_workers=limits.num_workers,
        timeout_seconds=lambda job: limits.timeout_seconds + GRACE_SECONDS,
        memory_limit_bytes=limits.memory_limit_bytes,
    )


def _solved(
    runtime: Runtime, network: ReluNetwork, sample: Sample, outcome: Outcome[Job, Answer]
) -> VerificationResult:
    """The record of a job's outcome, its candidates replayed on the deployed model."""
    job, answer = outcome.job, outcome.answer
    result = _result(
        sample, job.row, job.epsilon, Verdict.ERROR, DecidedBy.MARABOU, outcome.seconds
    )
    if outcome.ending is Ending.TIMEOUT:
        return replace(result, verdict=Verdict.TIMEOUT, reason=outcome.reason)
    if answer is None:
        return replace(result, reason=outcome.reason)
    result = replace(result, decided_by=answer.decided_by, stage_seconds=answer.stage_seconds)
    for candidate in answer.candidates:
        confirmed = _with_counterexample(runtime, result, job.image, candidate)
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


def _attack_proofs(
    runtime: Runtime,
    sample: Sample,
    results: Sequence[VerificationResult],
    attack: AttackStrength,
) -> None:
    """Attacks every ball that the solver proved: the others were attacked before they were."""
    if not isinstance(runtime, Classifier):
        return
    row_of = {int(index): row for row, index in enumerate(sample.indices)}
    claims = [
        r for r in results if r.verdict is Verdict.ROBUST and r.decided_by is DecidedBy.MARABOU
    ]
    for epsilon in {claim.epsilon for claim in claims}:
        rows = np.array([row_of[c.sample_index] for c in claims if c.epsilon == epsilon])
        attacked = _pgd(runtime, sample.images[rows], sample.labels[rows], epsilon, attack)
        for row in rows[attacked.broken]:
            raise _contradiction(int(sample.indices[row]), epsilon, "Marabou", "PGD breaks it")


def _witnessed(
    runtime: Runtime,
    network: ReluNetwork,
    sample: Sample,
    results: Sequence[VerificationResult],
    limits: SolverLimits,
    seed: int,
    share: float,
) -> list[VerificationResult]:
    """The results, a seeded share of the ladder's own proofs marked with what Marabou says."""
    row_of = {int(index): row for row, index in enumerate(sample.indices)}
    claims = [
        r for r in results if r.verdict is Verdict.ROBUST and r.decided_by is not DecidedBy.MARABOU
    ]
    count = int(np.ceil(share * len(claims)))
    chosen = np.random.default_rng(seed).choice(len(claims), size=count, replace=False)
    asked: Mapping[tuple[int, float], VerificationResult] = {
        (claims[index].sample_index, claims[index].epsilon): claims[index] for index in chosen
    }
    nothing = np.zeros(network.num_outputs - 1, dtype=bool)
    jobs = [
        _job(sample, np.intp(row_of[index]), epsilon, nothing, "marabou")
        for index, epsilon in asked
    ]
    said: dict[tuple[int, float], str] = {}
    for outcome in _run(network, jobs, limits, seed):
        answer = _solved(runtime, network, sample, outcome)
        key = (answer.sample_index, answer.epsilon)
        if answer.verdict is Verdict.FALSIFIED:
            raise _contradiction(*key, str(asked[key].decided_by), "Marabou breaks it")
        said[key] = "confirmed" if answer.verdict is Verdict.ROBUST else "undecided"
    return [
        replace(result, witness=said.get((result.sample_index, result.epsilon), ""))
        for result in results
    ]


def _contradiction(index: int, epsilon: float, prover: str, breaker: str) -> ContradictionError:
    return ContradictionError(
        f"sample {index}: {prover} proved it robust at epsilon {epsilon:g}, yet {breaker}: "
        "this is a defect; please report it with the run's artifacts"
    )
