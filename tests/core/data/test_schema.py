"""Schemas: what they may say, and one line for what they may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core.data.schema import Schema, read_schema
from tasks.core.errors import CertiflowError


def values(**changes: Any) -> dict[str, Any]:
    whole = {
        "source": "customers.csv",
        "target": "status",
        "classes": ["kept", {"name": "left", "values": ["closed", "moved"]}],
        "features": [
            {"name": "age", "kind": "integer", "lower": 18, "upper": 99, "mutable": False},
            {"name": "balance", "lower": 0, "upper": 1000},
            {"name": "region", "kind": "category", "categories": ["north", "south"]},
        ],
    }
    return {key: value for key, value in (whole | changes).items() if value is not None}


def read(folder: Path, **changes: Any) -> Schema:
    path = folder / "customers.yaml"
    path.write_text(yaml.safe_dump(values(**changes)))
    return read_schema(path, Schema)


def test_what_it_says(tmp_path: Path) -> None:
    schema = read(tmp_path, positive="left", relations=["age <= 21 -> balance <= 500"])
    assert schema.class_names == ("kept", "left")
    assert schema.positive_label == 1
    assert schema.classes[1].values == ("closed", "moved")
    assert schema.domain.shape == (4,)
    assert schema.used_columns == ("age", "balance", "region", "status")
    assert (schema.test_share, schema.split_seed, schema.missing) == (0.2, 0, "error")


def test_a_tolerance_in_the_place_of_classes(tmp_path: Path) -> None:
    schema = read(tmp_path, classes=None, tolerance=12500)
    assert schema.class_names == ("within 12,500", "too high", "too low")
    assert (schema.classes, schema.positive_label) == ((), None)
    assert schema.domain.shape == (4,)  # what a model takes
    assert [feature.name for feature in schema.columns_read][-2:] == ["region", "status"]
    assert not schema.columns_read[-1].mutable


def test_numbers_are_words_of_classes_and_categories(tmp_path: Path) -> None:
    features = [{"name": "sex", "kind": "category", "categories": [1, 2]}]
    schema = read(tmp_path, classes=[0, 1], positive=1, features=features)
    assert schema.class_names == ("0", "1")
    assert schema.positive_label == 1
    assert schema.features[0].categories == ("1", "2")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": None}, "target is missing"),
        ({"targets": "x"}, "unknown key 'targets': allowed are source, test_source"),
        ({"features": [{"name": "age", "typ": "real"}]}, "unknown key 'features.0.typ': .*kind"),
        ({"features": []}, r"features is \[\]: tuple should have at least 1 item"),
        ({"features": [{"name": "a"}, {"name": "a"}]}, "feature 'a' stands twice"),
        ({"features": [{"name": "a", "lower": 3}]}, "a has lower 3 above upper 1"),
        ({"features": [{"name": "a", "kind": "colour"}]}, "features.0.kind is 'colour'"),
        ({"features": [{"name": "a", "scale": 0}]}, "features.0.scale is 0"),
        ({"features": [{"name": "status"}]}, "'status' is the target and a feature"),
        ({"classes": ["kept"]}, "classes is .*at least 2 items"),
        ({"classes": ["kept", "kept"]}, "class 'kept' stands twice"),
        ({"classes": ["kept", {"name": "left", "values": ["kept"]}]}, "class 'kept' stands twice"),
        ({"classes": [True, False]}, "classes.0 is True: put it in quotes"),
        ({"features": [{"name": "a", "kind": "category", "categories": [True]}]}, "in quotes"),
        (
            {"features": [{"name": "a", "kind": "category", "categories": [1, 2], "values": [3]}]},
            "a has 1 values for 2 categories: expected one for each, in the same order",
        ),
        (
            {
                "features": [
                    {"name": "a", "kind": "category", "categories": [1, 2], "values": [3, 3]}
                ]
            },
            "a has a category twice",
        ),
        (
            {
                "features": [
                    {"name": "a", "kind": "category", "categories": [1, 2], "values": [2, 1]}
                ]
            },
            "a has the category '1', which is another's value: expected names that are no other",
        ),
        ({"positive": "lost"}, "positive is 'lost': expected one of kept, left"),
        ({"classes": None}, "neither classes nor a tolerance: .*tolerance: 1000 where it is a nu"),
        ({"tolerance": 5}, "has classes and a tolerance: keep classes where"),
        ({"classes": None, "tolerance": 5, "positive": "left"}, "leave it out beside a tolerance"),
        ({"classes": None, "tolerance": 0}, r"tolerance is 0: expected 1e-30 to 1e\+37"),
        ({"classes": None, "tolerance": -1}, "tolerance is -1: "),
        ({"classes": None, "tolerance": "near"}, "tolerance is 'near': "),
        ({"classes": None, "tolerance": 5, "relations": ["status < 3"]}, "no feature 'status'"),
        ({"missing": "drop"}, "missing is 'drop'"),
        ({"test_share": 1}, "test_share is 1: .*less than 1"),
        ({"test_source": "t.csv", "test_share": 0.3}, "leave out test_share"),
        ({"columns": ["age", "age"]}, "column 'age' stands twice"),
        ({"relations": ["age <= heigth"]}, "there is no feature 'heigth'"),
        ({"relations": ["age * balance <= 3"]}, "multiplies features"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CertiflowError, match=said) as raised:
        read(tmp_path, **changes)
    assert str(raised.value).startswith(f"{tmp_path}/customers.yaml: ")
    assert "\n" not in str(raised.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with pytest.raises(CertiflowError, match="no such schema; `certiflow schema"):
        read_schema(path, Schema)
    for text, said in [
        ("[1", "cannot be read as YAML"),
        ("word", "expected keys"),
        ("", "found N"),
    ]:
        path.write_text(text)
        with pytest.raises(CertiflowError, match=said):
            read_schema(path, Schema)
