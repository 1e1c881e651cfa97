"""Domains: what inputs are valid, and what is said of features that cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.core.properties.domain import Domain, Feature, told_above

FEATURES = [
    Feature(name="rate", kind="real", lower=0.1, upper=0.7),
    Feature(name="age", kind="integer", lower=18, upper=99),
    Feature(name="known", kind="binary"),
    Feature(name="kind", kind="category", categories=("x", "y", "z")),
]
TABLE = Domain.of_table(FEATURES, ["age >= 21 -> known == 1"])
VALID = [0.5, 30, 1, 0, 1, 0]


def changed(place: int, value: float) -> list[float]:
    return [*VALID[:place], value, *VALID[place + 1 :]]


def test_columns_of_a_table() -> None:
    assert TABLE.shape == (6,)
    assert [name for each in FEATURES for name in each.columns] == [
        "rate", "age", "known", "kind[x]", "kind[y]", "kind[z]",
    ]  # fmt: skip
    assert TABLE.whole.tolist() == [False, True, True, True, True, True]
    assert [(each.name, columns) for each, columns in TABLE.groups] == [("kind", slice(3, 6))]


@pytest.mark.parametrize(
    ("row", "valid"),
    [
        (VALID, True),
        (changed(0, np.float32(0.1)), True),
        (changed(0, 0.09), False),
        (changed(0, 0.71), False),
        (changed(1, 17), False),
        (changed(1, 30.5), False),
        (changed(2, 0), False),  # the relation
        ([0.5, 20, 0, 0, 1, 0], True),
        (changed(3, 1), False),  # two categories
        (changed(4, 0), False),  # none
        (changed(2, 0.5), False),
    ],
)
def test_valid_rows(row: list[float], valid: bool) -> None:
    assert TABLE.contains(np.array([row], dtype=np.float32)).tolist() == [valid]


def test_nearest_has_whole_numbers() -> None:
    found = TABLE.nearest(np.array([[0.34, 30.6, 0.4, 0.1, 0.9, 0.0]]))
    assert found.tolist() == [[0.34, 31, 0, 0, 1, 0]]


def test_rows_in_peoples_words() -> None:
    row = np.array(VALID, dtype=np.float32)
    assert TABLE.decoded(row) == {"rate": 0.5, "age": 30, "known": 1, "kind": "y"}
    other = np.array([0.5, 31, 1, 0, 0, 1])
    assert TABLE.changes(row, other) == {"age": (30, 31), "kind": ("y", "z")}


def test_images_have_pixels_between_0_and_1() -> None:
    domain = Domain((2, 2))
    points = np.array([[[0, 1], [0.5, 0.25]], [[0, 1.1], [0, 0]]])
    assert domain.contains(points).tolist() == [True, False]
    assert domain.is_plain
    assert not TABLE.is_plain
    assert (domain.noun, TABLE.noun) == ("image", "row")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "category"}, "a category has some"),
        ({"categories": ("a",)}, "others have none"),
        ({"kind": "category", "categories": ("a", "a")}, "twice"),
        ({"lower": 2, "upper": 1}, "lower 2 above upper 1"),
        ({"kind": "binary", "upper": 3}, "leave out lower and upper"),
        (
            {"kind": "category", "categories": ("1", "2"), "lower": 1, "upper": 2},
            "is a category: leave out lower and upper",
        ),
        ({"kind": "integer", "lower": 0.5, "upper": 3}, "expected whole numbers"),
        ({"upper": 1e39}, "at most 1e+37"),
        ({"kind": "colour"}, "kind"),
        ({"scale": 0}, "scale"),
        ({"upper": float("nan")}, "upper"),
    ],
)
def test_features_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Feature.model_validate({"name": "f"} | fields)
    assert said in str(caught.value)


def test_the_same_words_about_other_columns_are_another_domain() -> None:
    one, two = (
        Domain.of_table([Feature(name=name) for name in names], ["a <= b"])
        for names in (("a", "b"), ("b", "a"))
    )
    assert one.words() != two.words()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.12345649302, "0.123457"),
        (0.1, "0.1"),
        (0.25, "0.25"),
        (1e-9, "1e-09"),
        (3.0000001, "3.00001"),
    ],
)
def test_a_bound_from_above_is_not_shown_as_less(value: float, shown: str) -> None:
    assert told_above(value, 6) == shown
