"""What versions are compared by: the measures, the points in common, and the order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.evidence.comparison import COSTS, MEASURES, Evidence, differences, rank
from tasks.core.evidence.paired import BOOTSTRAP, MCNEMAR
from tasks.core.evidence.sampling import share_interval

FREE = dict.fromkeys(COSTS, 1.0)


def evidence(
    *, proved: list[int], sample: range = range(10), data: str = "d", **changes: Any
) -> Evidence:
    """Two test images of three right; `proved` are the sampled points proved at 0.05."""
    verification = pd.DataFrame(
        {
            "sample_index": [index for index in sample for _ in (0, 1)],
            "epsilon": [0.01, 0.05] * len(sample),
            "verdict": [
                verdict
                for index in sample
                for verdict in ("robust", "robust" if index in proved else "unknown")
            ],
        }
    )
    points = {
        "epsilons": np.array([0.0, 0.05]),
        "clean": np.array([True, True, False]),
        "fgsm": np.array([[True, True, False], [True, False, False]]),
        "pgd": np.array([[True, True, False], [False, False, False]]),
        "certified": np.zeros((2, 3), dtype=bool),
    }
    radii = pd.DataFrame(
        {
            "sample_index": list(sample),
            "label": 0,
            "proved": np.linspace(0.01, 0.1, len(sample)),
            "falsified": 0.2,
            "complete": True,
        }
    )
    return Evidence(data, points, verification, changes.get("radii", radii), FREE)


def test_measures_at_the_radius() -> None:
    found = evidence(proved=[0, 1, 2]).measures(0.05)
    assert found == {
        "certified_accuracy": 0.3,
        "median_radius": pytest.approx(0.05),
        "pgd_accuracy": 0,
        "fgsm_accuracy": pytest.approx(1 / 3),
        "clean_accuracy": pytest.approx(2 / 3),
    }


def test_sampled_shares_have_an_interval_and_all_measures_their_points() -> None:
    found = evidence(proved=[0, 1, 2])
    assert found.intervals(0.05) == {"certified_accuracy": share_interval(3, 10)}
    assert found.points_behind(0.05) == {
        "certified_accuracy": 10,
        "median_radius": 10,
        "pgd_accuracy": 3,
        "fgsm_accuracy": 3,
        "clean_accuracy": 3,
    }
    found.verification["deployed"] = ["yes", "no"] * 10
    assert found.certified_deployed_accuracy(0.05) == 0
    assert found.certified_deployed_accuracy(0.01) == 1
    assert found.intervals(0.01)["certified_deployed_accuracy"] == share_interval(10, 10)
    assert found.intervals(0.07) == {}


def test_what_was_not_looked_at_is_not_known() -> None:
    found = evidence(proved=[0], radii=None).measures(0.07)
    assert found["certified_accuracy"] is None
    assert found["median_radius"] is None
    assert found["pgd_accuracy"] is None
    assert found["clean_accuracy"] is not None


def test_only_points_in_common_are_compared() -> None:
    new = evidence(proved=[5, 6, 7, 8, 9], sample=range(5, 15))
    old = evidence(proved=[0, 1, 2, 3, 4], sample=range(10))
    found = differences(new, old, 0.05, 0.05)
    certified = found["certified_accuracy"]
    assert certified.points == 5
    assert (certified.new, certified.old) == (1, 0)
    assert certified.method == MCNEMAR
    assert certified.p_value == pytest.approx(2 * 0.5**5)
    assert found["median_radius"].method == BOOTSTRAP


def test_other_data_are_never_compared() -> None:
    assert differences(evidence(proved=[0]), evidence(proved=[0], data="e"), 0.05, 0.05) == {}


def test_no_common_point_is_no_difference() -> None:
    new = evidence(proved=[], sample=range(20, 30))
    assert "certified_accuracy" not in differences(new, evidence(proved=[]), 0.05, 0.05)


def test_order_is_by_the_measures_then_by_cost_with_the_unknown_last() -> None:
    best = dict.fromkeys(MEASURES, 0.5)
    cases = [
        ("proves more", best | {"certified_accuracy": 0.6, "clean_accuracy": 0.1}, FREE),
        ("wider radius", best | {"median_radius": 0.6}, FREE),
        ("smaller", best, FREE | {"parameters": 0.5}),
        ("slower", best, FREE),
        ("not verified there", best | {"certified_accuracy": None, "clean_accuracy": 1.0}, FREE),
    ]
    shuffled = [cases[place] for place in (3, 0, 4, 2, 1)]
    ordered = sorted(shuffled, key=lambda case: rank(case[1], case[2]))
    assert [name for name, _, _ in ordered] == [name for name, _, _ in cases]
