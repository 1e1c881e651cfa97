"""Whether two models are equivalent: a retrained or quantised one moves by at most delta.

Paulsen et al. 2020 ("ReluDiff: Differential Verification of Deep Neural Networks") ask the same of
feed-forward networks; here it is a property of both, of which linear bounds see the difference (see
`twin`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from tasks.core.execution.asking import Resources
from tasks.core.execution.verdict_store import VerdictStore
from tasks.core.properties.equivalence import Equivalence
from tasks.core.queries.properties import Instance, verify_instances
from tasks.core.queries.property_solver import VERDICTS, InstanceResult
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Engine, Verdict


@dataclass(frozen=True)
class Difference:
    """An input, and what both models as deployed give there.

    `output` is the one that differs most, by `by`.
    """

    output: int
    by: float
    input: tuple[float, ...]
    old: tuple[float, ...]
    new: tuple[float, ...]


@dataclass(frozen=True)
class EquivalenceResult:
    """The answer.

    Attributes:
        verdict: `robust`: every output moves by less than `moves_less_than`, at most delta.
            `falsified`: that of `difference` moves by more than delta.
        deployed: with `robust`, whether that holds of the deployed float32 models as well.
        decided_by, seconds, reason, stage_seconds, stored: as in `InstanceResult`.
    """

    verdict: Verdict
    decided_by: DecidedBy | None
    seconds: float
    moves_less_than: float | None = None
    difference: Difference | None = None
    deployed: bool | None = None
    reason: str = ""
    stored: bool = False


def equivalences(
    models: Mapping[str, Path],
    asked: Sequence[Equivalence],
    timeout_seconds: float,
    resources: Resources,
    *,
    engine: Engine,
    seed: int,
    store: VerdictStore | None,
    fresh: bool,
    on_result: Callable[[EquivalenceResult], None] = lambda result: None,
) -> list[EquivalenceResult]:
    """An answer for each question about two models, the old and the new one by their names.

    Raises:
        CertiflowError: as `verify_instances`.
    """
    instances = [Instance(models, each, timeout_seconds) for each in asked]

    def arrived(index: int, result: InstanceResult) -> None:
        on_result(_answer(result, asked[index]))

    found = verify_instances(
        instances,
        resources,
        engine=engine,
        seed=seed,
        store=store,
        fresh=fresh,
        on_result=arrived,
    )
    return [_answer(result, each) for result, each in zip(found, asked, strict=True)]


def _answer(result: InstanceResult, asked: Equivalence) -> EquivalenceResult:
    """A `sat` is of outputs that differ by delta at least: exactly delta falsifies nothing."""
    answer = EquivalenceResult(
        VERDICTS[result.verdict],
        result.decided_by,
        result.seconds,
        deployed=result.deployed,
        reason=result.reason,
        stored=result.stored,
    )
    if result.margin is not None:
        less = np.nextafter(asked.delta - result.margin, np.inf)
        is_empty = asked.domain is not None and asked.domain.excludes(asked.boxes).all()
        if is_empty or less <= 0:  # of no input at all is everything proved
            return replace(answer, reason=answer.reason or "there is no valid input")
        return replace(answer, moves_less_than=float(min(less, asked.delta)))
    if result.counterexample is None:
        return answer
    difference = _difference(result.counterexample)
    a, b = (Fraction(side[difference.output]) for side in (difference.old, difference.new))
    if abs(a - b) > Fraction(asked.delta):
        return replace(answer, difference=difference)
    return replace(answer, verdict=Verdict.UNKNOWN, reason=NEAR_BOUNDARY)


def _difference(counterexample: Mapping[str, Sequence[float]]) -> Difference:
    """Of inputs and outputs of both models, one after the other; both have the same input."""
    x = counterexample["X"][: len(counterexample["X"]) // 2]
    old, new = np.split(np.array(counterexample["Y"]), 2)
    apart = np.abs(old - new)
    output = int(apart.argmax())
    return Difference(output, float(apart[output]), tuple(x), (*old.tolist(),), (*new.tolist(),))
