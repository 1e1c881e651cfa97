"""The last screen of a run: what was found, and where to look next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks.core.evidence.sampling import CONFIDENCE, DRAWN
from tasks.core.verdicts import VERDICT_COLUMNS
from tasks.presentation.descriptions import of_exact, of_measures, of_radius, of_share, witnesses
from tasks.presentation.records import Summary
from tasks.settings import decimal
from tasks.tracking import way_to

SELDOM = ("timeout", "error")  # columns that are shown where there is one


def show(summary: Summary) -> None:
    """Prints the tables to stdout."""
    console = Console(highlight=False)
    console.print()
    console.print(
        f"[bold]{summary.dataset} {summary.architecture}[/]  clean accuracy "
        f"[bold]{summary.clean_accuracy:.2%}[/]"
    )
    if measures := of_measures(summary):
        console.print(measures, markup=False)
    if summary.dataset != summary.dataset_requested:
        console.print(
            f"[bold yellow]{summary.dataset_requested} could not be had: "
            f"this is {summary.dataset}[/]"
        )
    for warning in summary.warnings:
        console.print(f"WARNING  {warning}", style="bold yellow", markup=False)
    console.print(_attacks(summary))
    show_verdicts(console, summary.verification)
    if summary.median_radius is not None:
        console.print(of_radius(summary.radius_points, *summary.median_radius))
    if summary.properties:
        _show_properties(console, summary.properties)
    if summary.reference:
        console.print(_reference(summary))
    where = {
        "figure": short(summary.figure),
        "files": short(summary.folder),
        "MLflow run": summary.run_name,
        "model": f"certiflow-{summary.dataset} version {summary.model_version}"
        + (", the first: champion" if summary.champion else ""),
        "look": way_to(summary.url),
    }
    for name, value in where.items():
        console.print(f"{name:<10}  {value}", soft_wrap=True, markup=False)


def _attacks(summary: Summary) -> Table:
    whose = "" if summary.positive is None else f"; recall of {summary.positive}"
    title = f"Accuracy, all {summary.test_images:,} test {summary.noun}s{whose}"
    table = Table(title=title, title_justify="left")
    names = {"fgsm": "under FGSM", "pgd": "under PGD", "certified": "proved by bounds"}
    if any("exact_accuracy" in row for row in summary.epsilon_grid):
        names["exact"] = "exact"
    for column in ("epsilon", *names.values()):
        table.add_column(column, justify="right")
    for row in summary.epsilon_grid:
        table.add_row(decimal(row["epsilon"]), *(_of_attack(row, name) for name in names))
    return table


def _of_attack(row: dict[str, float], name: str) -> str:
    if f"{name}_accuracy" not in row:  # the radius was not verified
        return ""
    recall = row.get(f"{name}_recall")
    return f"{row[f'{name}_accuracy']:.2%}" + ("" if recall is None else f"; {recall:.2%}")


def show_verdicts(console: Console, verification: list[dict[str, Any]]) -> None:
    """One row per radius: how many points got which verdict, and what is proved."""
    console.print(_verdicts(verification))
    is_exact = "exact_accuracy" in verification[0]
    console.print(of_exact(verification) if is_exact else f"The sample is {DRAWN}.")
    for line in witnesses(verification):
        console.print(line)


def _verdicts(verification: list[dict[str, Any]]) -> Table:
    points = verification[0]["points"]
    title = f"Verification, all {points:,.0f} test points"
    if "exact_accuracy" not in verification[0]:
        title = (
            f"Verification, {points:.0f} sampled points "
            f"[not bold](in brackets {CONFIDENCE:.0%} intervals)"
        )
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False
    )  # it fits 80 columns
    seldom = [name for name in SELDOM if any(row[name] for row in verification)]
    verdicts = [name for name in VERDICT_COLUMNS if name in seldom or name not in SELDOM]
    for column in ("epsilon", *verdicts, "proved", "deployed"):
        table.add_column(column, justify="right")
    for row in verification:
        counts = (str(int(row[column])) for column in verdicts)
        names = ("certified_accuracy", "certified_deployed_accuracy")
        shares = (Text(of_share(row, name)) for name in names)
        table.add_row(decimal(row["epsilon"]), *counts, *shares)
    return table


def _show_properties(console: Console, rows: list[dict[str, Any]]) -> None:
    title = f"Required of features, {rows[0]['points']} sampled points"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for column in ("requirement", "epsilon", "proved", "broken", "open"):
        table.add_column(column, justify="left" if column == "requirement" else "right")
    for row in rows:
        proved = Text(of_share(row, "certified"))
        broken, left = f"{row['falsified']:.2%}", str(row["open"])
        table.add_row(row["requirement"], decimal(row["epsilon"]), proved, broken, left)
    console.print(table)
    for requirement in dict.fromkeys(row["requirement"] for row in rows):
        examples = [r["counterexample"] for r in rows if r["requirement"] == requirement]
        for example in list(filter(None, examples))[:1]:
            console.print(f"{requirement}: {example}", markup=False)


def _reference(summary: Summary) -> Table:
    table = Table(title="Beside the reference experiment", title_justify="left")
    for column, justify in (("", "left"), ("reference", "right"), ("this run", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for name, (theirs, ours) in summary.reference.items():
        table.add_row(name, f"{theirs:.2%}", f"{ours:.2%}")
    return table


def short(path: str) -> str:
    """Relative to this folder where it lies below it."""
    relative = os.path.relpath(path, Path.cwd())
    return path if relative.startswith("..") else relative
