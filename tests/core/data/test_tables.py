"""Tables: read as the schema says, or refused with the cell that contradicts it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation
from tasks.core.sources.catalogue import load
from tests.core.data.test_schema import values

CELLS = {
    "age": ["30", "40", "50", "60"] * 5,
    "balance": ["0.1", "200", "1e3", "7"] * 5,
    "region": ["south", "north", "north", "south"] * 5,
    "status": ["kept", "kept", "closed", "moved"] * 5,
    "id": [str(number) for number in range(20)],
}


def cells(**changes: Any) -> dict[str, list[str]]:
    """The columns, with other values in some rows: `age={3: "x"}`; or without one: `age=None`."""
    columns = {name: list(column) for name, column in CELLS.items()}
    for name, change in changes.items():
        if change is None:
            del columns[name]
            continue
        for row, value in change.items():
            columns[name][row] = value
    return columns


def csv_of(columns: dict[str, list[str]], separator: str = ",") -> bytes:
    lines = [separator.join(columns), *map(separator.join, zip(*columns.values(), strict=True))]
    return "\n".join([*lines, ""]).encode()


def written(folder: Path, content: bytes | None = None, **schema: Any) -> str:
    """A table and its schema; the path of the schema."""
    if content is not None:
        (folder / "customers.csv").write_bytes(content)
    (folder / "customers.yaml").write_text(yaml.safe_dump(values(**schema)))
    return str(folder / "customers.yaml")


def read(folder: Path, content: bytes | None = None, **schema: Any) -> Dataset:
    return load(written(folder, content or csv_of(CELLS), **schema), folder)


def test_rows_become_inputs(tmp_path: Path) -> None:
    data = read(tmp_path, positive="left")
    assert data.completions == {}
    inputs = np.concatenate([data.train_inputs, data.test_inputs])
    labels = np.concatenate([data.train_labels, data.test_labels])
    assert (data.name, data.class_names, data.positive) == ("customers", ("kept", "left"), 1)
    assert (inputs.dtype, labels.dtype) == (np.float32, np.int64)
    # age, balance, region[north], region[south]
    expected = [[30, np.float32(0.1), 0, 1], [40, 200, 1, 0], [50, 1000, 1, 0], [60, 7, 0, 1]]
    order = np.argsort(inputs[:, 0], kind="stable")
    np.testing.assert_array_equal(inputs[order], np.repeat(np.float32(expected), 5, axis=0))
    np.testing.assert_array_equal(labels[order], np.repeat([0, 0, 1, 1], 5))
    assert data.domain.contains(inputs).all()
    assert data.domain.decoded(inputs[order[0]])["region"] == "south"
    assert data.card.notes == ("columns that are not used: id",)


def test_the_split_is_stratified_and_seeded(tmp_path: Path) -> None:
    data = read(tmp_path)
    assert np.bincount(data.train_labels).tolist() == [8, 8]
    assert np.bincount(data.test_labels).tolist() == [2, 2]
    again = read(tmp_path)
    np.testing.assert_array_equal(data.test_inputs, again.test_inputs)
    assert data.sha256 == again.sha256 != read(tmp_path, split_seed=1).sha256
    assert len(read(tmp_path, test_share=0.5).test_labels) == 10


def test_the_digest_follows_what_may_change(tmp_path: Path) -> None:
    features = values()["features"]
    still = [features[0], features[1] | {"direction": "up"}, features[2]]
    assert read(tmp_path).sha256 != read(tmp_path, features=still).sha256


def test_a_published_test_set(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_bytes(csv_of(cells(age={0: "99"})))
    data = read(tmp_path, test_source="test.csv")
    assert (len(data.train_labels), len(data.test_labels)) == (20, 20)
    assert data.test_inputs[0, 0] == 99


@pytest.mark.parametrize(
    "content",
    [
        csv_of(CELLS),
        b"\xef\xbb\xbf" + csv_of(CELLS),
        gzip.compress(csv_of(CELLS), mtime=0),
        csv_of(CELLS, ";"),
        csv_of(CELLS, "\t"),
        csv_of(CELLS).replace(b"\n", b"\r\n"),
        csv_of({name: [f'"{cell}"' for cell in column] for name, column in CELLS.items()}),
    ],
    ids=["plain", "byte order mark", "gzip", "semicolons", "tabs", "windows", "quoted"],
)
def test_forms_of_csv(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert read(tmp_path, content).sha256 == read(tmp_path / "plain").sha256


def test_no_line_of_names(tmp_path: Path) -> None:
    content = csv_of(CELLS).partition(b"\n")[2]
    data = read(tmp_path, content, columns=list(CELLS))
    (tmp_path / "named").mkdir()
    assert data.sha256 == read(tmp_path / "named").sha256


@pytest.mark.parametrize("nullable", [False, True])
def test_parquet(nullable: bool, tmp_path: Path) -> None:
    frame = pd.DataFrame(CELLS).astype({"age": "int64", "balance": "float64"})
    frame["region"] = frame["region"].map({"north": 1, "south": 2})
    if nullable:
        frame = frame.convert_dtypes()
        frame.loc[3, "region"] = pd.NA
    frame.to_parquet(tmp_path / "customers.parquet")
    features = values()["features"]
    coded = [*features[:2], {"name": "region", "kind": "category", "categories": [1, 2]}]
    path = written(tmp_path, source="customers.parquet", features=coded, missing="impute")
    data = load(path, tmp_path)
    regions = np.concatenate([data.train_inputs, data.test_inputs])[:, 2:]
    assert regions.sum() == 20
    assert abs(regions[:, 0].sum() - 10) <= nullable
    assert len(data.card.notes) == 1 + nullable


def test_parquet_with_truth_values_and_dictionaries(tmp_path: Path) -> None:
    frame = pd.DataFrame(CELLS).astype({"age": "int64", "balance": "float64"})
    frame["region"] = frame["region"].astype("category")
    frame["known"] = [True, None] * 10
    frame.to_parquet(tmp_path / "customers.parquet")
    features = [*values()["features"], {"name": "known", "kind": "binary"}]
    path = written(tmp_path, source="customers.parquet", features=features, missing="impute")
    data = load(path, tmp_path)
    assert (np.concatenate([data.train_inputs, data.test_inputs])[:, 4] == 1).all()


def test_truth_values_are_binary(tmp_path: Path) -> None:
    features = [*values()["features"], {"name": "id", "kind": "binary"}]
    content = csv_of(cells(id=dict.fromkeys(range(20), "False") | {4: "True", 5: "1"}))
    data = read(tmp_path, content, features=features)
    assert data.train_inputs[:, 4].sum() + data.test_inputs[:, 4].sum() == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"balance": None}, r"customers\.csv: has no column 'balance': it has age, region"),
        ({"status": None}, "has no column 'status'"),
        ({"age": {3: "old"}}, r"row 4: age is 'old': expected a number \(kind: integer\)"),
        ({"age": {3: "30.5"}}, "row 4: age is '30.5': expected a whole number"),
        ({"age": {7: "17", 9: "3"}}, r"row 8: age is '17': expected 18 to 99 \(and 1 more rows\)"),
        ({"age": {7: "100"}}, "row 8: age is '100': expected 18 to 99;"),
        ({"balance": {0: "-0.1"}}, "row 1: balance is '-0.1': expected 0 to 1000"),
        ({"balance": {0: "inf"}}, "row 1: balance is 'inf': expected 0 to 1000"),
        ({"balance": {0: "1e999"}}, "row 1: balance is '1e999'"),
        ({"region": {19: "west"}}, "row 20: region is 'west': expected one of north, south"),
        ({"region": {19: "North"}}, "row 20: region is 'North'"),
        (
            {"status": {2: "sold"}},
            "row 3: status is 'sold': expected a value of a class: kept, closed, moved",
        ),
        ({"status": {2: ""}}, "row 3: status is empty"),
        ({"status": dict.fromkeys(range(20), "kept")}, "target status is constant: .*'kept'"),
        ({"age": {3: "", 5: "NA"}}, "age is empty in 2 rows: .*missing: impute"),
        ({"region": {3: ""}}, "region is empty in 1 rows"),
    ],
)
def test_cells_that_contradict_the_schema(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CertiflowError, match=said) as raised:
        read(tmp_path, csv_of(cells(**changes)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"features": [{"name": "ages", "upper": 99}]}, "no column 'ages': did you mean 'age'"),
        ({"features": [{"name": "age", "upper": 99, "mutable": False}]}, "no feature can change"),
        ({"classes": ["kept", "closed", "moved", "won"]}, "class 'won' has no row to train on"),
        ({"classes": ["kept", "closed"]}, "row 4: status is 'moved'"),
        ({"source": "none.csv"}, "none.csv: No such file"),
        ({"test_source": "none.csv"}, "none.csv: No such file"),
        ({"columns": ["age", "status"]}, "first line has 5 cells for 2 columns"),
    ],
)
def test_schemas_that_contradict_the_data(
    schema: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CertiflowError, match=said) as raised:
        read(tmp_path, **schema)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n", "it is empty"),
        (b"age,balance,region,status\n", "has no rows"),
        (b"age,age,region,status\n30,1,north,kept\n", "column 'age' stands twice"),
        (csv_of(CELLS) + b"1,2,3,4,5,6\n", "cannot be read as CSV"),
        (b"a,b\n1,2,3\n4,5,6\n", "cannot be read as CSV"),  # pandas would drop a column
        (b"\xff\xfe\x00a", "not text in UTF-8"),
        (gzip.compress(csv_of(CELLS), mtime=0)[:60], "cannot be read as CSV"),
        (b"PAR1 and no more", "cannot be read as CSV or Parquet"),
    ],
)
def test_files_that_are_no_tables(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match=said) as raised:
        read(tmp_path, content)
    assert "\n" not in str(raised.value)


def test_a_class_of_one_row_cannot_be_split(tmp_path: Path) -> None:
    content = csv_of(cells(status=dict.fromkeys(range(1, 20), "kept") | {0: "moved"}))
    with pytest.raises(CertiflowError, match=r"19 of 'kept', 1 of 'left': too few rows"):
        read(tmp_path, content)


def test_empty_cells_become_the_usual_value_of_the_training_rows(tmp_path: Path) -> None:
    """Medians of 50 50 50 60 60: 50; the most frequent region of five: north."""
    train = {
        "age": ["50", "", "50", "60", "50", "60"],
        "balance": ["1", "2", "", "4", "?", "6"],
        "region": ["north", "north", "south", "NA", "south", "north"],
        "status": ["kept", "moved"] * 3,
    }
    test = {
        "age": ["", "99"],
        "balance": ["9"] * 2,
        "region": [""] * 2,
        "status": ["kept", "moved"],
    }
    (tmp_path / "test.csv").write_bytes(csv_of(test))
    data = read(tmp_path, csv_of(train), test_source="test.csv", missing="impute")
    assert data.train_inputs[:, 0].tolist() == [50, 50, 50, 60, 50, 60]
    assert data.train_inputs[:, 1].tolist() == [1, 2, 3, 4, 3, 6]
    assert data.train_inputs[:, 2].tolist() == [1, 1, 0, 1, 0, 1]
    assert data.test_inputs.tolist() == [[50, 9, 1, 0], [99, 9, 1, 0]]
    assert data.card.notes == (
        "age is empty in 2 rows, taken to be 50",
        "balance is empty in 2 rows, taken to be 3",
        "region is empty in 3 rows, taken to be north",
    )
    assert data.completions == {"age": "50", "balance": "3", "region": "north"}


def test_completions_are_known_without_an_empty_cell_and_can_be_given(tmp_path: Path) -> None:
    """From the training rows alone, where balances are 0.1, 7, 200 and 1000 in equal numbers."""
    (tmp_path / "test.csv").write_bytes(csv_of(cells(age={0: ""}, balance={1: "9", 2: "9"})))
    data = read(tmp_path, test_source="test.csv", missing="impute")
    assert data.completions == {"age": "45", "balance": "103.5", "region": "north"}
    assert data.test_inputs[0, 0] == 45
    path = str(tmp_path / "customers.yaml")
    given = load(path, tmp_path, completions={"age": "77"})
    assert given.completions == {"age": "77", "balance": "103.5", "region": "north"}
    assert given.test_inputs[0, 0] == 77
    assert given.sha256 != data.sha256


def test_a_category_may_be_called_as_an_empty_cell(tmp_path: Path) -> None:
    features = values()["features"]
    region = {"name": "region", "kind": "category", "categories": ["NA", "north", "south"]}
    data = read(tmp_path, csv_of(cells(region={0: "NA"})), features=[*features[:2], region])
    assert data.train_inputs[:, 2].sum() + data.test_inputs[:, 2].sum() == 1


def test_categories_name_the_codes_of_a_file(tmp_path: Path) -> None:
    """In relations and in all that people read; cells are the codes."""
    content = csv_of(cells(region={row: "12"[row % 2] for row in range(20)}))
    named = {"name": "region", "kind": "category", "categories": ["north", "south"]}
    features = [named | {"values": [2, 1]}, {"name": "age", "lower": 0, "upper": 100}]
    relations = ["region[south] <= 1"]
    data = read(tmp_path, content, features=features, relations=relations)
    rows = np.concatenate([data.train_inputs, data.test_inputs])
    assert rows[:, :2].sum(axis=0).tolist() == [10, 10]
    assert data.domain.decoded(np.array([1, 0, 30])) == {"region": "north", "age": 30}
    with pytest.raises(CertiflowError, match="region is '3': expected one of 2, 1"):
        read(
            tmp_path,
            csv_of(cells(region={0: "3"} | dict.fromkeys(range(1, 20), "1"))),
            features=features,
        )


@pytest.mark.parametrize("known", [["1", "2"], ["1.0", "2.0"]])
def test_codes_may_be_written_with_a_point(known: list[str], tmp_path: Path) -> None:
    content = csv_of(cells(region={row: ("1.0", "2.0")[row % 2] for row in range(20)}))
    named = {"name": "region", "kind": "category", "categories": known}
    data = read(tmp_path, content, features=[named, {"name": "age", "upper": 100}])
    rows = np.concatenate([data.train_inputs, data.test_inputs])
    assert rows[:, :2].sum(axis=0).tolist() == [10, 10]


def test_limits_are_values_too(tmp_path: Path) -> None:
    data = read(tmp_path, csv_of(cells(age={0: "18", 1: "99"}, balance={0: "0", 1: "1000"})))
    inputs = np.concatenate([data.train_inputs, data.test_inputs])
    assert inputs[:, :2].min(axis=0).tolist() == [18, 0]
    assert inputs[:, :2].max(axis=0).tolist() == [99, 1000]


def test_the_median_of_whole_numbers_is_a_whole_number(tmp_path: Path) -> None:
    """Of 50 and 61, in the middle: 55.5, rounded down."""
    train = {name: column[:6] for name, column in CELLS.items()}
    train |= {"age": ["50", "50", "61", "61", "", ""]}
    (tmp_path / "test.csv").write_bytes(csv_of(CELLS))
    data = read(tmp_path, csv_of(train), test_source="test.csv", missing="impute")
    assert data.train_inputs[4:, 0].tolist() == [55, 55]


def test_relations_that_the_data_break_are_told(tmp_path: Path) -> None:
    data = read(tmp_path, relations=["age >= 60 -> balance >= 100"])
    broken = int((data.train_inputs[:, 0] == 60).sum())
    assert (
        data.card.notes[-1] == f"{broken} of 16 training rows break 'age >= 60 -> balance >= 100'"
    )


def test_scale_and_changes_of_categories_reach_the_perturbation(tmp_path: Path) -> None:
    path = written(tmp_path, csv_of(CELLS))
    by_range = load(path, tmp_path).perturbation
    absolute = load(path, tmp_path, scale="absolute", most_changes=1).perturbation
    assert by_range.up[:2].tolist() == [0, pytest.approx(1000 - 0.1)]
    assert absolute.up[:2].tolist() == [0, 1]
    assert (by_range.most_changes, absolute.most_changes) == (0, 1)
    assert absolute.most_alternatives == 2


def test_the_typical_row_has_means_whole_numbers_and_the_most_frequent_words() -> None:
    domain = Domain.of_table(
        [
            Feature(name="rate"),
            Feature(name="n", kind="integer", upper=9),
            Feature(name="flag", kind="binary"),
            Feature(name="sex", kind="category", categories=("m", "f", "x")),
        ]
    )
    rows = np.array(
        [[0.1, 2, 1, 0, 1, 0], [0.2, 3, 1, 1, 0, 0], [0.6, 3, 0, 0, 1, 0]], dtype=np.float32
    )
    labels = np.zeros(3, dtype=np.int64)
    perturbation = Perturbation.of_table(domain, rows)
    data = Dataset("t", rows, labels, rows, labels, ("a", "b"), perturbation)
    assert data.typical_input == pytest.approx([0.3, 3, 1, 0, 1, 0])
    assert domain.contains(data.typical_input[None]).all()
