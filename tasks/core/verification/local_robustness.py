"""Local robustness of sampled points: clean prediction, attack, bounds, and the ladder's rest.

The first stages are batched over the sample in this process; what they leave open goes, one ball a
job, to processes that run `ladder.decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tasks.core.engine_version import ENGINE_VERSION
from tasks.core.execution.asking import Again, Resources, answers
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.agreement import box_points, check_agreement
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.perturbation import Perturbation
from tasks.core.search.answer import Answer, Known
from tasks.core.search.first_stages import AttackStrength, FirstStages
from tasks.core.verdict_columns import STORED_FIELDS
from tasks.core.verdicts import (
    DecidedBy,
    Engine,
    Verdict,
    VerificationResult,
    check_no_contradiction,
)
from tasks.core.verification.balls import Ball, LadderSolver, Sample, answered, unanswered
from tasks.core.verification.cross_checks import attack_proofs
from tasks.core.verification.nested import nested_answers


def verify(
    runtime: Runtime,
    network: ReluNetwork,
    sample: Sample,
    epsilons: Sequence[float],
    *,
    engine: Engine,
    attack: AttackStrength,
    timeout_seconds: float,
    resources: Resources,
    store: VerdictStore | None = None,
    fresh: bool = False,
    carried: Mapping[tuple[int, float], VerificationResult] | None = None,
    nested: bool = False,
    on_result: Callable[[VerificationResult], None] = lambda result: None,
) -> list[VerificationResult]:
    """A verdict for every sampled point at every epsilon, ordered by sample and epsilon.

    `ladder` and `bounds` take what attacks and CROWN leave open down `ladder.decide`; `marabou`
    gives every point that is classified right to the solver alone. `robust` is sound for
    `network`; `falsified` comes with a point that `runtime` mislabels. Verdicts in `store` are
    taken from there, unless `fresh`, and new ones are put there as they come. `carried` are proofs
    for `network` that are known already, by sample index and epsilon. With `nested` the verdicts of
    a point at some radii follow from those at others (`nested_answers`).

    Raises:
        ContradictionError: a ball was proved robust and is also broken.
        CertiflowError: `runtime` computes something else than `network`.
    """
    check_agreement(network, runtime, box_points(sample.first_boxes(max(epsilons))))
    question = LocalRobustness(
        runtime, network, sample.perturbation, engine, timeout_seconds, attack
    )
    found: list[VerificationResult] = []

    def arrived(result: VerificationResult) -> None:
        found.append(result)
        on_result(result)

    right = runtime.logits(sample.inputs).argmax(axis=1) == sample.labels
    waiting, proved = list[Ball](), list[tuple[Ball, VerificationResult]]()
    for ball in sample.balls(epsilons):
        known = (carried or {}).get((ball.sample_index, ball.epsilon))
        if not right[ball.row]:
            arrived(question.misclassified(ball))
        elif known is not None:
            proved.append((ball, known))
            arrived(known)
        else:
            waiting.append(ball)
    first = None if engine == "marabou" else question.first_stages(sample)
    rest: dict[str, Any] = {"store": store, "fresh": fresh, "first": first}
    with closing(
        nested_answers(question, sample, proved, waiting, resources, **rest)
        if nested
        else answers(question, waiting, resources, **rest)
    ) as results:
        for _, result in results:
            arrived(result)
    check_no_contradiction(found)
    attack_proofs(runtime, sample, found, attack)
    return sorted(found, key=lambda result: (result.sample_index, result.epsilon))


@dataclass(frozen=True, eq=False)
class LocalRobustness:
    """Whether a ball's label wins all over it, asked of an engine within so many seconds.

    `attack` is that of the first stages. What Marabou merely witnesses is proved again, or stays
    open.
    """

    runtime: Runtime
    network: ReluNetwork
    perturbation: Perturbation
    engine: Engine
    timeout_seconds: float
    attack: AttackStrength
    prove_again: bool = True

    def misclassified(self, ball: Ball) -> VerificationResult:
        """A misclassified point is its own counterexample at every epsilon."""
        point = ball.center.reshape(1, -1).astype(np.float64)
        return self._answered(ball, Answer(Verdict.FALSIFIED, DecidedBy.CLEAN, point), 0.0)

    def first_stages(
        self, sample: Sample
    ) -> Callable[[Sequence[Ball]], Iterator[tuple[Ball, VerificationResult | Again[Ball]]]]:
        """What the batched stages say of balls of the sample; those left open last, hardest first.

        These carry what is known of them by then.
        """

        stages = FirstStages(
            self.runtime,
            self.network,
            sample.inputs,
            sample.labels,
            sample.perturbation,
            self.attack,
        )

        def decided(
            balls: Sequence[Ball],
        ) -> Iterator[tuple[Ball, VerificationResult | Again[Ball]]]:
            still_open: list[tuple[float, Ball, Ball]] = []
            for epsilon in sorted({ball.epsilon for ball in balls}):
                at = {ball.row: ball for ball in balls if ball.epsilon == epsilon}
                for row, found in stages.run(list(at), epsilon):
                    if isinstance(found, Known):
                        least = float(found.lower.min())
                        still_open.append((least, at[row], replace(at[row], known=found)))
                    else:
                        seconds = sum(found.stage_seconds.values())
                        yield at[row], self._answered(at[row], found, seconds)
            for _, ball, with_known in sorted(still_open, key=lambda entry: entry[0]):
                yield ball, Again(with_known)

        return decided

    def key(self, ball: Ball) -> VerdictKey:
        """All that a verdict depends on."""
        engine = (
            f"{self.engine} v{ENGINE_VERSION} timeout {self.timeout_seconds:g} pgd "
            f"{self.attack.num_steps}x{self.attack.num_restarts} seed {self.attack.seed}"
        )
        if not self.prove_again:
            engine += " as a witness"
        prop = ball.robustness(self.perturbation, self.network.num_outputs)
        return VerdictKey(self.network.sha256, prop.sha256, engine)

    def solver(self) -> tuple[Callable[..., Callable[[Ball], Answer]], tuple[object, ...]]:
        """A process that runs the ladder."""
        arguments = (
            self.network,
            self.perturbation,
            self.engine,
            self.timeout_seconds,
            self.attack.seed,
            self.prove_again,
        )
        return LadderSolver, arguments

    def seconds(self, ball: Ball) -> float:
        """The same for every ball."""
        return self.timeout_seconds

    def judged(self, outcome: Outcome[Ball, Answer]) -> VerificationResult:
        """The record of a ball; the time of the batches before is its own as well."""
        ball = outcome.job
        seconds = outcome.seconds
        if ball.known is not None:
            seconds += sum(ball.known.stage_seconds.values())
        if outcome.answer is None:
            return unanswered(outcome, seconds)
        return self._answered(ball, outcome.answer, seconds)

    def stored(self, result: VerificationResult) -> StoredVerdict | None:
        """All that cannot be had from the ball itself."""
        if result.verdict is Verdict.ERROR:
            return None
        point = result.counterexample
        return StoredVerdict(
            result.verdict,
            result.decided_by,
            result.seconds,
            **{name: getattr(result, name) for name in STORED_FIELDS},
            points=None if point is None else point.astype(np.float64).reshape(1, -1),
        )

    def recalled(self, ball: Ball, known: StoredVerdict) -> VerificationResult | Again[Ball]:
        """What is stored; a stored counterexample must break the model again."""
        fields = {name: getattr(known, name) for name in STORED_FIELDS}
        if known.verdict is not Verdict.FALSIFIED:
            return ball.result(known.verdict, known.decided_by, known.seconds, **fields)
        if known.points is None:
            return Again(ball)
        claim = Answer(
            known.verdict, known.decided_by, known.points, stage_seconds=known.stage_seconds
        )
        result = self._answered(ball, claim, known.seconds)
        return result if result.verdict is Verdict.FALSIFIED else Again(ball)

    def _answered(self, ball: Ball, answer: Answer, seconds: float) -> VerificationResult:
        outputs = self.network.num_outputs
        return answered(self.runtime, self.perturbation, outputs, ball, answer, seconds)
