"""Every number that versions are compared by, on cases counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import ContradictionError
from tasks.core.evidence.metrics import (
    check_points,
    decided_by_counts,
    epsilon_grid,
    verification_summary,
    verification_table,
    with_exact,
)
from tasks.core.evidence.sampling import share_interval
from tasks.core.verdicts import WITNESSED_ONLY, DecidedBy, Verdict, VerificationResult

LABELS = np.array([0, 1, 2, 3])
CLEAN = np.array([0, 1, 2, 9])  # the last is misclassified
FGSM = np.array([[0, 1, 2, 9], [0, 1, 7, 3]])  # at 0.1 one flips; the wrong one turns right
PGD = np.array([[False, False, False, True], [False, True, True, True]])
CERTIFIED = np.array([[True, True, True, False], [True, False, False, False]])


def test_grid_by_hand() -> None:
    grid = epsilon_grid([0.0, 0.1], LABELS, CLEAN, FGSM, PGD, CERTIFIED)
    assert grid["clean_accuracy"].tolist() == [0.75, 0.75]
    assert grid["fgsm_accuracy"].tolist() == [0.75, 0.5]  # a clean mistake stays broken
    assert grid["pgd_accuracy"].tolist() == [0.75, 0.25]
    assert grid["certified_accuracy"].tolist() == [0.75, 0.25]
    assert grid["fgsm_success_rate"].tolist() == [0.0, pytest.approx(1 / 3)]
    assert grid["pgd_success_rate"].tolist() == [0.0, pytest.approx(2 / 3)]


@pytest.mark.parametrize("point", [1, 2, 3])
def test_certified_yet_broken_is_a_contradiction(point: int) -> None:
    claimed = CERTIFIED.copy()
    claimed[1, point] = True
    with pytest.raises(ContradictionError, match=f"test point {point}: certified at epsilon 0.1"):
        epsilon_grid([0.0, 0.1], LABELS, CLEAN, FGSM, PGD, claimed)


def test_verification_summary_by_hand() -> None:
    verdicts = [Verdict.ROBUST, Verdict.FALSIFIED, Verdict.TIMEOUT, Verdict.ROBUST]
    results = [
        VerificationResult(index, 0, 0.1, verdict, DecidedBy.CROWN, 0.5)
        for index, verdict in enumerate(verdicts)
    ]
    results[0] = replace(results[0], deployed=True)
    results[3] = replace(results[3], deployed=False)
    results += [
        VerificationResult(0, 0, 0.2, Verdict.ERROR, DecidedBy.MARABOU, 2.0),
        VerificationResult(
            0, 0, 0.3, Verdict.UNKNOWN, DecidedBy.MARABOU, 1.0, reason=WITNESSED_ONLY
        ),
        VerificationResult(1, 0, 0.3, Verdict.UNKNOWN, DecidedBy.MARABOU, 1.0, reason="too loose"),
    ]
    table = verification_table(results)
    assert table["deployed"].tolist() == ["yes", "", "", "no", "", "", ""]
    summary = verification_summary(verification_table(results)).set_index("epsilon")
    assert summary.loc[0.1, "certified_accuracy"] == 0.5
    assert summary.loc[0.1, "certified_deployed_accuracy"] == 0.25
    assert summary.loc[0.1, "unbroken_accuracy"] == 0.75
    assert summary["points"].tolist() == [4, 1, 2]
    edges = summary.loc[0.1, ["certified_accuracy_low", "certified_accuracy_high"]]
    assert edges.tolist() == pytest.approx(share_interval(2, 4))
    assert summary.loc[0.1, "certified_deployed_accuracy_high"] == share_interval(1, 4)[1]
    assert summary.loc[0.3, "certified_accuracy_low"] == 0
    assert summary.loc[0.1, ["robust", "falsified", "timeout", "error"]].tolist() == [2, 1, 1, 0]
    assert summary.loc[0.2, "certified_accuracy"] == 0.0
    assert summary.loc[0.2, "unbroken_accuracy"] == 1.0
    assert summary.loc[0.2, "seconds"] == 2.0
    assert summary["witnessed_only"].tolist() == [0, 0, 1]
    assert summary.loc[0.3, "unknown"] == 2
    counts = decided_by_counts(table)
    assert counts.loc[0.3, "marabou witnessed"] == 1
    assert counts.loc[0.1, "crown robust"] == 2


def whole(verdict: Verdict = Verdict.UNKNOWN) -> pd.DataFrame:
    """The four points of the grid at 0.1: one proved, one broken, one given, one misclassified."""
    verdicts = [Verdict.ROBUST, Verdict.FALSIFIED, verdict, Verdict.FALSIFIED]
    return verification_table(
        [
            VerificationResult(index, index, 0.1, each, DecidedBy.CROWN, 0.5, deployed=None)
            for index, each in enumerate(verdicts)
        ]
    )


def test_the_exact_accuracy_lies_between_what_is_proved_and_what_is_not_broken() -> None:
    grid = epsilon_grid([0.0, 0.1], LABELS, CLEAN, FGSM, PGD, CERTIFIED)
    for verdict, high in ((Verdict.UNKNOWN, 0.5), (Verdict.FALSIFIED, 0.25)):
        summary = verification_summary(whole(verdict), test_size=4)
        assert summary.loc[0, ["exact_accuracy", "exact_accuracy_high"]].tolist() == [0.25, high]
        with_it = with_exact(grid, summary)
        assert with_it[grid.columns].equals(grid)
        assert with_it["exact_accuracy"].tolist() == [pytest.approx(np.nan, nan_ok=True), 0.25]
    of_sample = verification_summary(whole(), test_size=5)
    assert "exact_accuracy" not in of_sample
    assert with_exact(grid, of_sample).equals(grid)


def test_verified_points_are_held_against_attacks_and_bounds() -> None:
    points = {"epsilons": np.array([0.0, 0.1]), "pgd": ~PGD, "certified": CERTIFIED}
    check_points(whole(), points)
    with pytest.raises(ContradictionError, match=r"sample 2: robust at epsilon 0\.1"):
        check_points(whole(Verdict.ROBUST), points)  # which PGD breaks
    proved = CERTIFIED.copy()
    proved[1, 1] = True
    with pytest.raises(ContradictionError, match=r"sample 1: falsified at epsilon 0\.1"):
        check_points(whole(), points | {"certified": proved})
    of_the_reals = whole(Verdict.ROBUST).assign(deployed="no")
    check_points(of_the_reals, points)  # float32 may differ
