"""Global robustness: how far two near inputs, anywhere in a domain, can move each output.

A network is (delta, epsilon)-globally robust in a domain if for all x1, x2 in it that are at most
delta apart in L-infinity distance every output's score differs by less than epsilon (Katz et al.
2017, "Towards Proving the Adversarial Robustness of Deep Neural Networks").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.engine_version import ENGINE_VERSION
from tasks.core.errors import ContradictionError
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker_pool import Ending, Outcome, run_jobs
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import LinfBall
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Verdict
from tasks.core.verification.difference_search import ClassJob, DifferenceSolver, Evidence, Question
from tasks.core.verification.twin_network import twin_network

GRACE_SECONDS = 15.0  # for a solver's last step, before the process is ended from outside

Pair = tuple[FloatArray, FloatArray]


@dataclass(frozen=True, eq=False)
class ClassResult:
    """What is known of one output's score.

    Attributes:
        verdict: with an epsilon asked: `robust` if the score differs by less, `falsified` if the
            pair's differs by as much. Without: `robust` if `epsilon` is the least that can be
            proved, up to the tolerance. Else `unknown` with its reason.
        epsilon: the least epsilon proved, infinite when none is: the score of any two points of the
            domain at most delta apart differs by less.
        largest_difference: of the scores of `pair`, found by attack; 0 without a pair.
        pair: x1 and x2, each (inputs,), inside the domain, at most delta apart.
    """

    label: int
    verdict: Verdict
    epsilon: float
    largest_difference: float
    pair: Pair | None
    seconds: float
    decided_by: DecidedBy
    reason: str = ""


def global_robustness(
    network: ReluNetwork,
    domain: LinfBall,
    delta: float,
    question: Question,
    *,
    num_workers: int,
    memory_limit_bytes: int,
    runtime: Runtime | None = None,
    store: VerdictStore | None = None,
    fresh: bool = False,
    on_result: Callable[[ClassResult], None] = lambda result: None,
) -> list[ClassResult]:
    """One result per output, in their order; `on_result` sees each as it comes.

    `epsilon` is sound for the float64 network. Pairs are replayed on `runtime`, in float32, or on
    the float64 network without one. What is in the store is not computed again unless `fresh`.

    Raises:
        ContradictionError: a pair differs by as much as was proved impossible.
        CertiflowError: the domain is not one box of the network's inputs, delta is negative, the
            store cannot be used, or a process cannot start.
    """
    twin = twin_network(network, domain, delta)
    loose = twin_network(network, domain, delta, clipped=False)
    score = _float64_scores(network) if runtime is None else _float32_scores(runtime)
    kind = np.float64 if runtime is None else np.float32
    results: dict[int, ClassResult] = {}

    def arrived(label: int, evidence: Evidence, seconds: float) -> None:
        replayed = _replayed(score, domain, delta, evidence.points, label, kind)
        results[label] = _result(label, evidence, replayed, question, seconds)
        on_result(results[label])

    keys = [_key(network, domain, delta, label, question) for label in range(network.num_outputs)]
    waiting = []
    for label, key in enumerate(keys):
        known = store.get(key) if store is not None and not fresh else None
        if known is None:
            waiting.append(ClassJob(label))
        else:
            arrived(label, _from_store(known), known.seconds)
    for outcome in run_jobs(
        DifferenceSolver,
        (twin, loose, domain, delta, question),
        waiting,
        num_workers=num_workers,
        timeout_seconds=lambda job: question.timeout_seconds + GRACE_SECONDS,
        memory_limit_bytes=memory_limit_bytes,
    ):
        label, evidence = outcome.job.label, _evidence(outcome, question)
        arrived(label, evidence, outcome.seconds)
        if store is not None and outcome.ending in {Ending.DONE, Ending.TIMEOUT}:
            store.put(keys[label], _to_store(results[label], evidence))
    return [results[label] for label in range(network.num_outputs)]


def pair_of(domain: LinfBall, delta: float, point: FloatArray, kind: type[np.floating]) -> Pair:
    """x1 and x2 = clip(x1 + d) of a point (x, d) of the twin network, as numbers of `kind`.

    The change is shortened by two units in the last place of the domain's greatest number, so that
    rounding leaves the pair inside.
    """
    size = domain.lower.shape[1]
    lower, upper = domain.float32_bounds() if kind is np.float32 else (domain.lower, domain.upper)
    reach = max(float(np.abs([domain.lower, domain.upper]).max()), delta)
    most = max(delta - 2 * float(np.finfo(kind).eps) * reach, 0.0)
    first = np.clip(point[:size].astype(kind), lower[0], upper[0])
    second = first.astype(np.float64) + np.clip(point[size:], -most, most)
    second = np.clip(second.astype(kind), lower[0], upper[0])
    return first.astype(np.float64), second.astype(np.float64)


Scores = Callable[[FloatArray], FloatArray]


def _float64_scores(network: ReluNetwork) -> Scores:
    return network


def _float32_scores(runtime: Runtime) -> Scores:
    def scores(points: FloatArray) -> FloatArray:
        fed = points.astype(np.float32).reshape(len(points), *runtime.input_shape)
        alone = [runtime.logits(one[None])[0] for one in fed]
        return np.array(alone, dtype=np.float64)

    return scores


def _replayed(
    score: Scores,
    domain: LinfBall,
    delta: float,
    points: FloatArray,
    label: int,
    kind: type[np.floating],
) -> tuple[float, Pair | None]:
    """The greatest difference of a score, and its pair, of points (n, 2 inputs)."""
    largest, best = 0.0, None
    for point in points:
        pair = pair_of(domain, delta, point, kind)
        inside = all(domain.contains(x[None])[0] for x in pair)
        if not inside or np.abs(pair[1] - pair[0]).max() > delta:
            continue
        first, second = score(np.stack(pair))
        difference = abs(float(second[label] - first[label]))
        if difference > largest:
            largest, best = difference, pair
    return largest, best


def _result(
    label: int,
    evidence: Evidence,
    replayed: tuple[float, Pair | None],
    question: Question,
    seconds: float,
) -> ClassResult:
    found, pair = replayed
    if found >= evidence.proved:
        raise ContradictionError(
            f"output {label}: proved to differ by less than {evidence.proved:g} by "
            f"{evidence.decided_by}, yet a pair differs by {found:g}: this is a defect of "
            "certiflow; please report it"
        )
    asked = question.epsilon
    if asked is None:
        known = evidence.proved - found <= question.tolerance
    else:
        known = evidence.proved <= asked
    verdict = Verdict.ROBUST if known else Verdict.UNKNOWN
    if asked is not None and found >= asked:
        verdict = Verdict.FALSIFIED
    reason = "" if verdict is not Verdict.UNKNOWN else evidence.reason or NEAR_BOUNDARY
    return ClassResult(
        label, verdict, evidence.proved, found, pair, seconds, evidence.decided_by, reason
    )


def _evidence(outcome: Outcome[ClassJob, Evidence], question: Question) -> Evidence:
    if outcome.answer is not None:
        return outcome.answer
    if outcome.ending is Ending.TIMEOUT:
        return Evidence(reason=f"time limit of {question.timeout_seconds:g} s")
    return Evidence(reason=outcome.reason)


def _key(
    network: ReluNetwork, domain: LinfBall, delta: float, label: int, question: Question
) -> VerdictKey:
    asked = f"{delta!r} {label} {question.epsilon!r} {question.tolerance!r}"
    digest = hashlib.sha256(f"global robustness {domain.lower.shape} {asked} ".encode())
    for bound in (domain.lower, domain.upper):
        digest.update(np.ascontiguousarray(bound).tobytes())
    engine = f"{question.engine} v{ENGINE_VERSION}"
    settings = f"timeout {question.timeout_seconds:g} seed {question.seed}"
    return VerdictKey(network.sha256, digest.hexdigest(), f"{engine} {settings}")


def _to_store(result: ClassResult, evidence: Evidence) -> StoredVerdict:
    """`margin` holds the epsilon proved; the points are those that were replayed."""
    return StoredVerdict(
        verdict=result.verdict,
        decided_by=result.decided_by,
        seconds=result.seconds,
        margin=result.epsilon,
        reason=result.reason,
        points=evidence.points,
    )


def _from_store(known: StoredVerdict) -> Evidence:
    points = np.empty((0, 0)) if known.points is None else known.points
    proved = np.inf if known.margin is None else known.margin
    return Evidence(proved, known.decided_by, points, known.reason)
