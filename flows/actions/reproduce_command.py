"""`certiflow reproduce`: a paper's table, beside what this program finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.actions.head import write_json
from flows.actions.verify_command import Effort, verified
from tasks import console
from tasks.core.queries.properties import Instance
from tasks.core.queries.property_solver import InstanceResult
from tasks.core.verification.reluplex import PublishedCell, cells, load_network

CACHE = Path("data")


def reluplex(timeout: float, effort: Effort, json_file: Path | None) -> None:
    """Prints the paper's local-robustness table and what is found now."""
    with console.stage("download", 1) as progress:
        model = load_network(CACHE)
        progress.advance()
    table = cells()
    instances = [Instance(model, cell.property(model), timeout) for cell in table]
    results = verified(instances, effort)
    pairs = zip(table, results, strict=True)
    write_json(json_file, [asdict(cell) | asdict(found) for cell, found in pairs])
    _show(table, results)


def _show(table: Sequence[PublishedCell], results: Sequence[InstanceResult]) -> None:
    shown = Table(title="Reluplex, CAV 2017: local robustness, ACAS Xu 1_1", title_justify="left")
    for column in ("point", "delta", "verdict", "decided by", "seconds", "paper", "its seconds"):
        shown.add_column(column, justify="left" if column in {"verdict", "paper"} else "right")
    for cell, found in zip(table, results, strict=True):
        mark = " *" if cell.remark else ""
        shown.add_row(
            str(cell.point),
            f"{cell.delta:g}",
            found.verdict,
            str(found.decided_by or ""),
            f"{found.seconds:.2f}",
            cell.paper_verdict + mark,
            str(cell.paper_seconds),
            end_section=cell.delta == table[-1].delta,
        )
    seconds = sum(found.seconds for found in results)
    shown.add_row("", "", "", "all", f"{seconds:.1f}", "", str(sum(c.paper_seconds for c in table)))
    output = Console(highlight=False)
    output.print(shown)
    for cell in table:
        if cell.remark:
            note = f"* established at point {cell.point}, delta {cell.delta:g}: {cell.established}"
            output.print(f"{note}, not {cell.paper_verdict}: {cell.remark}", soft_wrap=True)
    for cell, found in zip(table, results, strict=True):
        if {found.verdict, cell.established} == {"sat", "unsat"}:
            console.warn(
                f"point {cell.point}, delta {cell.delta:g}: {cell.established} is expected"
            )
