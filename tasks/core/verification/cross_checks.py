"""Doubts about proofs: PGD on what Marabou proved, Marabou on what the ladder proved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from tasks.core.errors import ContradictionError
from tasks.core.execution.asking import Question, Resources, answers
from tasks.core.execution.verdict_store import VerdictStore
from tasks.core.models.runtimes import Classifier, Runtime
from tasks.core.search.answer import Answer
from tasks.core.search.first_stages import AttackStrength
from tasks.core.verdicts import WITNESSED_ONLY, DecidedBy, Verdict, VerificationResult
from tasks.core.verification.balls import Ball, Sample


def attack_proofs(
    runtime: Runtime,
    sample: Sample,
    results: Sequence[VerificationResult],
    attack: AttackStrength,
) -> None:
    """Attacks every ball that went to Marabou first: the others were attacked before.

    Raises:
        ContradictionError: the attack breaks what was proved.
    """
    if not isinstance(runtime, Classifier):
        return
    row_of = {int(index): row for row, index in enumerate(sample.indices)}
    claims = [
        r
        for r in results
        if r.verdict is Verdict.ROBUST and (r.decided_by is DecidedBy.MARABOU or r.witness)
    ]
    for epsilon in {claim.epsilon for claim in claims}:
        rows = np.array([row_of[c.sample_index] for c in claims if c.epsilon == epsilon])
        attacked = attack.pgd(
            runtime, sample.inputs[rows], sample.labels[rows], sample.perturbation, epsilon
        )
        for row in rows[attacked.broken]:
            index = int(sample.indices[row])
            by = next(
                c.decided_by for c in claims if (c.sample_index, c.epsilon) == (index, epsilon)
            )
            raise _contradiction(index, epsilon, str(by), "PGD breaks it")


def to_be_witnessed(
    results: Sequence[VerificationResult], share: float, seed: int
) -> list[VerificationResult]:
    """A seeded share of the proofs of which Marabou has said nothing yet, rounded up."""
    claims = sorted(  # results come in any order, which must not change what is chosen
        (
            r
            for r in results
            if r.verdict is Verdict.ROBUST
            and r.decided_by is not DecidedBy.MARABOU
            and not r.witness
        ),
        key=lambda result: (result.sample_index, result.epsilon),
    )
    count = int(np.ceil(share * len(claims)))
    chosen = np.random.default_rng(seed).choice(len(claims), size=count, replace=False)
    return [claims[index] for index in chosen]


def witnessed(
    question: Question[Ball, Answer, VerificationResult],
    sample: Sample,
    results: Sequence[VerificationResult],
    asked: Sequence[VerificationResult],
    resources: Resources,
    *,
    store: VerdictStore | None = None,
    fresh: bool = False,
    on_witness: Callable[[str], None] = lambda word: None,
) -> list[VerificationResult]:
    """The results, those `asked` about marked with what Marabou says, and what that took.

    `question` is asked of Marabou, and does not prove again: it confirms by `unsat`, which alone
    would not always be a proof. `on_witness` hears `confirmed` or `undecided` of each as it comes.

    Raises:
        ContradictionError: Marabou finds a point that breaks what was proved.
    """
    claims = {(claim.sample_index, claim.epsilon): claim for claim in asked}
    balls = [
        ball
        for ball in sample.balls(sorted({claim.epsilon for claim in asked}))
        if (ball.sample_index, ball.epsilon) in claims
    ]
    marked: dict[tuple[int, float], VerificationResult] = {}
    with closing(answers(question, balls, resources, store=store, fresh=fresh)) as said:
        for ball, answer in said:
            key = (ball.sample_index, ball.epsilon)
            if answer.verdict is Verdict.FALSIFIED:
                raise _contradiction(*key, str(claims[key].decided_by), "Marabou breaks it")
            is_confirmed = answer.verdict is Verdict.ROBUST or answer.reason == WITNESSED_ONLY
            word = "confirmed" if is_confirmed else "undecided"
            marked[key] = replace(claims[key], witness=word, witness_seconds=answer.seconds)
            on_witness(word)
    return [marked.get((result.sample_index, result.epsilon), result) for result in results]


def _contradiction(index: int, epsilon: float, prover: str, breaker: str) -> ContradictionError:
    return ContradictionError(
        f"sample {index}: {prover} proved it robust at epsilon {epsilon:g}, yet {breaker}: "
        "this is a defect; please report it with the run's artifacts"
    )
