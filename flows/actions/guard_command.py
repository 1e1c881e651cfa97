"""What `certiflow guard-evaluate` prints at its end, and a second look at what a guard stored."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from flows.actions.head import write_json
from flows.actions.summary import short
from tasks.core.errors import CertiflowError
from tasks.core.guard import bundle
from tasks.core.guard.escalation import Escalation, Question
from tasks.core.guard.flagged import FlaggedStore, digest_of
from tasks.core.verdicts import Verdict
from tasks.tracking import download_guard_files, version_meant, way_to

if TYPE_CHECKING:
    from tasks.guarding.evaluation import GuardSummary


def verify_flagged(digest: str, place: str, timeout: float, json: Path | None) -> None:
    """Asks the ladder again about an input that a guard stored, with more time.

    Raises:
        CertiflowError: there is no such input, or its version is gone.
    """
    if "://" not in place and not Path(place).is_file():
        raise CertiflowError(f"{place}: no such store; name that of the guard with --store")
    with closing(FlaggedStore(place)) as store:
        found = store.find(digest)
    if found is None:
        raise CertiflowError(f"{digest}: {place} has no input whose digest begins so")
    point, _, epsilon, title = found
    version = version_meant(title)
    with tempfile.TemporaryDirectory() as folder:
        read = bundle.read(download_guard_files(version, Path(folder)))
    description, perturbation = read.description, read.description.perturbation
    point = point.reshape(description.shape)
    label = int(read.certificate.certified(point[None], [epsilon]).labels[0])
    with closing(Escalation(read.network, perturbation, 1, 1)) as escalation:
        answer = escalation.submit(Question(point, label, epsilon, timeout)).result()
    other, moves = answer.counterexample, list[str]()
    if other is not None and perturbation.domain.is_table:
        moves = list(perturbation.domain.moves(point, other))
    told: dict[str, Any] = {
        "digest": digest_of(point),
        "version": title,
        "epsilon": epsilon,
        "class": description.class_names[label],
        "verdict": answer.verdict.value,
        "decided_by": answer.decided_by.value,
        "margin": answer.margin,
        "seconds": answer.seconds,
        "moves": moves,
    }
    write_json(json, told)
    word = {Verdict.ROBUST: "proved", Verdict.FALSIFIED: "broken"}.get(answer.verdict, "open")
    out = Console(highlight=False)
    out.print(
        f"{title}: {told['class']} is {word} at epsilon {epsilon:g} by {answer.decided_by}, "
        f"{answer.seconds:.2f} s",
        soft_wrap=True,
        markup=False,
    )
    for move in moves:
        out.print(f"  {move}", soft_wrap=True, markup=False)


def show(summary: GuardSummary) -> None:
    """Prints what was found to stdout."""
    from tasks.guarding.evaluation import denied, seen

    out, clean = Console(highlight=False), summary.clean
    out.print(f"[bold]{summary.model}[/]  guarded at epsilon {summary.epsilon:g}")
    out.print(
        f"clean inputs: {clean['accepted']:.2%} accepted "
        f"({clean['accepted_by_intervals']:.2%} by intervals), "
        f"{clean['accepted_wrong']:.2%} accepted and wrong, "
        f"{clean['guaranteed_service']:.2%} guaranteed service",
        soft_wrap=True,
    )
    out.print(f"an accepted wrong answer lies {summary.evasion_distance:g} away (proved, median)")
    table = Table(title="Attacks", title_justify="left")
    for column in ("attack", "radius", "attempts", "mislabelled", "accepted and wrong"):
        table.add_column(column, justify="right")
    for row in summary.attacks:
        table.add_row(
            row["attack"],
            f"{row['radius']:g}",
            f"{row['attempts']:,}",
            f"{row['mislabelled']:,}",
            f"{row['accepted_adversarial']} of {row['points']}",
        )
    out.print(table)
    others = Table(title="Other detectors, at the same clean flag rate", title_justify="left")
    for column in ("detector", "evaded, blind", "evaded, adaptive"):
        others.add_column(column, justify="right")
    for row in summary.baselines:
        count = row["points"]
        others.add_row(
            row["detector"], f"{row['blind']} of {count}", f"{row['adaptive']} of {count}"
        )
    out.print(others)
    out.print(f"denied      {denied(summary)}", soft_wrap=True)
    strangers = ", ".join(f"{name} {share:.1%}" for name, share in summary.strangers.items())
    out.print(f"strangers   accepted: {strangers}", soft_wrap=True)
    out.print(f"drift       {seen(summary)}", soft_wrap=True, markup=False)
    out.print(f"files       {short(summary.folder)}", soft_wrap=True, markup=False)
    out.print(f"look        {way_to(summary.url)}", soft_wrap=True, markup=False)
