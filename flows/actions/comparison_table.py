"""The comparison of versions on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tasks.presentation.comparison_view import COLUMNS, Cell, ComparisonView, Line

STYLES = {"same": "dim", "better": "bold green", "worse": "bold red"}


def comparison_table(shown: ComparisonView) -> list[RenderableType]:
    """The table, which fits 80 columns, and the lines that say how to read it."""
    table = Table(
        title=shown.title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("version")
    for column in COLUMNS:
        table.add_column(column.narrow, justify="right", no_wrap=True)
    for line in shown.lines:
        table.add_row(_name(line), *map(_cell, line.cells))
    return [table, *(Text(sentence, style="dim") for sentence in shown.reading)]


def _name(line: Line) -> Text:
    text = Text(" ".join([line.name, *line.aliases]), style="bold" if line.aliases else "")
    return text.append(f"\n{line.architecture}", style="not bold dim")


def _cell(cell: Cell) -> Text:
    text = Text(cell.text)
    if cell.interval:
        text.append(f"\n{cell.interval}", style="dim")
    if cell.difference:
        text.append(f"\n{cell.difference}{cell.mark or ' '}", style=STYLES[cell.kind])
    return text
