"""Markdown: what MLflow's pages and Prefect's artifacts say of a run, a model and a decision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tasks.settings import Settings, decimal

if TYPE_CHECKING:
    from tasks.report import Summary

VERDICTS = ("robust", "falsified", "unknown", "timeout", "error")


def of_run(summary: Summary, settings: Settings) -> str:
    """The result of a run of the main flow as one page."""
    lines = [
        f"**{summary.dataset} {summary.architecture}**: "
        f"clean accuracy {summary.clean_accuracy:.2%}."
    ]
    if summary.dataset != summary.dataset_requested:
        lines.append(
            f"\n**{summary.dataset_requested} could not be had: this is {summary.dataset}.**"
        )
    for name, (theirs, ours) in summary.reference.items():
        lines.append(f"\n{name}: {ours:.2%} (reference: {theirs:.2%})")
    lines += ["", "Whole test set: what attacks leave, and what linear bounds prove.", ""]
    lines += table(
        ("epsilon", "FGSM", "PGD", "certified"),
        (
            (
                decimal(row["epsilon"]),
                row["fgsm_accuracy"],
                row["pgd_accuracy"],
                row["certified_accuracy"],
            )
            for row in summary.epsilon_grid
        ),
    )
    samples, engine = settings.verification.samples, settings.verification.engine
    lines += ["", f"{samples} sampled points, verified (engine `{engine}`).", ""]
    lines += table(
        ("epsilon", *VERDICTS, "certified"),
        (
            (
                decimal(row["epsilon"]),
                *(str(int(row[verdict])) for verdict in VERDICTS),
                row["certified_accuracy"],
            )
            for row in summary.verification
        ),
    )
    if summary.median_radius is not None:
        proved, falsified = summary.median_radius
        lines += ["", f"Median critical radius: proved {proved:.4f}, broken {falsified:.4f}."]
    return "\n".join([*lines, "", f"MLflow run: [{summary.run_name}]({summary.url})"])


def table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """Lines of a Markdown table; fractions are shown in percent."""
    cells = [[f"{c:.2%}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    lines = [header, ["---:"] * len(header), *cells]
    return ["| " + " | ".join(line) + " |" for line in lines]
