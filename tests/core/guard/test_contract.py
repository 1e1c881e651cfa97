"""What a row of a table must be, each rule named where it is broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.core.guard.contract import BrokenRuleError, Contract
from tasks.core.properties.domain import Domain, Feature
from tests.loans import loans, write_loans

GOOD: dict[str, Any] = {"amount": 1500.5, "months": 12, "age": 40, "job": "B"}


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    folder = tmp_path_factory.mktemp("loans")
    write_loans(folder)
    return Contract(loans(folder).domain)


def test_named_features_are_the_model_s_inputs(contract: Contract) -> None:
    rows = contract.rows([GOOD, GOOD | {"job": "A", "months": 4.0}]).inputs
    assert rows.tolist() == [[1500.5, 12, 40, 0, 1, 0], [1500.5, 4, 40, 1, 0, 0]]
    assert rows.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"months": 12.5}, "row 0: months is 12.5: expected a whole number"),
        ({"age": 41.0000001}, "row 0: age is 41.0000001: expected a whole number"),
        ({"months": 73}, "row 0: months is 73: expected 4 to 72"),
        ({"amount": -1}, "row 0: amount is -1: expected 0 to 10,000"),
        ({"amount": float("nan")}, "row 0: amount is empty: expected a value"),
        ({"amount": "much"}, "row 0: amount is 'much': expected a number"),
        ({"amount": True}, "row 0: amount is True: expected a number"),
        ({"job": "D"}, "row 0: job is 'D': expected one of A, B, C"),
        ({"sex": "f"}, "row 0: unknown feature 'sex': expected amount, months, age, job"),
        ({"amount": 100, "months": 72}, "row 0: amount >= 20 * months is broken"),
    ],
)
def test_the_rule_that_is_broken_is_named(
    change: dict[str, Any], said: str, contract: Contract
) -> None:
    with pytest.raises(BrokenRuleError) as refused:
        contract.rows([GOOD | change])
    assert str(refused.value) == said


def test_what_is_missing_or_no_row_is_named(contract: Contract) -> None:
    with pytest.raises(BrokenRuleError, match="row 1: age is missing"):
        contract.rows([GOOD, {key: GOOD[key] for key in GOOD if key != "age"}])
    with pytest.raises(BrokenRuleError, match="row 0 is 'x': expected features by name"):
        contract.rows(["x"])  # type: ignore[list-item]
    with pytest.raises(BrokenRuleError, match="job has 2 categories: expected one"):
        contract.inputs([[1500, 12, 40, 1, 1, 0]])
    with pytest.raises(BrokenRuleError, match=r"row 0: months is 12\.0000001: expected a whole"):
        contract.inputs([[1500, 12.0000001, 40, 1, 0, 0]])
    with pytest.raises(BrokenRuleError, match="row 0: amount is inf: expected a finite number"):
        contract.inputs([[1e300, 12, 40, 1, 0, 0]])


def test_bounds_are_those_of_float32_numbers() -> None:
    """0.1 is a little less than the float32 number nearest to it, which is the least one."""
    contract = Contract(Domain.of_table([Feature(name="share", lower=0.1, upper=0.7)]))
    asked = contract.rows([{"share": 0.1}, {"share": 0.7}, {"share": float(np.float32(0.7))}])
    assert asked.inputs.tolist() == np.float32([[0.1], [0.7], [0.7]]).tolist()
    with pytest.raises(BrokenRuleError, match=r"share is 0\.09999999: expected 0\.1 to"):
        contract.rows([{"share": 0.09999999}])


def test_an_empty_cell_is_completed_and_told(contract: Contract) -> None:
    """What stands for it is a rule of the version; a feature without one refuses it."""
    filling = replace(contract, completions={"age": "33", "job": "C"})
    asked = filling.rows([GOOD | {"age": None, "job": ""}, GOOD | {"age": float("nan")}, GOOD])
    assert asked.inputs[:, 2].tolist() == [33, 33, 40]
    assert asked.inputs[:, 3:].tolist() == [[0, 0, 1], [0, 1, 0], [0, 1, 0]]
    assert list(asked.completed) == ["age = 33; job = C", "age = 33", ""]
    with pytest.raises(BrokenRuleError, match="row 0: amount is empty: expected a value"):
        filling.rows([GOOD | {"amount": None}])
    with pytest.raises(BrokenRuleError, match="amount is nan: expected a finite number"):
        contract.inputs([[float("nan"), 12, 40, 0, 1, 0]])


def test_codes_of_categories_may_be_written_with_a_point() -> None:
    """As in files; a category whose own name has one stays itself."""
    sex = Feature(name="sex", kind="category", categories=("man", "woman"), values=("1", "2"))
    plan = Feature(name="plan", kind="category", categories=("2", "2.0"))
    odd = Feature(name="odd", kind="category", categories=("nan", "NA"))
    contract = Contract(Domain.of_table([sex, plan]))
    assert Contract(Domain.of_table([odd])).rows([{"odd": "nan"}]).inputs.tolist() == [[1, 0]]
    rows = contract.rows([{"sex": 2.0, "plan": 2}, {"sex": "1.0", "plan": "2.0"}])
    assert rows.inputs.tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]
