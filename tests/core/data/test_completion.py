"""Empty cells: what is usual among the training rows, or what is said, and nothing else."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pytest

from tasks.core.data.completion import completed, completions_for, in_words
from tasks.core.data.schema import Schema
from tasks.core.errors import CertiflowError
from tests.core.data.test_schema import values

EMPTY = float("nan")


def schema(**changes: Any) -> Schema:
    """Of age (whole numbers), balance, region (north, south)."""
    return Schema.model_validate(values(missing="impute", **changes))


ROWS = np.array([[30, 0.1, 1], [EMPTY, 0.7, 1], [41, EMPTY, 0], [50, 0.2, EMPTY], [20, 0.3, 1]])


def test_medians_and_the_most_frequent_word() -> None:
    """Of 20 30 41 50: 35.5, rounded down; of 0.1 0.2 0.3 0.7: 0.25; south three times of four."""
    found = completions_for(ROWS, schema(), {})
    assert found == {"age": "35", "balance": "0.25", "region": "south"}


def test_what_is_given_goes_first() -> None:
    found = completions_for(ROWS, schema(), {"age": "77", "region": "north"})
    assert found == {"age": "77", "balance": "0.25", "region": "north"}


def test_a_feature_that_is_always_empty_has_only_what_is_given() -> None:
    rows = ROWS.copy()
    rows[:, 0] = EMPTY
    assert completions_for(rows, schema(), {}).keys() == {"balance", "region"}
    assert completions_for(rows, schema(), {"age": "18"})["age"] == "18"


@pytest.mark.parametrize("seed", range(5))
def test_a_median_survives_its_word(seed: int) -> None:
    """Between neighbours of many digits: a reader of the word gets the very number."""
    column = np.random.default_rng(seed).uniform(0, 1000, 10)
    rows = np.array([[30, value, 0] for value in column] + [[30, EMPTY, 0]])
    stated = schema()
    filled = completed(rows, stated.features, completions_for(rows, stated, {}))
    assert filled[-1, 1] == statistics.median(column.tolist())


def test_only_empty_cells_are_completed_and_told() -> None:
    stated = schema()
    found = completions_for(ROWS, stated, {})
    filled = completed(ROWS, stated.features, found)
    known = ~np.isnan(ROWS)
    assert (filled[known] == ROWS[known]).all()
    assert filled[~known].tolist() == [35, 0.25, 1]
    assert in_words(ROWS, stated.features, found) == [
        "",
        "age = 35",
        "balance = 0.25",
        "region = south",
        "",
    ]
    both = np.array([[EMPTY, 1, EMPTY]])
    assert in_words(both, stated.features, found) == ["age = 35; region = south"]


def test_where_empty_cells_are_refused_nothing_stands_for_them() -> None:
    refusing = Schema.model_validate(values())
    assert completions_for(ROWS, refusing, {}) == {}
    assert np.isnan(completed(ROWS, refusing.features, {})).sum() == 3
    with pytest.raises(CertiflowError, match=r"completions has age, but the schema refuses"):
        completions_for(ROWS, refusing, {"age": "30"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ages": "30"}, "has 'ages': expected features of the schema"),
        ({"status": "kept"}, "has 'status': expected features"),
        ({"age": "17"}, "has '17' for age: expected a whole number, 18 to 99"),
        ({"age": "30.5"}, "has '30.5' for age: expected a whole number"),
        ({"age": "old"}, "has 'old' for age"),
        ({"balance": "nan"}, "has 'nan' for balance: expected 0 to 1000"),
        ({"balance": "inf"}, "has 'inf' for balance"),
        ({"region": "west"}, "has 'west' for region: expected one of north, south"),
    ],
)
def test_what_is_no_value_is_refused(given: dict[str, str], said: str) -> None:
    stated = schema()
    with pytest.raises(CertiflowError, match=said) as raised:
        completed(ROWS, stated.features, completions_for(ROWS, stated, given))
    assert "\n" not in str(raised.value)
