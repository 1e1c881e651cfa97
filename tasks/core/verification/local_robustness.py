"""Local robustness of sampled points: clean prediction, attack, bounds, and the ladder's rest.

The first stages are batched over the sample in this process; what they leave open goes, one point
and radius a job, to processes that run `ladder.decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import FloatArray, Images
from tasks.core.bounds.float32_error import row_error
from tasks.core.bounds.linear import (
    Method,
    interval_lower_bounds,
    linear_lower_bounds,
    preactivation_bounds,
)
from tasks.core.execution.verdict_store import VerdictStore
from tasks.core.models.agreement import box_points, check_agreement
from tasks.core.models.runtimes import Classifier, Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import LinfBall, margin_rows
from tasks.core.verdicts import (
    DecidedBy,
    Engine,
    Verdict,
    VerificationResult,
    check_no_contradiction,
)
from tasks.core.verification.ball_jobs import Job, job_for, run_ladder, solved
from tasks.core.verification.ball_records import Recorder
from tasks.core.verification.ball_sample import (
    AttackStrength,
    Sample,
    SolverLimits,
    result_of,
    with_counterexample,
)
from tasks.core.verification.cross_checks import attack_proofs, witnessed

BOUND_BATCH = 1000  # points whose boxes are held at a time


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
        CertiflowError: `runtime` computes something else than `network`.
    """
    check_agreement(network, runtime, box_points(_widest_balls(sample, epsilons)))
    results = Recorder(runtime, network, sample, engine, attack, limits, store, on_result)
    right = runtime.logits(sample.images).argmax(axis=1) == sample.labels
    results.note(_misclassified(runtime, sample, np.flatnonzero(~right), epsilons))
    if not fresh:
        results.recall(np.flatnonzero(right), epsilons)
    jobs: list[tuple[float, Job]] = []
    broken: dict[int, Images] = {}
    for epsilon in sorted(epsilons):
        rows = results.missing(np.flatnonzero(right), epsilon)
        lower = np.full((len(sample.labels), network.num_outputs - 1), -np.inf)
        if engine != "marabou":
            results.record(_attack(runtime, sample, rows, epsilon, attack, broken))
            rows = results.missing(rows, epsilon)
            for method in ("interval", "crown"):
                bounded = _bound(network, sample, rows, epsilon, method, lower)
                results.record(bounded)
                rows = results.missing(rows, epsilon)
        jobs += [
            (lower[row].min(), job_for(sample, row, epsilon, lower[row], engine)) for row in rows
        ]
    hardest_first = [job for _, job in sorted(jobs, key=lambda entry: entry[0])]
    with closing(run_ladder(network, hardest_first, limits, attack.seed)) as outcomes:
        results.record(solved(runtime, network, sample, outcome) for outcome in outcomes)
    check_no_contradiction(results.found)
    attack_proofs(runtime, sample, results.found, attack)
    if engine != "marabou":
        results.found = witnessed(
            runtime, network, sample, results.found, limits, attack.seed, witness_share
        )
    return sorted(results.found, key=lambda result: (result.sample_index, result.epsilon))


def _widest_balls(sample: Sample, epsilons: Sequence[float]) -> LinfBall:
    return LinfBall.around(sample.images, max(epsilons))


def _misclassified(
    runtime: Runtime, sample: Sample, rows: NDArray[np.intp], epsilons: Sequence[float]
) -> Iterator[VerificationResult]:
    """A misclassified point is its own counterexample at every epsilon."""
    for row in rows:
        for epsilon in epsilons:
            result = result_of(sample, row, epsilon, Verdict.FALSIFIED, DecidedBy.CLEAN, 0.0)
            yield with_counterexample(runtime, result, sample.images[row], sample.images[row])


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
    attacked = attack.pgd(runtime, sample.images[left], sample.labels[left], epsilon)
    seconds = (monotonic() - started) / max(len(rows), 1)
    broken.update(zip(left[attacked.broken], attacked.points[attacked.broken], strict=True))
    for row in rows:
        if row not in broken:
            continue
        result = result_of(sample, row, epsilon, Verdict.FALSIFIED, DecidedBy.ATTACK, seconds)
        result = with_counterexample(runtime, result, sample.images[row], broken[row])
        if result.verdict is Verdict.FALSIFIED:
            yield result
        else:  # it flips in a batch but not alone: not a counterexample
            del broken[row]


def _bound(
    network: ReluNetwork,
    sample: Sample,
    rows: NDArray[np.intp],
    epsilon: float,
    method: Method,
    lower: FloatArray,
) -> Iterator[VerificationResult]:
    """Raises `lower`, (points of the sample, adversary classes), to what the bounds prove."""
    for start in range(0, len(rows), BOUND_BATCH):
        started, batch = monotonic(), rows[start : start + BOUND_BATCH]
        ball = LinfBall.around(sample.images[batch], epsilon)
        hidden = preactivation_bounds(network, ball, method)
        margins = margin_rows(sample.labels[batch], network.num_outputs)
        if method == "interval":
            found = interval_lower_bounds(network, margins, hidden, ball)
        else:
            found = linear_lower_bounds(network, len(network.layers) - 1, margins, hidden, ball)
        lower[batch] = np.maximum(lower[batch], found)
        deployed = np.all(lower[batch] > row_error(network, margins, hidden, ball), axis=1)
        seconds = (monotonic() - started) / len(batch)
        stage = DecidedBy.INTERVAL if method == "interval" else DecidedBy.CROWN
        for row, holds in zip(batch, deployed.tolist(), strict=True):
            if (lower[row] > 0).all():
                result = result_of(sample, row, epsilon, Verdict.ROBUST, stage, seconds)
                yield replace(result, margin=float(lower[row].min()), deployed=holds)
