"""Empty cells, the whole way: a version keeps what stood in them when it was trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from flows.actions.looking import completed_for, look_at_evaluation, look_at_model
from flows.configuration import recorded_settings
from flows.evaluation import evaluation_flow
from flows.robustness import robustness_flow
from tasks.data import load_checked
from tasks.presentation.records import Summary
from tasks.settings import DataSettings, Settings
from tasks.tracking import read_run
from tests.command import invoked, refusal
from tests.flow_project import flow_project, smoke
from tests.loans import SCHEMA, write_loans

MODEL = "models:/certiflow-loans/1"
TABLE = DataSettings(dataset="loans.yaml")
QUICK = ("--timeout=5", "--workers=1", "--max-epsilon=0.2", "--tolerance=0.05")


def settings() -> Settings:
    return smoke("data.dataset=loans.yaml", "training.epochs=2", "verification.samples=4")


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[dict[str, str]]:
    """Medians of the rows that version 1 was trained on, which the table no longer holds."""
    with flow_project(tmp_path_factory.mktemp("project")) as folder:
        write_loans(folder)
        rows = pd.read_csv("loans.csv")
        rows["age"] = rows["age"].astype("Int64")
        rows.loc[:40, "age"] = pd.NA
        rows.loc[20:60, "job"] = None
        rows.loc[100:129, ["age", "job"]] = pd.NA
        rows[80:].to_csv("loans.csv", index=False)
        rows[:80].to_csv("test.csv", index=False)
        stated = SCHEMA | {"test_source": "test.csv", "missing": "impute"}
        Path("loans.yaml").write_text(yaml.safe_dump(stated))
        rows.dropna().to_csv("whole.csv", index=False)
        Path("strict.yaml").write_text(yaml.safe_dump(SCHEMA | {"source": "whole.csv"}))
        medians = rows[80:][["amount", "months", "age"]].median()
        found = {"amount": repr(float(medians["amount"])).removesuffix(".0")}
        found |= {name: str(int(medians[name] // 1)) for name in ("months", "age")}
        yield found | {"job": rows[80:]["job"].mode()[0]}


@pytest.fixture(scope="module")
def first(usual: dict[str, str]) -> Summary:
    """Version 1; then the table's ages change, and with them their median."""
    found = robustness_flow(settings())
    rows = pd.read_csv("loans.csv")
    rows["age"] = rows["age"].clip(upper=30)
    rows.to_csv("loans.csv", index=False)
    load_checked.cache_clear()  # another command is a process of its own
    assert TABLE.load().completions["age"] == "30" != usual["age"]
    return found


def recorded(summary: Summary) -> dict[str, str]:
    """As MLflow has it, and the run's folder too."""
    artifact = read_run(summary.run_id).artifact("tables/data_profile.json")
    assert artifact is not None
    text = artifact.read_text()
    assert text == Path(summary.folder, "tables/data_profile.json").read_text()
    found: dict[str, str] = json.loads(text)["completions"]
    return found


def test_a_version_keeps_what_stood_in_empty_cells(first: Summary, usual: dict[str, str]) -> None:
    assert recorded(first) == usual
    card = Path(first.folder, "data_card.md").read_text()
    assert f"- age is empty in 71 rows, taken to be {usual['age']}" in card
    assert f"| job | category | A, B, C |  | stays | stays | {usual['job']} |" in card


def test_whoever_asks_about_a_version_takes_its_values(
    first: Summary, usual: dict[str, str]
) -> None:
    assert completed_for(MODEL, TABLE).completions == usual
    section = {"radius": {"samples": 2}}
    asked, _ = look_at_model(MODEL, {"dataset": "loans.yaml"}, 0, section)
    assert asked.data.completions == usual
    told = TABLE.model_copy(update={"completions": {"age": "44"}})
    assert completed_for(MODEL, told).completions == usual | {"age": "44"}


def test_of_other_models_and_schemas_nothing_is_taken(first: Summary) -> None:
    assert completed_for("bank.onnx", TABLE) == TABLE
    for other in (DataSettings(dataset="strict.yaml"), DataSettings(dataset="digits")):
        assert completed_for(MODEL, other) == other


def test_predictions_are_those_of_the_completed_rows(
    first: Summary, usual: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a file whose empty cells are filled by hand."""
    rows = pd.read_csv("test.csv", dtype=str, keep_default_na=False)[:6].drop(columns="status")
    rows.loc[0, "job"] = "A"  # and its age is empty, as all are
    rows.loc[1:, "age"] = ["", "30", "40", "", "60"]
    rows.loc[1:, "job"] = ["", "B", "", "C", "A"]
    rows.loc[5, "amount"] = "NA"
    rows.to_csv("gaps.csv", index=False)
    filled = rows.replace("NA", "")
    for name, value in usual.items():
        filled[name] = filled[name].replace("", value)
    filled.to_csv("filled.csv", index=False)
    found = {}
    for name in ("gaps", "filled"):
        asked = ("predict", MODEL, f"{name}.csv", "--data=loans.yaml", *QUICK)
        result = invoked(monkeypatch, *asked, f"--output=said-{name}.csv", f"--json={name}.json")
        assert result.exit_code == 0, result.exception
        said = "5 rows had empty cells: label and radius are of the row completed"
        assert (said in result.stdout) == (name == "gaps")
        found[name] = pd.read_csv(f"said-{name}.csv", dtype=str, keep_default_na=False)
    age, job, amount = (f"{name} = {usual[name]}" for name in ("age", "job", "amount"))
    assert found["gaps"]["completed"].tolist() == [age, f"{age}; {job}", "", job, age, amount]
    assert (found["filled"]["completed"] == "").all()
    columns = ["label", "certified_radius", "flipped_radius", "flipped_by"]
    pd.testing.assert_frame_equal(found["gaps"][columns], found["filled"][columns])
    assert found["gaps"]["age"].tolist() == rows["age"].tolist()  # the rows are written as they are
    words = [row["completed"] for row in json.loads(Path("gaps.json").read_text())]
    assert words == found["gaps"]["completed"].tolist()


@pytest.mark.parametrize(
    ("data", "cells", "said"),
    [
        ("strict.yaml", {"age": ""}, "row 1: age is empty: expected a value"),
        ("loans.yaml", {"age": "old"}, "row 1: age is 'old': expected a number"),
        ("loans.yaml", {"completed": "no"}, "a column 'completed', which predict writes"),
    ],
)
def test_what_is_not_imputed_is_one_line(
    data: str,
    cells: dict[str, str],
    said: str,
    first: Summary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = {"amount": "2000", "months": "5", "age": "30", "job": "A"} | cells
    pd.DataFrame([row]).to_csv("one.csv", index=False)
    assert said in refusal(monkeypatch, "predict", MODEL, "one.csv", f"--data={data}")


def test_an_evaluation_keeps_them_for_those_after_it(first: Summary, usual: dict[str, str]) -> None:
    asked, file = look_at_evaluation(MODEL, settings())
    second = evaluation_flow(asked, file, "again")
    assert recorded(second) == usual
    assert second.clean_accuracy == first.clean_accuracy  # on the same test rows, completed alike
    assert recorded_settings(read_run(second.run_id)).data.completions == usual  # for the gate
    assert completed_for("models:/certiflow-loans/2", TABLE).completions == usual


def test_a_category_that_is_gone_is_one_line(
    first: Summary, usual: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["D" if word == usual["job"] else word for word in ("A", "B", "C")]
    features = [*SCHEMA["features"][:3], {"name": "job", "kind": "category", "categories": words}]
    for source in ("loans.csv", "test.csv"):
        rows = pd.read_csv(source)
        rows["job"] = rows["job"].replace(usual["job"], "D")
        rows.to_csv(f"other-{source}", index=False)
    other = {"source": "other-loans.csv", "test_source": "other-test.csv", "missing": "impute"}
    Path("other.yaml").write_text(yaml.safe_dump(SCHEMA | other | {"features": features}))
    told = refusal(monkeypatch, "predict", MODEL, "one.csv", "--data=other.yaml")
    assert f"data.completions has '{usual['job']}' for job: expected one of" in told
