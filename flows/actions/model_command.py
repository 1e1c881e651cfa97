"""`certiflow verify --data`, `radius` and `global-robustness`: the flow, and what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.actions.head import end
from flows.actions.looking import look_at_model
from flows.actions.summary import short, show_verdicts
from flows.processes.session import prefect_api
from tasks.core.properties.domain import told_above
from tasks.presentation.records import ModelSummary
from tasks.tracking import way_to

MOST_TOLD = 5  # features of a pair on the screen; the table has all


def ask(
    model: str,
    data: dict[str, Any],
    seed: int,
    sections: dict[str, Any],
    *,
    fresh: bool,
    json: Path | None,
) -> None:
    """Runs the flow for the `sections` of `ModelSettings` asked, once model and data are seen."""
    settings, file = look_at_model(model, data, seed, sections)
    with prefect_api("flows.model_robustness"):
        from flows.model_robustness import model_flow

        summary = model_flow(settings, file, fresh)
    end(summary, json, show)


def show(summary: ModelSummary) -> None:
    """Prints what was found to stdout."""
    console = Console(highlight=False)
    console.print(f"[bold]{summary.dataset}[/]  {summary.model}")
    if summary.verification:
        show_verdicts(console, summary.verification)
    if summary.radius:
        console.print(_radii(summary.radius))
    if summary.global_robustness:
        console.print(_differences(summary.global_robustness))
        said = _greatest_change(summary.global_robustness)
        if said:
            console.print(said, soft_wrap=True, markup=False)
    console.print(f"files       {short(summary.folder)}", soft_wrap=True, markup=False)
    console.print(f"look        {way_to(summary.url)}", soft_wrap=True, markup=False)


def _radii(rows: list[dict[str, Any]]) -> Table:
    labels = sorted({int(row["label"]) for row in rows})
    if len(labels) == 1:  # of numbers, or of few points: the same as all
        labels = []
    title = "Critical radius by class" if labels else "Critical radius"
    table = Table(title=title, title_justify="left")
    for column in ("class" if labels else "", "points", "proved (mean)", "falsified (mean)"):
        table.add_column(column, justify="right")
    table.add_column("complete", justify="right")
    for name, members in (
        *((str(label), [row for row in rows if row["label"] == label]) for label in labels),
        ("all", rows),
    ):
        count = len(members)
        proved = sum(row["proved"] for row in members) / count
        falsified = sum(row["falsified"] for row in members) / count
        complete = sum(bool(row["complete"]) for row in members)
        table.add_row(name, str(count), f"{proved:.4f}", f"{falsified:.4f}", str(complete))
    return table


def _differences(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="How much a score can change", title_justify="left")
    for column in ("class", "verdict", "found", "proved below", "decided by", "seconds"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["class"],
            row["verdict"],
            f"{row['largest_difference']:.4f}",
            told_above(row["epsilon_proved"], 4),
            row["decided_by"],
            f"{row['seconds']:.1f}",
        )
    return table


def _greatest_change(rows: list[dict[str, Any]]) -> str:
    """Of a table, the pair of the greatest change found, in words: what moves farthest in it."""
    row = max(rows, key=lambda row: row["largest_difference"])
    if not row["pair"]:
        return ""
    moves = row["pair"].split("; ")
    rest = [f"{len(moves) - MOST_TOLD} more"] if len(moves) > MOST_TOLD else []
    said = "; ".join(moves[:MOST_TOLD] + rest)
    return (
        f"greatest change: the score of {row['class']} by {row['largest_difference']:.4f}: {said}"
    )
