"""What a guarded service answers: a label, and whether it is proved around the request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tasks.core.arrays import Float32Array


class Decision(StrEnum):
    """What became of a request. Only `accepted` carries a proof."""

    ACCEPTED = "accepted"  # no valid input within epsilon has another label
    FLAGGED = "flagged"  # the label is told, and is not to be relied on
    ABSTAINED = "abstained"  # no label
    FELL_BACK = "fell_back"  # the label is that of another version
    QUEUED = "queued"  # no label; kept for a person


CERTIFICATE, BUDGET, QUEUE = (
    "interval",
    "budget",
    "queue",
)  # who decided, besides the ladder's stages


@dataclass(frozen=True, eq=False)
class Answer:
    """Of one input.

    Attributes:
        label: as it is told; None where it is withheld.
        served: the version's own label.
        certified_radius: the greatest of the service's radii up to which the label is proved.
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
