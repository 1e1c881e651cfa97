"""Whether a challenger may take the champion's place: the rule, on both models' evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import Mask
from tasks.core.evidence.paired import Difference, least_significant_fall, share_difference
from tasks.core.verdicts import Verdict, VerificationResult


@dataclass(frozen=True, eq=False)
class GateEvidence:
    """What holds of one model at the gate.

    Attributes:
        clean: right on each point of the whole test set, (n,).
        certified: right, and proved robust at the reference radius, on each sampled point, (m,);
            see `proved`.
        never_predicted: names of the classes that no point of the test set is given.
    """

    clean: Mask
    certified: Mask
    never_predicted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """The rule's outcome, with the numbers that it rests on; differences are new minus old."""

    accepted: bool
    reason: str
    clean: Difference
    certified: Difference
    unnoticed: int  # so many points might have been lost without being noticed


def proved(results: Sequence[VerificationResult], *, deployed: bool) -> Mask:
    """Which points are proved robust; if `deployed`, also for the float32 model as it is served."""
    return np.array(
        [
            result.verdict is Verdict.ROBUST and (not deployed or result.deployed is True)
            for result in results
        ]
    )


def judge(
    challenger: GateEvidence, champion: GateEvidence, *, clean_margin: float, significance: float
) -> Judgement:
    """Accepts unless clean accuracy falls by more than the margin, certified accuracy falls, or a
    class is predicted no more.

    A fall of certified accuracy counts when it is beyond sampling error: exact McNemar on the same
    points. Both models must have been evaluated on the same test set and points.
    """
    clean = share_difference(challenger.clean, champion.clean, significance)
    certified = share_difference(challenger.certified, champion.certified, significance)
    # As whole points: 0.005 of 1,000 is 5.000000000000001 in floating point.
    lost = -round(clean.value * clean.points)
    faults = []
    if lost > clean_margin * clean.points * (1 + 1e-9):
        faults.append(
            f"clean accuracy falls by {lost / clean.points:.2%}, more than the margin of "
            f"{clean_margin:.2%}"
        )
    if certified.significant and certified.value < 0:
        faults.append(
            f"certified accuracy falls by {-certified.value:.2%} on the same {certified.points} "
            f"points, beyond sampling error ({certified.method}, p = {certified.p_value:.2g})"
        )
    lost_classes = sorted({*challenger.never_predicted} - {*champion.never_predicted})
    if lost_classes:
        faults.append(f"class {', '.join(lost_classes)} is never predicted")
    return Judgement(
        accepted=not faults,
        reason="; ".join(faults) or _why_accepted(clean, certified),
        clean=clean,
        certified=certified,
        unnoticed=min(least_significant_fall(significance) - 1, certified.points),
    )


def _why_accepted(clean: Difference, certified: Difference) -> str:
    beyond = "beyond" if certified.significant else "within"
    return (
        f"clean accuracy changes by {clean.value:+.2%}, certified accuracy by "
        f"{certified.value:+.2%} on the same {certified.points} points ({beyond} sampling error, "
        f"{certified.method}, p = {certified.p_value:.2g})"
    )
