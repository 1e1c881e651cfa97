"""Proposed schemas: what they say of columns, and that they can be used as they are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from tasks.core.data.frames import read_frame
from tasks.core.data.proposal import propose, read_published
from tasks.core.errors import CertiflowError
from tasks.core.sources.catalogue import load

ROWS = 120
COLUMNS = {
    "number": [str(row + 1000) for row in range(ROWS)],
    "age": [str(20 + row % 50) for row in range(ROWS)],
    "rate": [str(row % 7 / 10) for row in range(ROWS)],
    "known": [str(row % 2) for row in range(ROWS)],
    "old": [str(row % 3 == 0) for row in range(ROWS)],
    "sex": [str(1 + row % 2) for row in range(ROWS)],
    "children": [str(row % 5) for row in range(ROWS)],
    "country": [("no", "Österreich", "US: east")[row % 3] for row in range(ROWS)],
    "remark": [f"text {row}" for row in range(ROWS)],
    "year": ["2020"] * ROWS,
    "nothing": [""] * ROWS,
    "income": ["" if row % 40 == 0 else str(row * 100) for row in range(ROWS)],
    "status": [("good", "bad")[row % 2] for row in range(ROWS)],
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pd.DataFrame(COLUMNS).to_csv(tmp_path / "people.csv", index=False)
    return tmp_path / "people.csv"


def proposed(table: Path, target: str = "status") -> str:
    return propose(read_frame(table), table.name, target)


def test_columns(table: Path) -> None:
    text = proposed(table)
    schema = yaml.safe_load(text)
    features = {feature.pop("name"): feature for feature in schema["features"]}
    assert schema["classes"] == ["bad", "good"]
    assert features == {
        "age": {"kind": "integer", "lower": 20, "upper": 69, "mutable": True},
        "rate": {"kind": "real", "lower": 0, "upper": 0.6, "mutable": True},
        "known": {"kind": "binary", "mutable": True},
        "old": {"kind": "binary", "mutable": True},
        "sex": {"kind": "category", "categories": ["1", "2"], "mutable": False},
        "children": {"kind": "integer", "lower": 0, "upper": 4, "mutable": True},
        "country": {
            "kind": "category",
            "categories": ["US: east", "no", "Österreich"],
            "mutable": False,
        },
        "year": {"kind": "integer", "lower": 2020, "upper": 2020, "mutable": True},
        "income": {"kind": "integer", "lower": 100, "upper": 11900, "mutable": True},
    }
    remarks = {
        line.split(",")[0]: line.partition("  # ")[2]
        for line in text.splitlines()
        if line.startswith("- {name: ")
    }
    assert remarks["- {name: children"] == "5 values: a category, if they have no order?"
    assert remarks["- {name: year"] == "constant"
    assert remarks["- {name: income"] == "3 empty cells"
    assert remarks["- {name: age"] == ""
    for name, why in [
        ("number", "identifier"),
        ("remark", "120 different texts"),
        ("nothing", "ev"),
    ]:
        assert f"# {name} is left out: " in text
        assert why in text


def test_a_proposal_can_be_used(table: Path) -> None:
    path = table.with_suffix(".yaml")
    path.write_text(proposed(table))
    with pytest.raises(CertiflowError, match=r"income is empty in 3 rows.*missing: impute"):
        load(str(path), table.parent)
    path.write_text(proposed(table).replace("# missing: impute", "missing: impute"))
    data = load(str(path), table.parent)
    assert data.input_shape == (7 + 2 + 3,)
    assert len(data.test_labels) == ROWS // 5


def test_rows_that_stand_twice_are_told(table: Path) -> None:
    frame = read_frame(table)
    assert "rows stand there before" not in proposed(table)
    twice = pd.concat([frame, frame.head(7)], ignore_index=True)
    assert "# 7 rows stand there before" in propose(twice, "people.csv", "status")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("state", "has no column 'state': expected the target, one of number, age"),
        ("year", "target year has 1 different values"),
        ("remark", "target remark has 120 different values: expected 2 to 100"),
        ("income", "row 1: the target income is empty"),
    ],
)
def test_targets_that_are_none(target: str, said: str, table: Path) -> None:
    with pytest.raises(CertiflowError, match=said):
        proposed(table, target)


PUBLISHED = "feature,type,mutable,min,max\nage,int,True,18.0,99.0\nrate,real,False,0.0,0.75\n"


def test_published_features_are_taken_alone(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "features.csv"
    path.write_text(PUBLISHED + "known,int,True,0.0,1.0\n")
    text = propose(read_frame(table), "people.csv", "status", read_published(path))
    assert yaml.safe_load(text)["features"] == [
        {"name": "age", "kind": "integer", "lower": 18, "upper": 99, "mutable": True},
        {"name": "rate", "kind": "real", "lower": 0, "upper": 0.75, "mutable": False},
        {"name": "known", "kind": "binary", "mutable": True},
    ]
    assert "# sex is left out: not among the published features" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("feature,type,min,max\nage,int,0,1\n", "lacks the column mutable"),
        (PUBLISHED + "sex,ohe0,True,0,1\n", "sex is of type 'ohe0': expected int or real"),
        (PUBLISHED + "sex,int,True,0,dynamic\n", "sex has min '0' and max 'dynamic'"),
        (PUBLISHED + "height,int,True,0,1\n", "has no column 'height', a published feature"),
    ],
)
def test_published_features_that_are_none(
    text: str, said: str, table: Path, tmp_path: Path
) -> None:
    path = tmp_path / "features.csv"
    path.write_text(text)
    with pytest.raises(CertiflowError, match=said):
        propose(read_frame(table), "people.csv", "status", read_published(path))
