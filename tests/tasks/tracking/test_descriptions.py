"""What is written to MLflow's pages: it fits its column, and leads to the run."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from flows.actions import summary
from tasks.core.verdict_columns import WITNESS_WORDS
from tasks.core.verdicts import VERDICT_COLUMNS
from tasks.presentation import descriptions
from tasks.presentation.records import Decision
from tasks.settings import ModelSettings
from tasks.tracking import origin, store
from tasks.tracking.descriptions import (
    DECISIONS,
    DESCRIPTION_LENGTH,
    TOLD_PREFIX,
    shortened,
    told_decisions,
    with_decisions,
)


@pytest.mark.parametrize("own", [0, 100, 4990, 5000, 5001, 20_000])
@pytest.mark.parametrize("told", [[10], [1200, 1200, 1200], [1201] * 4, [6000], [6000] * 12])
def test_a_description_always_fits_and_ends_with_the_last_decisions(
    own: int, told: list[int]
) -> None:
    decisions = [f"**Forced** {number}: ".ljust(length, "x") for number, length in enumerate(told)]
    text = with_decisions("o" * own, decisions)
    assert len(text) <= DESCRIPTION_LENGTH == 5000
    assert len(shortened("o" * own)) <= DESCRIPTION_LENGTH
    last = decisions[-3:]
    assert [text.count(f"**Forced** {number}: ") for number in range(len(told))] == [
        int(number >= len(told) - len(last)) for number in range(len(told))
    ]
    kept = text.split(DECISIONS)[0].count("o")
    assert kept == own or kept > 1000  # its own words are cut last


def test_words_before_the_decisions_are_found_again() -> None:
    own, decisions = "the run's own words", []
    for number in range(5):
        decisions.append(f"decision {number}")
        text = with_decisions(own, decisions)
        assert text.partition(DECISIONS)[0] == own


def test_told_decisions_are_in_the_order_of_their_numbers() -> None:
    tags = {f"{TOLD_PREFIX}{n}": str(n) for n in (10, 2, 1)}
    assert told_decisions(tags | {"promotion.decision": "forced"}) == ["1", "2", "10"]


def test_decision_tells_intervals_and_points() -> None:
    numbers = {
        "epsilon": 0.1,
        "points": 20,
        "certified_accuracy": 0.6,
        "certified_accuracy_champion": 1.0,
        "certified_p_value": 0.0078125,
        "unnoticed_points": 5,
        "test_images": 360,
        "clean_accuracy": 0.9,
        "clean_accuracy_champion": 0.95,
        "clean_p_value": 0.25,
    }
    decision = Decision(
        model="certiflow-digits",
        version=2,
        decision="refused",
        reason="worse",
        against=1,
        numbers=numbers,
        by="me",
        at="2026-01-01T00:00:00+00:00",
    )
    text = descriptions.of_decision(decision)
    row = "| certified at 0.1 (20 sampled points) | 60.00% [36-81%] | 100.00% [83-100%] | 0.0078 |"
    assert row in text
    assert "| clean (all 360 test points) | 90.00% | 95.00% | 0.25 |" in text


def test_a_servers_page_is_linked_and_a_local_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.mlflow, "get_tracking_uri", lambda: "https://mlflow.example/")
    url = store.page_of_run("7", "abc")
    assert url == "https://mlflow.example/#/experiments/7/runs/abc?workflowType=machine_learning"
    assert descriptions.of_place("name", url) == f"MLflow run: [name]({url})"
    for local in ("sqlite:///mlflow.db", "postgresql://db/mlflow"):
        monkeypatch.setattr(store.mlflow, "get_tracking_uri", lambda uri=local: uri)
        page = store.page_of_run("7", "abc")
        assert page == "/#/experiments/7/runs/abc?workflowType=machine_learning"
        said = descriptions.of_place("name", page)
        assert f"name (make ui, then {page}" in said
        assert "http" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/x/bin/certiflow", "run", "--set", "a=b c"], "certiflow run --set 'a=b c'"),
        (["/x/flows/command/cli.py", "retrain"], "certiflow retrain"),
        (["/x/bin/certiflow", "--model", "http://me:secret@host/x"], "certiflow --model http://"),
        (["/x/prefect/flow_engine.py", "42"], ""),
    ],
)
def test_command_of_the_run(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", arguments)
    found = origin.command_line()
    assert found.startswith(said) if said else found == ""
    assert "secret" not in found


def test_libraries_are_those_that_verdicts_come_from() -> None:
    names = [part.split()[0] for part in origin.library_versions().split(", ")]
    assert {"python", "tensorflow", "keras", "numpy", "maraboupy"} <= set(names)


def verified(**counts: float) -> dict[str, float]:
    """A row of the verification's summary: 20 points at 0.1."""
    row = dict.fromkeys([*VERDICT_COLUMNS, *(f"witness_{word}" for word in WITNESS_WORDS)], 0.0)
    row |= {"epsilon": 0.1, "points": 20.0, "witnessed_only": 0.0, "witness_seconds": 0.5}
    for name in ("certified_accuracy", "certified_deployed_accuracy"):
        row |= {name: 1.0, f"{name}_low": 0.83, f"{name}_high": 1.0}
    return row | counts


def test_what_marabou_said_is_a_paragraph_below_the_table() -> None:
    settings = ModelSettings.model_validate(
        {"model": "m.onnx", "data": {"dataset": "digits"}, "verification": {}}
    )
    text = descriptions.of_answers("t", settings, [verified(witness_confirmed=2.0)], [], [])
    *_, row, blank, said = text.splitlines()
    assert row.startswith("| 0.1 |")
    assert blank == ""
    assert said.startswith("Marabou on 2 of the proofs: 2 confirmed, 0 undecided")


@pytest.mark.parametrize("seldom", [{}, {"timeout": 1.0}, {"error": 1.0}])
def test_the_screens_table_has_the_verdicts_there_are_and_fits_80_columns(
    seldom: dict[str, float],
) -> None:
    console = Console(width=80, record=True, file=StringIO())
    summary.show_verdicts(console, [verified(robust=20.0), verified(robust=19.0, **seldom)])
    heading, _, first, *_ = console.export_text().splitlines()[1:]
    named = [name for name in VERDICT_COLUMNS if name in heading.split()]
    assert named == [
        name for name in VERDICT_COLUMNS if name not in {"timeout", "error"} or name in seldom
    ]
    assert first.split()[-2:] == ["100.00%", "[83-100%]"]  # on one line
