"""Markdown: what MLflow's pages and Prefect's artifacts say of a run, a model and a decision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.verdict_columns import WITNESS_WORDS
from tasks.core.verdicts import Verdict
from tasks.settings import ModelSettings, Settings, decimal

if TYPE_CHECKING:
    from tasks.records import Comparison, Decision, Summary

VERDICTS = tuple(verdict.value for verdict in Verdict)


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
    lines += ["", *_verdicts(summary.verification, settings.verification.engine)]
    if summary.median_radius is not None:
        lines += ["", f"Median critical radius: {of_radius(*summary.median_radius)}."]
    return "\n".join([*lines, "", f"MLflow run: [{summary.run_name}]({summary.url})"])


def of_study(
    title: str, compared: Comparison, runs: Mapping[str, str], failed: Mapping[str, str]
) -> str:
    """The comparison of a study's runs as one page."""
    names = {run_id: name for name, run_id in runs.items()}
    lines = [f"**{title}**: {compared.dataset}, best first, at epsilon {compared.epsilon:g}.", ""]
    measures = {
        "certified_accuracy": "certified",
        "pgd_accuracy": "under PGD",
        "fgsm_accuracy": "under FGSM",
        "clean_accuracy": "clean",
    }
    lines += table(
        ("configuration", "network", *measures.values(), "train s"),
        (
            (
                names[row.run_id],
                row.architecture,
                *(row.measures[measure] for measure in measures),
                f"{row.costs['train_seconds']:.0f}",
            )
            for row in compared.rows
        ),
    )
    lines += [f"\n**{name} failed**: {reason}" for name, reason in failed.items()]
    return "\n".join(lines)


def of_radius(proved: float, falsified: float) -> str:
    """A bracket of a critical radius in words; `falsified` is infinite where nothing broke."""
    broken = f"broken {falsified:.4f}" if math.isfinite(falsified) else "nothing broke"
    return f"proved {proved:.4f}, {broken}"


def table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """Lines of a Markdown table; fractions are shown in percent, what is not known as `-`."""
    texts = [["-" if cell is None else cell for cell in row] for row in rows]
    cells = [[f"{c:.2%}" if isinstance(c, float) else str(c) for c in row] for row in texts]
    lines = [header, ["---:"] * len(header), *cells]
    return ["| " + " | ".join(line) + " |" for line in lines]


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
        lines.append(
            f"Critical radius of {len(radius)} sampled points: proved {proved:.4f} in the mean; "
            f"{complete} brackets are as narrow as asked."
        )
    if global_robustness:
        lines += table(
            ("class", "verdict", "found", "proved below"),
            (
                (
                    row["label"],
                    row["verdict"],
                    f"{row['largest_difference']:.4f}",
                    f"{row['epsilon_proved']:.4f}",
                )
                for row in global_robustness
            ),
        )
    return "\n".join(lines)


def _verdicts(rows: Sequence[Mapping[str, Any]], engine: str) -> list[str]:
    """Points by verdict at each radius."""
    points = sum(int(rows[0][verdict]) for verdict in VERDICTS)
    return [
        f"{points} sampled points, verified (engine `{engine}`).",
        "",
        *table(
            ("epsilon", *VERDICTS, "certified", "deployed"),
            (
                (
                    decimal(row["epsilon"]),
                    *(str(int(row[verdict])) for verdict in VERDICTS),
                    row["certified_accuracy"],
                    row["certified_deployed_accuracy"],
                )
                for row in rows
            ),
        ),
        *witnesses(rows),
    ]


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
        f"**{decision.decision.capitalize()}**{whom}, {day} UTC, by {decision.by}: "
        f"{decision.reason}."
    ]
    numbers = decision.numbers
    if numbers:
        lines += [
            "",
            *table(
                ("", f"version {decision.version}", f"version {decision.against}", "p"),
                [
                    (
                        f"{what} ({over})",
                        numbers[f"{key}_accuracy"],
                        numbers[f"{key}_accuracy_champion"],
                        f"{numbers[f'{key}_p_value']:.2g}",
                    )
                    for what, key, over in (
                        (
                            f"certified at {decimal(numbers['epsilon'])}",
                            "certified",
                            f"{numbers['points']:.0f} points",
                        ),
                        ("clean", "clean", f"{numbers['test_images']:.0f} images"),
                    )
                ],
            ),
        ]
        lines += [
            "",
            f"A fall of up to {numbers['unnoticed_points']:.0f} of the {numbers['points']:.0f} "
            "points would not have been told from chance.",
        ]
    return "\n".join(lines)


def of_model(champion: int | None, last: Decision) -> str:
    """A registered model: who serves, and the last decision."""
    serving = "none yet" if champion is None else f"version {champion}"
    return f"Champion: {serving}.\n\nLast decision, on version {last.version}: {of_decision(last)}"
