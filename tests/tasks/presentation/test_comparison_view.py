"""One comparison, and the three media that show it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from flows.actions.comparison_table import comparison_table
from tasks.core.evidence.paired import BOOTSTRAP, GATE, MCNEMAR, Difference
from tasks.presentation import descriptions
from tasks.presentation.comparison_view import COLUMNS, Cell, ComparisonView, view
from tasks.presentation.records import Comparison, Row

DIFFERENCES = {
    "certified_accuracy": Difference(0.6, 0.4, 100, MCNEMAR, True, 0.001, sample=GATE),
    "median_radius": Difference(0.05, 0.0525, 20, BOOTSTRAP, False, interval=(-0.01, 0.01)),
    "clean_accuracy": Difference(0.9, 0.95, 10_000, MCNEMAR, True, 0.001),
}


def row(version: int, *, aliases: tuple[str, ...] = (), **changes: Any) -> Row:
    values = {
        "version": version,
        "aliases": aliases,
        "run_id": f"id{version}",
        "run_name": f"run-{version}",
        "architecture": "conv_small ibp-0.1",
        "measures": {
            "certified_accuracy": 0.6,
            "median_radius": 0.05,
            "pgd_accuracy": 1.0,
            "fgsm_accuracy": None,
            "clean_accuracy": 0.9,
        },
        "certified_deployed_accuracy": 0.55,
        "points": {
            "certified_accuracy": 20,
            "certified_deployed_accuracy": 20,
            "median_radius": 20,
            "pgd_accuracy": 10_000,
            "clean_accuracy": 10_000,
        },
        "intervals": {
            "certified_accuracy": (0.3605, 0.8088),
            "certified_deployed_accuracy": (0.3153, 0.7694),
        },
        "costs": {"parameters": 1_663_370, "train_seconds": 1920.4, "verification_seconds": 21.25},
        "differences": {},
    }
    return Row.model_validate(values | changes)


def comparison(*rows: Row, champion: int | None = 1) -> Comparison:
    return Comparison(dataset="mnist", epsilon=0.1, champion=champion, rows=list(rows))


@pytest.fixture
def compared() -> Comparison:
    return comparison(row(2, differences=DIFFERENCES), row(1, aliases=("champion",)))


def cells(shown: ComparisonView, line: int = 0) -> dict[str, Cell]:
    return dict(zip((c.measure for c in COLUMNS), shown.lines[line].cells, strict=True))


def test_cells_hold_value_interval_points_and_difference(compared: Comparison) -> None:
    found = cells(view(compared))
    assert found["certified_accuracy"] == Cell(
        "60.00%", "36-81%", 20, "+20.00", "*", "better", over="n = 100"
    )
    assert found["certified_deployed_accuracy"] == Cell("55.00%", "31-77%", 20)
    assert found["median_radius"] == Cell("0.0500", "", 20, "-0.0025")
    assert found["fgsm_accuracy"] == Cell("-")
    assert found["clean_accuracy"] == Cell("90.00%", "", None, "-5.00", "*", "worse")
    assert found["parameters"].text == "1,663k"
    assert found["train_seconds"].text == "1,920"
    assert found["verification_seconds"].text == "21.2"


def test_reading_says_on_which_points_and_when_a_difference_counts(compared: Comparison) -> None:
    reading = " ".join(view(compared).reading)
    for words in (
        "of 20 sampled test points, with 95% Clopper-Pearson intervals",
        "median radius: of 20 sampled points",
        "of all 10,000 test points",
        "difference to champion 1",
        "exact McNemar test, p < 0.05",
        "95% paired bootstrap interval",
        "v2 on the gate's 100 points",
    ):
        assert words in reading


def test_points_of_the_runs_are_told_where_no_gate_compared_them(compared: Comparison) -> None:
    common = replace(DIFFERENCES["certified_accuracy"], points=17, sample="common")
    other = row(3, differences={"certified_accuracy": common}, points={"certified_accuracy": 50})
    reading = " ".join(view(comparison(*compared.rows, other)).reading)
    assert "v3 on the 17 that both runs verified" in reading
    assert "of 20 to 50 sampled test points" in reading


def test_without_a_champion_it_says_how_to_get_one() -> None:
    reading = view(comparison(row(1), champion=None)).reading
    assert "no champion yet" in reading[-1]


def test_names_are_those_given() -> None:
    shown = view(comparison(row(1), row(2)), {"id1": "smoke"})
    assert [line.name for line in shown.lines] == ["smoke", "v2"]


def test_nothing_is_said_of_differences_where_there_are_none() -> None:
    reading = " ".join(view(comparison(row(1, aliases=("champion",)))).reading)
    assert "95% Clopper-Pearson" in reading
    assert "difference" not in reading


def test_sentences_have_the_names_given(compared: Comparison) -> None:
    reading = " ".join(view(compared, {"id1": "plain", "id2": "defended"}).reading)
    assert "the difference to champion plain," in reading
    assert "defended on the gate's 100 points" in reading
    assert "v2" not in reading


def test_terminal_shows_every_cell_within_80_columns(compared: Comparison) -> None:
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        for part in comparison_table(view(compared)):
            console.print(part)
    printed = capture.get()
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert "v1 champion" in printed
    for cell in (cell for line in view(compared).lines for cell in line.cells):
        assert cell.text in printed
        assert cell.interval in printed
        assert cell.difference + cell.mark in printed


def test_markdown_shows_every_cell(compared: Comparison) -> None:
    shown = view(compared)
    lines = descriptions.of_comparison(shown)
    assert [cell.strip() for cell in lines[0].split("|")[3:-1]] == [c.heading for c in COLUMNS]
    first = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert first[:2] == ["v2", "conv_small ibp-0.1"]
    assert first[2] == "60.00% (36-81%, n = 20), +20.00* (n = 100)"
    assert first[4] == "0.0500 (n = 20), -0.0025"
    for sentence in shown.reading:
        assert f"- {sentence}" in lines
    assert len({len(re.findall(r"\|", line)) for line in lines[:4]}) == 1
