"""Numbers counted again from raw tables, by hand on tables that are small enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.bundle import recount
from tasks.core.bundle.recount import Number, Tables, named, numbers
from tasks.core.errors import ContradictionError
from tasks.core.evidence.metrics import verification_table
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult

POINTS = {
    "epsilons": np.array([0.0, 0.1]),
    "clean": np.array([True, True, True, False]),
    "fgsm": np.array([[True, True, True, False], [True, True, False, False]]),
    "pgd": np.array([[True, True, True, False], [True, False, False, False]]),
    "certified": np.array([[True, True, True, False], [True, False, False, False]]),
}


def result(index: int, verdict: Verdict, epsilon: float = 0.1, **more: Any) -> VerificationResult:
    return VerificationResult(index, 0, epsilon, verdict, DecidedBy.CROWN, 0.5, **more)


@pytest.fixture
def tables() -> Tables:
    verdicts = [
        result(0, Verdict.ROBUST, deployed=True),
        result(1, Verdict.FALSIFIED, target=1),
        result(2, Verdict.UNKNOWN, reason="witnessed by Marabou only"),
    ]
    return Tables(POINTS, verification_table(verdicts), None, None, None)


def test_names_are_those_of_mlflow_taken_apart() -> None:
    assert named("pgd/robust_accuracy/eps_0.00001") == ("pgd/robust_accuracy", 1e-5)
    assert named("clean_accuracy") == ("clean_accuracy", None)


def test_shares_and_counts(tables: Tables) -> None:
    found = {name: (number.value, number.n) for name, number in numbers(tables).items()}
    assert found["clean_accuracy", None] == (0.75, 4)
    assert found["fgsm/robust_accuracy", 0.1] == (0.5, 4)
    assert found["pgd/robust_accuracy", 0.1] == found["pgd/robust_accuracy", None] == (0.25, 4)
    assert found["fgsm/success_rate", 0.1] == (pytest.approx(1 / 3), 3)
    assert found["fgsm/epsilon", None][0] == 0.1
    assert found["verification/certified_accuracy", 0.1] == (pytest.approx(1 / 3), 3)
    assert found["verification/unbroken_accuracy", 0.1] == (pytest.approx(2 / 3), 3)
    assert found["verification/witnessed_only", 0.1] == (1, 3)
    assert "radius/proved_mean" not in {name for name, _ in found}


def test_the_exact_accuracy_is_of_the_whole_test_set(tables: Tables) -> None:
    assert "exact_accuracy" not in recount.grid(tables)
    assert ("verification/exact_accuracy", 0.1) not in numbers(tables)
    wrong = verification_table([result(3, Verdict.FALSIFIED, target=1)])
    whole = replace(tables, verdicts=pd.concat([tables.verdicts, wrong], ignore_index=True))
    found = numbers(whole)
    assert found["verification/exact_accuracy", 0.1] == Number(0.25, 4)
    assert found["verification/exact_accuracy_high", None] == Number(0.5, 4)
    assert recount.grid(whole)["exact_accuracy_high"].tolist()[1] == 0.5


def test_radii_and_requirements(tables: Tables) -> None:
    radii = pd.DataFrame(
        {"sample_index": [0, 1], "label": [0, 0], "proved": [0.1, 0.0], "falsified": [0.2, 0.1]}
    ).assign(seconds=0.0, probes=1, complete=True, reason="")
    required = pd.DataFrame(
        {"requirement": "monotone/age", "epsilon": 0.1, "verdict": ["robust", "falsified"]}
    )
    found = numbers(replace(tables, radii=radii, requirements=required))
    assert found["radius/proved_mean", None].value == 0.05
    assert found["radius/proved_q0.5", None].value == 0.0
    assert found["properties/monotone/age/falsified", 0.1].value == 0.5
    wrong = radii.assign(falsified=[0.05, 0.1])
    with pytest.raises(ContradictionError, match="critical radius"):
        numbers(replace(tables, radii=wrong))


@pytest.mark.parametrize(
    ("name", "place"), [("certified", (1, 1)), ("pgd", (1, 2)), ("fgsm", (0, 3))]
)
def test_what_is_out_of_order_is_a_contradiction(
    name: str, place: tuple[int, int], tables: Tables
) -> None:
    changed = POINTS[name].copy()
    changed[place] = True
    with pytest.raises(ContradictionError, match="test point"):
        numbers(replace(tables, points=POINTS | {name: changed}))


def test_what_is_certified_is_not_broken_nearer(tables: Tables) -> None:
    pgd, certified = POINTS["pgd"].copy(), POINTS["certified"].copy()
    pgd[0, 0] = certified[0, 0] = False
    with pytest.raises(ContradictionError, match="test point 0"):
        numbers(replace(tables, points=POINTS | {"pgd": pgd, "certified": certified}))


def test_a_ball_that_is_proved_and_broken_is_a_contradiction(tables: Tables) -> None:
    both = [result(0, Verdict.ROBUST), result(0, Verdict.FALSIFIED, 0.05, target=1)]
    with pytest.raises(ContradictionError, match="sample 0: proved"):
        numbers(replace(tables, verdicts=verification_table(both)))
    attacked = [result(1, Verdict.ROBUST)]  # which PGD breaks
    with pytest.raises(ContradictionError, match="sample 1"):
        numbers(replace(tables, verdicts=verification_table(attacked)))


def test_tables_of_older_versions_have_fewer_columns(tables: Tables) -> None:
    columns = ["sample_index", "label", "epsilon", "verdict", "decided_by", "seconds"]
    older = numbers(replace(tables, verdicts=tables.verdicts[columns]))
    assert older.keys() < numbers(tables).keys()
    assert older["verification/certified_accuracy", 0.1].n == 3


def test_tables_are_read_from_a_folder(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    np.savez_compressed(tmp_path / recount.POINTS, allow_pickle=False, **POINTS)
    tables.verdicts.to_csv(tmp_path / recount.VERDICTS, index=False)
    assert numbers(Tables.of(tmp_path, None)) == numbers(tables)
