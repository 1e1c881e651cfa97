"""Marabou's word on the proofs of other stages: which are asked about, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import ContradictionError
from tasks.core.execution import asking
from tasks.core.execution.asking import Resources
from tasks.core.execution.verdict_store import VerdictStore
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.search.first_stages import AttackStrength
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult
from tasks.core.verification.balls import Sample
from tasks.core.verification.cross_checks import to_be_witnessed, witnessed
from tasks.core.verification.local_robustness import LocalRobustness
from tests.networks import hand_computed, pixels
from tests.one_process import outcomes_here

RESOURCES = Resources(num_workers=1, memory_limit_bytes=2**31)
IMAGES = np.array([[0.25, 0.25], [0.75, 0.5]], dtype=np.float32)
SAMPLE = Sample(np.array([4, 9]), IMAGES, np.array([0, 0]), pixels(IMAGES))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "outcomes", outcomes_here)


def question() -> LocalRobustness:
    network = hand_computed()
    attack = AttackStrength(num_steps=1, num_restarts=1, seed=0)
    return LocalRobustness(
        NumpyRuntime(network),
        network,
        SAMPLE.perturbation,
        "marabou",
        5.0,
        attack,
        prove_again=False,
    )


def proof(index: int, epsilon: float) -> VerificationResult:
    return VerificationResult(index, 0, epsilon, Verdict.ROBUST, DecidedBy.CROWN, 0.0)


def test_a_seeded_share_of_the_proofs_that_marabou_has_not_seen() -> None:
    proofs = [proof(index, epsilon) for index in range(10) for epsilon in (0.1, 0.2)]
    others = [
        replace(proof(90, 0.1), verdict=Verdict.UNKNOWN),
        replace(proof(91, 0.1), decided_by=DecidedBy.MARABOU),
        replace(proof(92, 0.1), witness="confirmed"),
    ]
    chosen = to_be_witnessed([*proofs, *others], 0.12, seed=3)
    assert len(chosen) == 3  # a tenth and a bit of twenty, rounded up
    assert all(claim in proofs for claim in chosen)
    again = to_be_witnessed([*others, *reversed(proofs)], 0.12, seed=3)
    assert [(c.sample_index, c.epsilon) for c in chosen] == [
        (c.sample_index, c.epsilon) for c in again
    ]
    assert to_be_witnessed(proofs, 0.0, seed=3) == []
    assert len(to_be_witnessed([*proofs, *others], 1.0, seed=3)) == len(proofs)


def test_what_marabou_says_is_noted_beside_the_proof(tmp_path: Path) -> None:
    """Class 0 wins by 2/3 and more around both points."""
    results = [proof(4, 0.05), proof(9, 0.05), proof(9, 0.1)]
    said: list[str] = []
    with VerdictStore(tmp_path / "verdicts.db") as store:
        found, stored = (
            witnessed(
                question(),
                SAMPLE,
                results,
                results[1:],
                RESOURCES,
                store=store,
                on_witness=said.append,
            )
            for _ in range(2)
        )
    assert said == ["confirmed"] * 4
    assert [result.witness for result in found] == ["", "confirmed", "confirmed"]
    assert found[0] is results[0]
    for ours, claim in zip(found[1:], results[1:], strict=True):
        assert (ours.sample_index, ours.epsilon) == (claim.sample_index, claim.epsilon)
        assert (ours.verdict, ours.decided_by) == (Verdict.ROBUST, DecidedBy.CROWN)
    assert [r.witness for r in stored] == [r.witness for r in found]
    assert [r.witness_seconds for r in stored] == [r.witness_seconds for r in found]


def test_what_it_cannot_say_in_time_is_undecided() -> None:
    results = [proof(4, 0.05)]
    late = replace(question(), timeout_seconds=0.0)
    (found,) = witnessed(late, SAMPLE, results, results, RESOURCES)
    assert (found.verdict, found.witness) == (Verdict.ROBUST, "undecided")


def test_a_proof_that_marabou_breaks_stops_the_run() -> None:
    """Class 1 is said to win, where class 0 does."""
    sample = Sample(SAMPLE.indices, IMAGES, np.array([1, 1]), pixels(IMAGES))
    false = [replace(proof(4, 0.05), label=1)]
    with pytest.raises(ContradictionError, match=r"sample 4: crown proved.* yet Marabou breaks it"):
        witnessed(question(), sample, false, false, RESOURCES)
