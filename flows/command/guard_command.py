"""What `certiflow guard-evaluate` prints at its end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from flows.command.summary import short
from tasks.guard_evaluation import GuardSummary
from tasks.tracking import way_to


def show(summary: GuardSummary) -> None:
    """Prints what was found to stdout."""
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
    denied = ", ".join(f"{share:.1%} at {radius:g}" for radius, share in summary.denial.items())
    out.print(f"denied      {denied}", soft_wrap=True)
    strangers = ", ".join(f"{name} {share:.1%}" for name, share in summary.strangers.items())
    out.print(f"strangers   accepted: {strangers}", soft_wrap=True)
    out.print(f"files       {short(summary.folder)}", soft_wrap=True, markup=False)
    out.print(f"look        {way_to(summary.url)}", soft_wrap=True, markup=False)
