"""Doubts about proofs: PGD on what Marabou proved, Marabou on what the ladder proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from tasks.core.errors import ContradictionError
from tasks.core.models.runtimes import Classifier, Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.verdicts import WITNESSED_ONLY, DecidedBy, Verdict, VerificationResult
from tasks.core.verification.ball_jobs import job_for, run_ladder, solved
from tasks.core.verification.ball_sample import AttackStrength, Sample, SolverLimits


def attack_proofs(
    runtime: Runtime,
    sample: Sample,
    results: Sequence[VerificationResult],
    attack: AttackStrength,
) -> None:
    """Attacks every ball that went to Marabou first: the others were attacked before."""
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
        attacked = attack.pgd(runtime, sample.images[rows], sample.labels[rows], epsilon)
        for row in rows[attacked.broken]:
            index = int(sample.indices[row])
            by = next(
                c.decided_by for c in claims if (c.sample_index, c.epsilon) == (index, epsilon)
            )
            raise _contradiction(index, epsilon, str(by), "PGD breaks it")


def witnessed(
    runtime: Runtime,
    network: ReluNetwork,
    sample: Sample,
    results: Sequence[VerificationResult],
    limits: SolverLimits,
    seed: int,
    share: float,
) -> list[VerificationResult]:
    """The results, a seeded share of the ladder's own proofs marked with what Marabou says.

    It confirms by `unsat`, which alone would not always be a proof.
    """
    row_of = {int(index): row for row, index in enumerate(sample.indices)}
    claims = sorted(  # results come in any order, which must not change what is chosen
        (
            r
            for r in results
            if r.verdict is Verdict.ROBUST and r.decided_by is not DecidedBy.MARABOU
        ),
        key=lambda result: (result.sample_index, result.epsilon),
    )
    count = int(np.ceil(share * len(claims)))
    chosen = np.random.default_rng(seed).choice(len(claims), size=count, replace=False)
    asked: Mapping[tuple[int, float], VerificationResult] = {
        (claims[index].sample_index, claims[index].epsilon): claims[index] for index in chosen
    }
    nothing = np.full(network.num_outputs - 1, -np.inf)
    jobs = [
        job_for(sample, np.intp(row_of[index]), epsilon, nothing, "marabou", prove_again=False)
        for index, epsilon in asked
    ]
    said: dict[tuple[int, float], str] = {}
    with closing(run_ladder(network, jobs, limits, seed)) as outcomes:
        for outcome in outcomes:
            answer = solved(runtime, network, sample, outcome)
            key = (answer.sample_index, answer.epsilon)
            if answer.verdict is Verdict.FALSIFIED:
                raise _contradiction(*key, str(asked[key].decided_by), "Marabou breaks it")
            confirmed = answer.verdict is Verdict.ROBUST or answer.reason == WITNESSED_ONLY
            said[key] = "confirmed" if confirmed else "undecided"
    return [
        replace(result, witness=said.get((result.sample_index, result.epsilon), ""))
        for result in results
    ]


def _contradiction(index: int, epsilon: float, prover: str, breaker: str) -> ContradictionError:
    return ContradictionError(
        f"sample {index}: {prover} proved it robust at epsilon {epsilon:g}, yet {breaker}: "
        "this is a defect; please report it with the run's artifacts"
    )
