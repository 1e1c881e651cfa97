"""Rows of a table at the command: labels, how far they are proved, and what would change them."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from tasks.core.data.tables import read_rows
from tasks.core.models.loading import load
from tests.command import certiflow, clean_environment, invoked, refusal
from tests.loans import loans, save_as_scikit_learn, trained, write_loans
from tests.model_files import NNET_LINES, saved_nnet

COLUMNS = ["label", "certified_radius", "flipped_radius", "flipped_by"]
FAST = ["--timeout", "5", "--workers", "1", "--max-epsilon", "0.5", "--tolerance", "0.02"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the table, its schema, two files of one model and rows to be predicted."""
    folder = tmp_path_factory.mktemp("project")
    write_loans(folder)
    model = trained(loans(folder), epochs=20)
    model.save(folder / "bank.keras")
    save_as_scikit_learn(model, folder / "bank.onnx")
    rows = pd.read_csv(folder / "loans.csv").drop(columns="status").head(8)
    rows.insert(0, "customer", [f"no. {number}" for number in range(8)])
    rows.to_csv(folder / "new.csv", index=False)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(folder / "other.keras")
    saved_nnet(folder, NNET_LINES)
    return folder


@pytest.fixture
def project(written: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(written)
    return written


@pytest.fixture(scope="module")
def said(written: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run in a process of its own, through a pipe, prints."""
    environment = clean_environment(tmp_path_factory.mktemp("prefect"), COLUMNS="80")
    asked = ["predict", "bank.onnx", "new.csv", "--data", "loans.yaml", *FAST]
    result = certiflow(written, environment, *asked)
    assert result.returncode == 0, result.stderr
    return result.stdout


def replayed(row: pd.Series, changes: str) -> pd.Series:
    """The row with its changes made, read from their words."""
    made = row.copy()
    for change in changes.split("; "):
        name, before, after = re.fullmatch(r"(\S+) (\S+) -> (\S+)", change).groups()  # type: ignore[union-attr]
        assert before == f"{float(row[name]):,.7g}"
        made[name] = after.replace(",", "")
    return made


def test_every_row_has_a_label_a_proof_and_a_change(said: str, project: Path) -> None:
    table = pd.read_csv(project / "predicted.csv")
    rows = pd.read_csv(project / "new.csv")
    assert table.columns.tolist() == [*rows.columns, *COLUMNS]
    pd.testing.assert_frame_equal(table[rows.columns], rows)
    domain, runtime = loans(project).domain, load(Path("bank.onnx")).runtime
    labels = runtime.logits(read_rows(Path("new.csv"), domain.features)[1]).argmax(axis=1)
    assert table["label"].tolist() == [("paid", "default")[label] for label in labels]
    assert (table["certified_radius"] >= 0).all()
    flipped = table[table["flipped_by"].notna()]
    assert (flipped["certified_radius"] < flipped["flipped_radius"]).all()
    assert (flipped["flipped_radius"] - flipped["certified_radius"] <= 0.02).any()
    assert len(flipped) >= 2
    changed = [
        replayed(table.loc[at, rows.columns], flipped["flipped_by"][at]) for at in flipped.index
    ]
    pd.DataFrame(changed).to_csv("flipped.csv", index=False)
    inputs = read_rows(Path("flipped.csv"), domain.features)[1]
    assert domain.contains(inputs).all()
    assert (runtime.logits(inputs).argmax(axis=1) != labels[flipped.index]).all()


def test_the_screen_sums_up(said: str) -> None:
    assert re.search(r"^8 rows: \d paid, \d default$|^8 rows: \d default, \d paid$", said, re.M)
    assert "certified radius: median " in said
    assert "predicted.csv" in said
    assert max(map(len, said.splitlines())) <= 80


def test_parquet_gives_what_csv_gives(
    said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pd.read_csv("new.csv").to_parquet("new.parquet")
    asked = ["predict", "bank.onnx", "new.parquet", "--data", "loans.yaml", *FAST]
    result = invoked(monkeypatch, *asked, "--output", "predicted.parquet")
    assert result.exit_code == 0, result.exception
    found = pd.read_parquet("predicted.parquet")
    expected = pd.read_csv("predicted.csv", keep_default_na=False)
    for column in ("label", "flipped_by"):
        assert found[column].tolist() == expected[column].tolist()
    np.testing.assert_allclose(found["certified_radius"], expected["certified_radius"])


def test_radii_are_told_in_the_scale_that_is_asked_for(
    said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a euro is nothing beside half of the range, and no whole number of months."""
    asked = ["predict", "bank.onnx", "new.csv", "--data", "loans.yaml", *FAST]
    result = invoked(monkeypatch, *asked, "--scale", "absolute", "--output", "absolute.csv")
    assert result.exit_code == 0, result.exception
    expected, found = (pd.read_csv(name) for name in ("predicted.csv", "absolute.csv"))
    assert (found["certified_radius"] == 0.5).all()
    assert (expected["certified_radius"] < 0.5).any()


def test_categories_may_change_where_that_is_asked_for(
    said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is made mutable: what is proved of it falls, and rows are flipped by it."""
    text = Path("loans.yaml").read_text()
    Path("open.yaml").write_text(text.replace("  mutable: false\nrelations", "relations"))
    asked = ["predict", "bank.onnx", "new.csv", "--data", "open.yaml", *FAST]
    result = invoked(monkeypatch, *asked, "--category-changes", "1", "--output", "changed.csv")
    assert result.exit_code == 0, result.exception
    expected, found = (pd.read_csv(name) for name in ("predicted.csv", "changed.csv"))
    assert (found["certified_radius"] <= expected["certified_radius"] + 0.02).all()
    assert found["flipped_by"].str.contains("job").any()


def test_rows_that_break_a_relation_are_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is proved is of valid rows nearby, and there may be none."""
    rows = pd.read_csv("new.csv").head(3)
    rows.loc[1, ["amount", "months"]] = [300.0, 60]
    rows.to_csv("broken.csv", index=False)
    asked = ["predict", "bank.onnx", "broken.csv", "--data", "loans.yaml", *FAST]
    result = invoked(monkeypatch, *asked, "--output", "of_broken.csv")
    assert result.exit_code == 0, result.exception
    assert "amount >= 20 * months is broken by 1 of 3 rows (2): what is proved" in result.output


def test_images_have_neither(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = refusal(
        monkeypatch, "predict", "bank.onnx", "new.csv", "--data", "digits", "--scale=std"
    )
    assert "--data: scale is 'std' and category_changes is 0, but digits is images" in told


CASES = {
    "unknown column": ({"amount": None}, [], "new.csv: has no column 'amount'"),
    "outside": ({"age": 90}, [], "row 1: age is '90': expected 18 to 80 (and 7 more rows)"),
    "no number": ({"months": "long"}, [], "months is 'long': expected a number (kind: integer)"),
    "unseen category": ({"job": "D"}, [], "job is 'D': expected one of A, B, C"),
    "empty": ({"job": ""}, [], "job is empty: expected a value"),
    "taken": ({"label": 1}, [], "has a column 'label', which predict writes"),
    "output": ({}, ["--output", "new.csv/x.csv"], "--output new.csv/x.csv: Not a dir"),
    "kind of output": ({}, ["--output", "x.xlsx"], "--output x.xlsx: expected a .csv or a .parq"),
    "tolerance": ({}, ["--tolerance", "0.9"], "the tolerance is 0.9: expected"),
    "radius": ({}, ["--max-epsilon", "2"], "the greatest epsilon is 2"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_rows_and_options_are_one_line(
    name: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, options, said = CASES[name]
    rows = pd.read_csv("new.csv", dtype=str)
    for column, value in changes.items():
        rows[column] = value
    rows = rows.drop(columns=[column for column, value in changes.items() if value is None])
    rows.to_csv(tmp_path / "new.csv", index=False)
    asked = ["predict", "bank.onnx", str(tmp_path / "new.csv"), "--data", "loans.yaml"]
    assert said in refusal(monkeypatch, *asked, *options)


@pytest.mark.parametrize(
    ("model", "rows", "data", "said"),
    [
        ("bank.onnx", "none.csv", "loans.yaml", "none.csv: No such file"),
        ("bank.onnx", "bank.keras", "loans.yaml", "bank.keras: "),
        ("none.onnx", "new.csv", "loans.yaml", "none.onnx: no such file"),
        ("other.keras", "new.csv", "loans.yaml", "4 inputs and 2 outputs: loans needs 6 and 2"),
        ("bank.onnx", "new.csv", "digits", "digits is images: predict takes the rows of a table"),
        ("bank.onnx", "new.csv", "new.csv", "--data: dataset is 'new.csv': expected mnist, "),
        ("bank.onnx", "new.csv", "none.yaml", "none.yaml: "),
    ],
)
def test_what_does_not_fit_is_one_line(
    model: str, rows: str, data: str, said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in refusal(monkeypatch, "predict", model, rows, "--data", data)


def test_no_rows_are_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("empty.csv").write_text("amount,months,age,job\n")
    told = refusal(monkeypatch, "predict", "bank.onnx", "empty.csv", "--data", "loans.yaml")
    assert "empty.csv: has no rows" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["other.keras"], "4 inputs and 2 outputs: loans needs 6 and 2"),
        (["network.nnet"], "network.nnet: MLflow keeps Keras and ONNX models only"),
        (["bank.keras", "--set", "properties={fair: [sex]}"], "there is no feature 'sex'"),
        (["bank.keras", "--set", "properties={monotone: {job: up}}"], "job is a category"),
        (
            ["bank.keras", "--set", "properties={fair: [job], samples: 81}"],
            "properties.samples is 81: expected at most 80",
        ),
        (["bank.keras", "--set", "properties={}"], "properties asks for nothing"),
    ],
)
def test_an_evaluation_is_refused_before_it_starts(
    arguments: list[str], said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = str(Path(__file__).parents[3] / "conf/smoke.yaml")
    asked = ["evaluate", *arguments[:1], "--data", "loans.yaml", "--conf", conf, *arguments[1:]]
    assert said in refusal(monkeypatch, *asked)
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_an_evaluation_does_not_look_at_the_training(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images, which no table has: the model is what is refused."""
    conf = str(Path(__file__).parents[3] / "conf/smoke.yaml")
    asked = ["evaluate", "other.keras", "--data", "loans.yaml", "--conf", conf]
    told = refusal(monkeypatch, *asked, "--set", "training.architecture=cnn_small")
    assert "loans needs 6 and 2" in told


def test_a_doctor_is_given_a_dataset(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--data: dataset is 'new.csv'" in refusal(
        monkeypatch, "doctor", "bank.onnx", "--data", "new.csv"
    )
    fits = invoked(monkeypatch, "doctor", "bank.onnx", "--data", "loans.yaml")
    assert (fits.exit_code, fits.stdout.splitlines()[-1]) == (0, "can be verified")
    other = invoked(monkeypatch, "doctor", "other.keras", "--data", "loans.yaml")
    assert other.exit_code == 1
    assert "blocks: the model has 4 inputs and 2 outputs: loans needs 6 and 2" in other.stdout
