"""A table's rows behind a guard: named features in, a proof or what would flip the label out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tasks.core.data.datasets import Dataset
from tasks.core.networks.network import Affine, ReluNetwork
from tests import guarded
from tests.command import certiflow, clean_environment, error_of
from tests.guarded import Guard
from tests.loans import loans, write_loans

NAME, EPSILON = "certiflow-loans", 0.02


def risk() -> ReluNetwork:
    """`paid` below a risk of 1.5, that of the table without its noise; the amount has a ceiling."""
    first = Affine(
        np.array([[1e-4, 0, 0, 0, 0, 0], [0, 1 / 72, 0, 0, 0, 0.5]]), np.array([-0.2, 0.0])
    )
    return ReluNetwork((first, Affine(np.array([[-1.0, -1], [1, 1]]), np.array([1.3, -1.3]))))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("loans")
    write_loans(folder)
    return loans(folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guard")


@pytest.fixture(scope="module")
def guard(data: Dataset, project: Path) -> Iterator[Guard]:
    guarded.register(project, risk(), replace(data, completions={"age": "33"}), NAME)
    settings = {"model": f"models:/{NAME}@champion", "epsilon": EPSILON, "budget_ms": 20_000}
    with guarded.guarding(project, settings) as guard:
        yield guard


def records(data: Dataset) -> list[dict[str, Any]]:
    return [data.domain.decoded(row) for row in data.test_inputs]


def by_enumeration(data: Dataset, row: np.ndarray) -> bool:
    """Whether the label holds at all whole months, at the ends and the middle of the amounts."""
    network, box = risk(), data.perturbation.both_ways().box(row[None], EPSILON)
    amounts = np.linspace(box.lower[0, 0], box.upper[0, 0], 21)
    months = np.arange(box.lower[0, 1], box.upper[0, 1] + 1)
    points = np.array([[a, m, *row[2:]] for a, m in product(amounts, months)])
    points = points[data.domain.contains(points.astype(np.float32))]
    return len(set(network(points).argmax(axis=1))) == 1


def test_named_rows_are_proved_or_told_what_would_flip_them(guard: Guard, data: Dataset) -> None:
    answers = guard.post("/predict", {"records": records(data)}).json()["answers"]
    labels = risk()(data.test_inputs).argmax(axis=1)
    assert [each["class"] for each in answers] == [data.class_names[label] for label in labels]
    for row, answer in zip(data.test_inputs, answers, strict=True):
        assert (answer["decision"] == "accepted") == by_enumeration(data, row)
    assert len({each["decision"] for each in answers}) == 2
    shown = guard.client.get("/live").json()["flagged"]
    assert {"amount", "months", "age", "job"} == set(shown[0]["features"])
    moved = [each["moves"] for each in shown if each["moves"]]
    assert all("→" in move for moves in moved for move in moves)
    assert not any(move.startswith(("age", "job")) for moves in moved for move in moves)
    assert moved


def test_what_was_flagged_is_asked_again(
    guard: Guard, data: Dataset, project: Path, tmp_path: Path
) -> None:
    answers = guard.post("/predict", {"records": records(data)}).json()["answers"]
    guarded.until(lambda: guard.metric("certiflow_guard_stored_total") > 0, "nothing is stored")
    flagged = next(each for each in answers if each["decision"] == "flagged")
    environment = clean_environment(tmp_path)
    asked = ("verify", "--flagged", flagged["digest"][:16], "--json", str(tmp_path / "again.json"))
    result = certiflow(project, environment, *asked)
    assert result.returncode == 0, result.stderr
    assert f"{NAME}/1: {flagged['class']} is broken at epsilon 0.02" in result.stdout
    told = json.loads((tmp_path / "again.json").read_text())
    assert told["digest"] == flagged["digest"]
    assert told["verdict"] == "falsified"
    assert all("→" in move for move in told["moves"])
    unknown = certiflow(project, environment, "verify", "--flagged", "zz")
    assert "has no input whose digest begins so" in error_of(unknown)


def test_rows_come_as_mlflow_sends_them(guard: Guard, data: Dataset) -> None:
    rows = records(data)[:5]
    native = guard.post("/predict", {"records": rows}).json()["answers"]
    frame = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    for response in (
        guard.post("/invocations", {"dataframe_split": frame}),
        guard.post("/invocations", {"dataframe_records": rows}),
        guard.client.post(
            "/invocations", content="\n".join(lines), headers={"content-type": "text/csv"}
        ),
    ):
        found = response.json()["predictions"]
        assert [each["decision"] for each in found] == [each["decision"] for each in native]
        assert [each["class"] for each in found] == [each["class"] for each in native]
    refused = guard.post("/predict", {"records": [rows[0] | {"months": 12.5}]})
    assert refused.status_code == 422
    assert refused.json()["detail"] == "row 0: months is 12.5: expected a whole number"


def test_tables_that_do_not_fit_their_columns_are_refused(guard: Guard, data: Dataset) -> None:
    """Neither is a cell of a name that stands twice dropped, nor one that is cut off completed."""
    row = records(data)[0]
    names, cells = list(row), list(row.values())
    one_too_few, twice = cells[:-1], [*names, names[0]]
    for columns, values, said in (
        (names, one_too_few, f"row 0 has {len(names) - 1} cells: expected {len(names)} cells"),
        (twice, [*cells, cells[0]], f"the column '{names[0]}' is there twice"),
    ):
        frame = {"columns": columns, "data": [values]}
        text = ",".join(columns) + "\n\n" + ",".join(map(str, values)) + "\n"
        for response in (
            guard.post("/invocations", {"dataframe_split": frame}),
            guard.client.post("/invocations", content=text, headers={"content-type": "text/csv"}),
        ):
            assert response.status_code == 422
            assert said in json.dumps(response.json())
    frame = {"columns": len(names), "data": [cells]}
    response = guard.post("/invocations", {"dataframe_split": frame})
    assert response.status_code == 422
    assert "expected columns that are a list of names" in json.dumps(response.json())


def test_an_empty_cell_is_answered_as_the_row_that_is_told(guard: Guard, data: Dataset) -> None:
    row = records(data)[0]
    empty, whole = row | {"age": None}, row | {"age": 33}
    first, second = guard.post("/predict", {"records": [empty, whole]}).json()["answers"]
    assert first["completed"] == "age = 33"
    assert not second["completed"]
    assert first["digest"] == second["digest"]
    [found] = guard.post("/invocations", {"dataframe_records": [empty]}).json()["predictions"]
    assert found["completed"] == "age = 33"
    refused = guard.post("/predict", {"records": [row | {"amount": None}]})
    assert refused.status_code == 422
    assert refused.json()["detail"] == "row 0: amount is empty: expected a value"


def test_mlflow_loads_what_takes_named_rows(guard: Guard, data: Dataset, project: Path) -> None:
    rows = records(data)
    native = guard.post("/predict", {"records": rows}).json()["answers"]
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    try:
        run = MlflowClient().get_model_version(NAME, "1").run_id
        model = mlflow.pyfunc.load_model(f"runs:/{run}/guard")
    finally:
        mlflow.set_tracking_uri(None)
    found = model.predict(pd.DataFrame(rows), params={"epsilon": EPSILON}).to_dict("records")
    assert [each["class"] for each in found] == [each["class"] for each in native]
    accepted = [each["decision"] == "accepted" for each in found]
    assert accepted == [each["decided_by"] == "interval" for each in native]
    assert any(accepted)
    assert "completed" not in found[0]
    [completed] = model.predict(pd.DataFrame([rows[0] | {"age": None}])).to_dict("records")
    assert completed["completed"] == "age = 33"
    with pytest.raises(MlflowException, match=r"months is 12.5: expected a whole number"):
        model.predict(pd.DataFrame([rows[0] | {"months": 12.5}]))
