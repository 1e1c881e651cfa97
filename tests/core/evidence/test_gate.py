"""The rule of promotion at its edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.core.evidence.gate import GateEvidence, Judgement, judge, proved
from tasks.core.evidence.paired import least_significant_fall
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult

POINTS, IMAGES = 100, 1000


def evidence(clean: int, certified: int) -> GateEvidence:
    """The first `clean` images right, the first `certified` points proved."""
    return GateEvidence(np.arange(IMAGES) < clean, np.arange(POINTS) < certified)


def judged(challenger: GateEvidence, champion: GateEvidence) -> Judgement:
    return judge(challenger, champion, clean_margin=0.005, significance=0.05)


@pytest.mark.parametrize(
    ("clean", "accepted"), [(985, True), (980, True), (975, True), (974, False)]
)
def test_clean_accuracy_may_fall_by_the_margin_and_no_more(clean: int, accepted: bool) -> None:
    found = judged(evidence(clean, 50), evidence(980, 50))
    assert found.accepted is accepted
    assert ("clean accuracy falls by 0.60%" in found.reason) is not accepted


def test_certified_accuracy_may_fall_within_sampling_error_only() -> None:
    least = least_significant_fall(0.05)
    assert judged(evidence(980, 50 - least + 1), evidence(980, 50)).accepted
    refused = judged(evidence(980, 50 - least), evidence(980, 50))
    assert not refused.accepted
    assert f"certified accuracy falls by {least}.00% on the same 100 points" in refused.reason
    assert refused.unnoticed == least - 1


def test_a_fall_hidden_in_points_won_counts_as_error_of_sampling() -> None:
    champion = np.arange(POINTS) < 50
    challenger = np.arange(POINTS) >= 52  # loses 50, wins 48
    clean = np.ones(IMAGES, dtype=bool)
    found = judged(GateEvidence(clean, challenger), GateEvidence(clean, champion))
    assert found.accepted
    assert found.certified.value == pytest.approx(-0.02)


def test_a_class_that_is_predicted_no_more_is_a_fault() -> None:
    """Of 98 and 2 points, say: accuracy rises when the two are given up."""
    blind = replace(evidence(990, 60), never_predicted=("phishing",))
    refused = judged(blind, evidence(980, 50))
    assert not refused.accepted
    assert "class phishing is never predicted" in refused.reason
    assert judged(blind, replace(evidence(980, 50), never_predicted=("phishing",))).accepted
    assert judged(evidence(980, 50), blind).reason.startswith("clean accuracy falls")


def test_both_faults_are_named() -> None:
    reason = judged(evidence(900, 10), evidence(980, 50)).reason
    assert "clean accuracy falls by 8.00%" in reason
    assert "certified accuracy falls by 40.00%" in reason


def test_a_gain_is_accepted_and_told() -> None:
    found = judged(evidence(990, 80), evidence(980, 50))
    assert found.accepted
    assert "certified accuracy by +30.00% on the same 100 points (beyond" in found.reason


def test_proofs_that_count() -> None:
    """All of them, or those that hold for the float32 model; what is not robust never does."""
    results = [
        VerificationResult(index, 0, 0.1, verdict, DecidedBy.CROWN, 0.0, deployed=deployed)
        for index, (verdict, deployed) in enumerate(
            [
                (Verdict.ROBUST, True),
                (Verdict.ROBUST, False),
                (Verdict.ROBUST, None),
                (Verdict.FALSIFIED, None),
                (Verdict.UNKNOWN, None),
            ]
        )
    ]
    assert proved(results, deployed=False).tolist() == [True, True, True, False, False]
    assert proved(results, deployed=True).tolist() == [True, False, False, False, False]
