"""The comparison of versions on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tasks.core.evidence.comparison import MEASURES
from tasks.core.evidence.paired import BOOTSTRAP, MCNEMAR, Difference
from tasks.records import Comparison, Row
from tasks.settings import decimal

UNKNOWN = "-"


def comparison_table(comparison: Comparison) -> list[RenderableType]:
    """The table, and the lines that say how to read it.

    A cell has the value and, below it, the difference to the champion; `*` marks one that is beyond
    sampling error.
    """
    epsilon = decimal(comparison.epsilon)
    table = Table(
        title=f"{comparison.dataset}: versions, best first, at epsilon {epsilon}",
        title_justify="left",
        box=box.SIMPLE_HEAD,  # it fits 80 columns
        padding=0,
        pad_edge=False,
    )
    table.add_column("version")
    for heading in ("certified", "median\nradius", "under\nPGD", "under\nFGSM", "clean"):
        table.add_column(heading, justify="right")
    for heading in ("para-\nmeters", "train\ns", "verify\ns"):
        table.add_column(heading, justify="right")
    for row in comparison.rows:
        table.add_row(
            _name(row),
            *(_cell(row, measure) for measure in MEASURES),
            f"{row.costs['parameters']:,.0f}",
            f"{row.costs['train_seconds']:.1f}",
            f"{row.costs['verification_seconds']:.1f}",
        )
    return [table, *_reading(comparison)]


def _name(row: Row) -> Text:
    title = row.run_name if row.version is None else f"{row.version}"
    text = Text(" ".join([title, *row.aliases]), style="bold" if row.aliases else "")
    return text.append(f"\n{row.architecture}", style="not bold dim")


def _cell(row: Row, measure: str) -> Text:
    value, difference = row.measures[measure], row.differences.get(measure)
    if value is None:
        return Text(UNKNOWN)
    text = Text(f"{value:.4f}" if measure == "median_radius" else f"{value:.2%}")
    if difference is not None:
        text.append("\n")
        text.append(_signed(difference), style=_style(difference))
    return text


def _signed(difference: Difference) -> str:
    value = difference.value
    number = f"{value:+.4f}" if difference.method == BOOTSTRAP else f"{100 * value:+.2f}"
    return f"{number}{'*' if difference.significant else ' '}"


def _style(difference: Difference) -> str:
    if not difference.significant:
        return "dim"
    return "bold green" if difference.value > 0 else "bold red"


def _reading(comparison: Comparison) -> list[Text]:
    if comparison.champion is None:
        return [Text("no champion yet: `certiflow promote --version …` makes one", style="dim")]
    confidence = f"{1 - comparison.significance:.0%}"
    lines = [
        f"below: difference to champion {comparison.champion}, on the points both looked at; "
        f"* beyond sampling error ({MCNEMAR}, p < {comparison.significance:g}; median radius: "
        f"{confidence} {BOOTSTRAP} interval)"
    ]
    counts = {
        row.differences["certified_accuracy"].points
        for row in comparison.rows
        if "certified_accuracy" in row.differences
    }
    if counts:
        least = min(counts)
        lines.append(
            f"certified: {least} points in common{'' if len(counts) == 1 else ' at least'}"
        )
    fewer = [
        f"{_name(row).plain.splitlines()[0]} {row.certified_deployed_accuracy:.2%}"
        for row in comparison.rows
        if row.certified_deployed_accuracy is not None
        and row.certified_deployed_accuracy != row.measures["certified_accuracy"]
    ]
    if fewer:
        lines.append(f"certified beyond the float32 model's rounding: {', '.join(fewer)}")
    return [Text(line, style="dim") for line in lines]
