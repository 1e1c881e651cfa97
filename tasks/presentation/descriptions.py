"""Markdown: what MLflow's pages and Prefect's artifacts say of a run, a model and a decision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.evidence.sampling import CONFIDENCE, DRAWN, METHOD, interval_text, share_interval
from tasks.core.properties.domain import told, told_above
from tasks.core.verdict_columns import WITNESS_WORDS
from tasks.core.verdicts import VERDICT_COLUMNS
from tasks.presentation.comparison_view import COLUMNS, view
from tasks.presentation.markdown import inline, table
from tasks.settings import ModelSettings, Settings, decimal
from tasks.tracking import way_to

if TYPE_CHECKING:
    from tasks.presentation.comparison_view import Cell, ComparisonView
    from tasks.presentation.records import Comparison, Decision, Summary


GRID = {"fgsm_accuracy": "FGSM", "pgd_accuracy": "PGD", "certified_accuracy": "certified"}
GRID_EXACT = {"exact_accuracy": "exact"}
GRID_RECALLS = {
    "fgsm_recall": "recall under FGSM",
    "pgd_recall": "recall under PGD",
    "certified_recall": "certified recall",
}
MEASURES = {
    "balanced_accuracy": "balanced accuracy {:.2%}",
    "auc": "AUC {:.4f}",
    "mean_absolute_error": "mean absolute error {:,.4g}",
    "root_mean_squared_error": "root mean squared error {:,.4g}",
}


def of_measures(summary: Summary) -> str:
    """What accuracy hides: of a class that counts, or of numbers; nothing of other classes."""
    found = summary.measures
    if summary.positive is None and summary.tolerance is None:
        return ""
    parts = [text.format(found[name]) for name, text in MEASURES.items() if name in found]
    if summary.tolerance is not None:
        parts.insert(0, f"accuracy: within {told(summary.tolerance)} of the target")
    if "recall" in found:
        parts.append(f"recall of {summary.positive} {found['recall']:.2%}")
    return ", ".join(parts)


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
    lines += [f"\n**Warning**: {warning}" for warning in summary.warnings]
    if measures := of_measures(summary):
        lines.append(f"\n{measures}.")
    for name, (theirs, ours) in summary.reference.items():
        lines.append(f"\n{name}: {ours:.2%} (reference: {theirs:.2%})")
    whole = f"All {summary.test_images:,} test {summary.noun}s"
    lines += ["", f"{whole}: what attacks leave, and what linear bounds prove.", ""]
    shown = GRID | (GRID_RECALLS if summary.positive is not None else {})
    shown |= {k: v for k, v in GRID_EXACT.items() if any(k in row for row in summary.epsilon_grid)}
    lines += table(
        ("epsilon", *shown.values()),
        (
            (decimal(row["epsilon"]), *(row.get(column, "") for column in shown))
            for row in summary.epsilon_grid
        ),
    )
    lines += ["", *_verdicts(summary.verification, settings.verification.engine)]
    if summary.median_radius is not None:
        lines += ["", f"{of_radius(summary.radius_points, *summary.median_radius)}."]
    if summary.properties:
        lines += ["", *_of_properties(summary.properties)]
    return "\n".join([*lines, "", of_place(summary.run_name, summary.url)])


def _of_properties(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is required of features: shares of the sampled points, and a counterexample each."""
    shown = table(
        ("requirement", "epsilon", "points", "certified", "falsified", "open"),
        (
            (
                inline(row["requirement"]),
                decimal(row["epsilon"]),
                row["points"],
                of_share(row, "certified"),
                float(row["falsified"]),
                row["open"],
            )
            for row in rows
        ),
    )
    examples = [row for row in rows if row["counterexample"]]
    return [
        f"Required of features, around {rows[0]['points']} sampled points.",
        "",
        *shown,
        "",
        *(f"- {inline(row['requirement'])}: {inline(row['counterexample'])}" for row in examples),
    ]


def of_study(
    title: str, compared: Comparison, runs: Mapping[str, str], failed: Mapping[str, str]
) -> str:
    """The comparison of a study's runs as one page."""
    names = {run_id: name for name, run_id in runs.items()}
    lines = [f"**{title}**: {compared.dataset}, best first, at epsilon {compared.epsilon:g}.", ""]
    lines += of_comparison(view(compared, names))
    lines += [f"\n**{name} failed**: {inline(reason)}" for name, reason in failed.items()]
    return "\n".join(lines)


def of_comparison(shown: ComparisonView) -> list[str]:
    """Lines of a Markdown table, and of how to read it."""
    header = ("version", "network", *(column.heading for column in COLUMNS))
    rows = (
        (
            " ".join([line.name, *line.aliases]),
            line.architecture,
            *map(_cell, line.cells),
        )
        for line in shown.lines
    )
    return [*table(header, rows), "", *(f"- {sentence}" for sentence in shown.reading)]


def _cell(cell: Cell) -> str:
    sample = f" ({cell.sample})" if cell.sample else ""
    difference = f", {cell.difference}{cell.mark}" if cell.difference else ""
    over = f" ({cell.over})" if cell.over else ""
    return f"{cell.text}{sample}{difference}{over}"


def of_place(name: str, url: str) -> str:
    """A run of MLflow, and how to open it."""
    if url.startswith("http"):
        return f"MLflow run: [{name}]({url})"
    return f"MLflow run: {name} ({way_to(url)})"


def of_radius(points: int, proved: float, falsified: float) -> str:
    """The bracket of a median radius in words; `falsified` is infinite where nothing broke."""
    broken = f"broken {falsified:.4f}" if math.isfinite(falsified) else "nothing broke"
    return f"Median critical radius of {points} sampled points: proved {proved:.4f}, {broken}"


def of_answers(
    title: str,
    settings: ModelSettings,
    verification: Sequence[Mapping[str, Any]],
    radius: Sequence[Mapping[str, Any]],
    global_robustness: Sequence[Mapping[str, Any]],
) -> str:
    """What was found of a model that exists; what was not asked is empty."""
    lines = [f"**{title}**", ""]
    if settings.verification is not None:
        lines += _verdicts(verification, settings.verification.engine)
    if radius:
        proved = sum(row["proved"] for row in radius) / len(radius)
        complete = sum(bool(row["complete"]) for row in radius)
        lines += [
            "",
            f"Critical radius of {len(radius)} sampled points: proved {proved:.4f} in the mean; "
            f"{complete} brackets are as narrow as asked.",
        ]
    if global_robustness:
        lines += [
            "",
            *table(
                ("class", "verdict", "found", "proved below"),
                (
                    (
                        inline(row["class"]),
                        row["verdict"],
                        f"{row['largest_difference']:.4f}",
                        told_above(row["epsilon_proved"], 4),
                    )
                    for row in global_robustness
                ),
            ),
        ]
    return "\n".join(lines)


def _verdicts(rows: Sequence[Mapping[str, Any]], engine: str) -> list[str]:
    """Points by verdict at each radius."""
    said = witnesses(rows)
    if "exact_accuracy" in rows[0]:
        told = f"All {rows[0]['points']:,.0f} test points, verified (engine `{engine}`). "
        told += of_exact(rows)
    else:
        told = (
            f"{rows[0]['points']:.0f} sampled points, {DRAWN}, verified (engine `{engine}`); in "
            f"brackets {CONFIDENCE:.0%} {METHOD} intervals of the share of all points."
        )
    return [
        told,
        "",
        *table(
            ("epsilon", *VERDICT_COLUMNS, "certified", "deployed"),
            (
                (
                    decimal(row["epsilon"]),
                    *(str(int(row[verdict])) for verdict in VERDICT_COLUMNS),
                    of_share(row, "certified_accuracy"),
                    of_share(row, "certified_deployed_accuracy"),
                )
                for row in rows
            ),
        ),
        *(["", *said] if said else []),  # else it is a row of the table
    ]


def of_share(row: Mapping[str, Any], name: str) -> str:
    """A share of the verified points from a row of `verification_summary`.

    Of a sample it has its interval.
    """
    if "exact_accuracy" in row:
        return f"{row[name]:.2%}"
    return f"{row[name]:.2%} [{interval_text(row[f'{name}_low'], row[f'{name}_high'])}]"


def of_exact(rows: Sequence[Mapping[str, Any]]) -> str:
    """How far what is proved of all test points is their exact robust accuracy."""
    brackets = {
        decimal(row["epsilon"]): (row["exact_accuracy"], row["exact_accuracy_high"]) for row in rows
    }
    left = [
        f"{low:.2%} to {high:.2%} at {epsilon}"
        for epsilon, (low, high) in brackets.items()
        if low < high
    ]
    if not left:
        return "Every point is decided: what is proved is the exact robust accuracy."
    return f"Where points are undecided, the exact robust accuracy lies between: {', '.join(left)}."


def witnesses(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What Marabou said: of proofs, and of points that stayed unknown."""
    return [*_asked(rows), *_witnessed_only(rows)]


def _witnessed_only(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line on the unknown points that Marabou alone found robust, if there are any."""
    counts = {decimal(row["epsilon"]): int(row["witnessed_only"]) for row in rows}
    found = ", ".join(f"{count} at {epsilon}" for epsilon, count in counts.items() if count)
    return [f"Of the unknown, witnessed by Marabou only: {found}."] if found else []


def _asked(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line on the proofs of other stages that Marabou was asked about, if there are any."""
    counts = {word: sum(int(row[f"witness_{word}"]) for row in rows) for word in WITNESS_WORDS}
    asked = sum(counts.values())
    if not asked:
        return []
    said = ", ".join(f"{count} {word}" for word, count in counts.items())
    seconds = sum(row["witness_seconds"] for row in rows)
    return [f"Marabou on {asked} of the proofs: {said}, in {seconds:.1f} s of solving."]


def of_decision(decision: Decision) -> str:
    """A decision on a version as a paragraph, with the numbers it rests on."""
    day = decision.at.replace("T", " ").removesuffix("+00:00")
    whom = "" if decision.against is None else f" (against version {decision.against})"
    lines = [
        f"**{decision.decision.capitalize()}**{whom}, {day} UTC, by {inline(decision.by)}: "
        f"{inline(decision.reason)}."
    ]
    numbers = decision.numbers
    if decision.evidence is not None:
        lines += ["", f"Audited evidence, SHA-256: `{decision.evidence}`."]
    if numbers:
        versions = (f"version {decision.version}", f"version {decision.against}")
        lines += ["", *table(("", *versions, "p"), _judged(numbers))]
        lines += [
            "",
            f"A fall of up to {numbers['unnoticed_points']:.0f} of the {numbers['points']:.0f} "
            "points would not have been told from chance.",
        ]
    return "\n".join(lines)


def _judged(numbers: Mapping[str, int | float]) -> list[tuple[Any, ...]]:
    """What the gate compared: on a sample, with intervals, and on the whole test set."""
    points = int(numbers["points"])
    certified = [numbers[f"certified_accuracy{whose}"] for whose in ("", "_champion")]
    intervals = [share_interval(round(share * points), points) for share in certified]
    return [
        (
            f"certified at {decimal(numbers['epsilon'])} ({points} sampled points)",
            *(
                f"{share:.2%} [{interval_text(*interval)}]"
                for share, interval in zip(certified, intervals, strict=True)
            ),
            f"{numbers['certified_p_value']:.2g}",
        ),
        (
            f"clean (all {numbers['test_images']:.0f} test points)",
            numbers["clean_accuracy"],
            numbers["clean_accuracy_champion"],
            f"{numbers['clean_p_value']:.2g}",
        ),
    ]


def of_model(champion: int | None, last: Decision) -> str:
    """A registered model: who serves, and the last decision."""
    serving = "none yet" if champion is None else f"version {champion}"
    return f"Champion: {serving}.\n\nLast decision, on version {last.version}: {of_decision(last)}"
