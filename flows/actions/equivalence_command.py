"""`certiflow verify --equivalent`: how far a new model's outputs are from the old one's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from flows.actions.head import write_json
from flows.actions.looking import check_samples, data_named
from flows.actions.verify_command import DEPLOYED, MEMORY_LIMIT_BYTES, Effort, model_path
from tasks import console
from tasks.core.data.datasets import stratified_sample
from tasks.core.errors import CertiflowError
from tasks.core.execution.asking import Resources
from tasks.core.execution.verdict_store import PROJECT_STORE, VerdictStore
from tasks.core.properties.box import Box
from tasks.core.properties.domain import told_above
from tasks.core.properties.equivalence import Equivalence
from tasks.core.queries.equivalence import EquivalenceResult, equivalences
from tasks.core.verdicts import Verdict

SHOWN = 12  # inputs of a difference on the screen; the file has all


@dataclass(frozen=True)
class Where:
    """A question, and which inputs it is about: a test point's index and a radius, or all."""

    asked: Equivalence
    words: str
    index: int | None = None
    epsilon: float | None = None


def within_box(delta: float, box: tuple[float, float]) -> list[Where]:
    """All inputs between two numbers."""
    lower, upper = (np.array([[bound]]) for bound in box)
    words = f"all inputs from {box[0]:g} to {box[1]:g}"
    return [Where(Equivalence(Box(lower, upper), delta), words)]


def of_data(
    delta: float,
    dataset: str,
    moves: dict[str, Any],
    epsilons: Sequence[float],
    samples: int | Literal["all"],
    seed: int,
) -> list[Where]:
    """All valid inputs of a dataset's kind, or those within each epsilon of its test points."""
    data = data_named(dataset, **moves).load()
    domain = data.model_domain
    shape = domain.shape
    if not epsilons:
        lower, upper = (
            np.broadcast_to(bound, domain.num_inputs)[None]
            for bound in (domain.lower, domain.upper)
        )
        asked = Equivalence(Box(lower, upper), delta, domain, shape)
        return [Where(asked, f"all {domain.noun}s like those of {dataset}")]
    check_samples("--samples", samples, data.name, data.extent)
    wrong = [epsilon for epsilon in epsilons if not 0 <= epsilon < np.inf]
    if wrong:
        raise CertiflowError(f"epsilon is {wrong[0]:g}: expected a number that is not negative")
    found = []
    count = len(data.test_labels) if samples == "all" else samples
    for index in stratified_sample(data.test_labels, count, seed).tolist():
        for epsilon in epsilons:
            boxes, _ = data.perturbation.boxes(data.test_inputs[index : index + 1], epsilon)
            size = domain.num_inputs
            ball = Box(boxes.lower[:, :size], boxes.upper[:, :size])
            words = f"test {domain.noun} {index}, epsilon {epsilon:g}"
            asked = Equivalence(ball, delta, domain, shape)
            found.append(Where(asked, words, index, epsilon))
    return found


def verify_equivalence(
    models: tuple[str, str],
    where: Sequence[Where],
    timeout: float,
    effort: Effort,
    json_file: Path | None,
) -> None:
    """Prints the verdict, or how many there are of each, and the greatest difference found.

    Raises `CertiflowError` where nothing could be asked.
    """
    old, new = models
    found = _asked({"old": model_path(old), "new": model_path(new)}, where, timeout, effort)
    delta = where[0].asked.delta
    rows = [
        {"inputs": place.words, "index": place.index, "epsilon": place.epsilon} | asdict(result)
        for place, result in zip(where, found, strict=True)
    ]
    write_json(json_file, {"old": old, "new": new, "delta": delta, "results": rows})
    errors = [result for result in found if result.verdict is Verdict.ERROR]
    if len(errors) == len(found):
        raise CertiflowError(errors[0].reason)
    if len(found) == 1:
        print(found[0].verdict)
        _say(where[0], found[0], delta)
        return
    Console(highlight=False).print(_summary(found))
    greatest = max(found, key=lambda result: result.difference.by if result.difference else 0.0)
    if greatest.difference is not None:
        _say(where[found.index(greatest)], greatest, delta)


def _asked(
    models: dict[str, Path], where: Sequence[Where], timeout: float, effort: Effort
) -> list[EquivalenceResult]:
    with console.stage("verify", len(where)) as progress, VerdictStore(PROJECT_STORE) as store:
        counts: Counter[Verdict] = Counter()

        def on_result(result: EquivalenceResult) -> None:
            counts[result.verdict] += 1
            progress.advance(note=", ".join(f"{counts[v]} {v}" for v in Verdict if counts[v]))

        return equivalences(
            models,
            [place.asked for place in where],
            timeout,
            Resources(effort.num_workers, MEMORY_LIMIT_BYTES, effort.cluster),
            engine=effort.engine,
            seed=effort.seed,
            store=store,
            fresh=effort.fresh,
            on_result=on_result,
        )


def _say(where: Where, result: EquivalenceResult, delta: float) -> None:
    """What the verdict means, for people."""
    found = result.difference
    if found is not None:
        shown = ", ".join(f"{value:.9g}" for value in found.input[:SHOWN])
        rest = ", …" if len(found.input) > SHOWN else ""
        _print(
            f"{where.words}: output {found.output} is {found.old[found.output]:.9g} in the old "
            f"model and {found.new[found.output]:.9g} in the new one, {found.by:.6g} apart, at "
            f"({shown}{rest})"
        )
    elif result.moves_less_than is not None:
        _print(
            f"{where.words}: every output moves by less than "
            f"{told_above(result.moves_less_than, 6)}, at most {delta:g}{DEPLOYED[result.deployed]}"
        )
    stage = "" if result.decided_by is None else f"{result.decided_by}, {result.seconds:.2f} s"
    reason = f", {result.reason}" if result.reason else ""
    stored = f", known from {PROJECT_STORE} (--fresh computes it again)" if result.stored else ""
    _print(f"{stage}{reason}{stored}".lstrip(", "))


def _print(text: str) -> None:
    console.console.print(text, markup=False, soft_wrap=True)


def _summary(found: Sequence[EquivalenceResult]) -> Table:
    table = Table(title=f"{len(found)} questions", title_justify="left")
    for column in ("verdict", "questions", "of them deployed", "moves at most"):
        table.add_column(column, justify="left" if column == "verdict" else "right")
    for verdict in Verdict:
        those = [result for result in found if result.verdict is verdict]
        if those:
            moves = [
                result.difference.by if result.difference else result.moves_less_than
                for result in those
            ]
            known = [each for each in moves if each is not None]
            table.add_row(
                str(verdict),
                str(len(those)),
                str(sum(bool(result.deployed) for result in those)),
                told_above(max(known), 6) if known else "",
            )
    return table
