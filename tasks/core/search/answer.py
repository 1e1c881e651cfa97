"""What the ladder says of a property, and what one of its stages hands on to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.bounds.relaxations import Bounds
from tasks.core.verdicts import DecidedBy, Verdict, combine


@dataclass(frozen=True, eq=False)
class Answer:
    """What is known of a property.

    Attributes:
        verdict: `robust` (VNN-COMP `unsat`): no unsafe region is reached, in exact arithmetic for
            the float64 network. `falsified` (`sat`): the first candidate reaches one in float64.
        decided_by: the stage that gave the verdict, or the last one that tried.
        region: place in `Property.unsafe` of the region reached or left open.
        margin: with `robust`, the proved lower bound on the least excess over all regions.
        deployed: with `robust`, whether every region's bound exceeds the error of the network's
            float32 forward pass, so that it holds for the model as it is served.
        witness: `confirmed` with a proof of what Marabou had called `unsat` before.
        candidates: points, shape (n, inputs), to be replayed on the deployed model, best first.
        stage_seconds: by stage: attack, interval, crown, alpha_crown, branch_and_bound, marabou.
    """

    verdict: Verdict
    decided_by: DecidedBy
    candidates: FloatArray
    region: int | None = None
    margin: float | None = None
    deployed: bool | None = None
    witness: str = ""
    reason: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Known:
    """What stages before have shown of a property whose regions share one box.

    Attributes:
        lower: sound lower bounds on each region's least excess, (regions,); -inf where none is
            known.
        hidden: CROWN's bounds on the network's hidden layers over the box, batches of one, with
            which `lower` was found; None where nobody has computed them or they were not kept.
        stage_seconds: what those stages took.
    """

    lower: FloatArray
    hidden: Sequence[Bounds] | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)


def combined(answers: Sequence[Answer], num_inputs: int) -> Answer:
    """One answer for all boxes: the weakest; of proofs, the stage furthest down the ladder."""
    verdict = combine(answer.verdict for answer in answers)
    alike = [answer for answer in answers if answer.verdict is verdict]
    if not alike:
        nothing = np.empty((0, num_inputs))
        return Answer(verdict, DecidedBy.INTERVAL, nothing, reason="no unsafe region is given")
    if verdict is not Verdict.ROBUST:
        return alike[0]
    stages = list(DecidedBy)
    last = max(alike, key=lambda answer: stages.index(answer.decided_by))
    return replace(
        last,
        margin=min(answer.margin for answer in alike if answer.margin is not None),
        deployed=all(answer.deployed for answer in alike),
    )
