"""What a guarded service answers: a label, and whether it is proved around the request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tasks.core.arrays import Float32Array


class Decision(StrEnum):
    """What became of a request. Only `accepted` carries a proof."""

    ACCEPTED = "accepted"  # no valid input within epsilon has another label
    FLAGGED = "flagged"  # the label is told, and is not to be relied on
    ABSTAINED = "abstained"  # no label
    FELL_BACK = "fell_back"  # the label is that of another version
    QUEUED = "queued"  # no label; kept for a person


# Who decided, besides the ladder's stages.
CERTIFICATE, BUDGET, QUEUE = "interval", "budget", "queue"
GRADES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of epsilon, at which certificates are graded


def graded(epsilon: float) -> tuple[float, ...]:
    """At which certificates are graded, ascending; epsilon is one."""
    return tuple(epsilon * grade for grade in GRADES)


@dataclass(frozen=True, eq=False)
class Answer:
    """Of one input.

    Attributes:
        label: as it is told; None where it is withheld.
        served: the version's own label.
        certified_radius: the greatest of the service's radii up to which the label is proved; 0 of
            another version's.
        decided_by: a stage of the ladder; `budget` or `queue` where there was no time for it.
        margin: the proved least margin at epsilon, or what bounds it from below.
        counterexample: a valid input within epsilon that has another label.
    """

    label: int | None
    served: int
    decision: Decision
    certified_radius: float
    decided_by: str
    margin: float
    counterexample: Float32Array | None = None

    def row(self, class_names: Sequence[str]) -> dict[str, Any]:
        """The guarded columns."""
        return {
            "label": self.label,
            "class": None if self.label is None else class_names[self.label],
            "decision": self.decision.value,
            "certified_radius": self.certified_radius,
            "decided_by": self.decided_by,
            "margin": self.margin,
        }
