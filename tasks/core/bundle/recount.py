"""The numbers of a run, counted again from its raw tables.

A number is named as in MLflow, with its radius apart: (`pgd/robust_accuracy`, 0.1); a curve's last
value has no radius.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.core.errors import ContradictionError
from tasks.core.evidence import metrics
from tasks.core.evidence.radii import radius_summary
from tasks.core.sources.npz import read_arrays
from tasks.core.verdict_columns import STAGES, WITNESS_WORDS
from tasks.core.verdicts import CHECKED, Verdict

Name = tuple[str, float | None]

POINTS, GRID = "tables/test_points.npz", "tables/epsilon_grid.csv"
VERDICTS, RADII = "tables/verification.csv", "tables/critical_radius.csv"
REQUIREMENTS = "tables/properties.csv"
COLUMNS_OF_POINTS = ("epsilons", "clean", "fgsm", "pgd", "certified")
# What is counted at each test point, by the name of its share.
ATTACKED = {
    "fgsm/robust_accuracy": "fgsm",
    "pgd/robust_accuracy": "pgd",
    "bounds/certified_accuracy": "certified",
}


@dataclass(frozen=True)
class Number:
    """A value, and how many points it is of."""

    value: float
    n: int


@dataclass(frozen=True, eq=False)
class Tables:
    """The raw tables: what held at each point.

    Attributes:
        points: of the test set, as `tasks.attack.test_points` has them.
        verdicts: a `metrics.verification_table`.
        radii, requirements: of sampled points; None where they were not asked.
        positive: the class whose recall counts, if any.
    """

    points: Mapping[str, NDArray[Any]]
    verdicts: pd.DataFrame
    radii: pd.DataFrame | None
    requirements: pd.DataFrame | None
    positive: int | None

    @classmethod
    def of(cls, folder: Path, positive: int | None) -> Tables:
        """From a bundle's folder; raises what pandas raises where they are no tables."""
        radii, requirements = (
            pd.read_csv(folder / name) if (folder / name).is_file() else None
            for name in (RADII, REQUIREMENTS)
        )
        points = read_arrays(folder / POINTS, COLUMNS_OF_POINTS)
        return cls(points, pd.read_csv(folder / VERDICTS), radii, requirements, positive)

    @property
    def epsilons(self) -> list[float]:
        """The radii of the test set's numbers."""
        found: list[float] = self.points["epsilons"].tolist()
        return found


def named(metric: str) -> Name:
    """The name in MLflow, taken apart."""
    name, separator, epsilon = metric.partition("/eps_")
    return (name, float(epsilon)) if separator else (metric, None)


def numbers(tables: Tables) -> dict[Name, Number]:
    """Every number of the run that its raw tables hold, by its name.

    Raises:
        ContradictionError: certified <= PGD <= FGSM <= clean does not hold at some point, or a
            point is proved and broken.
    """
    check_order(tables)
    found = dict(_of_test_set(tables))
    found |= _of_verdicts(tables)
    if tables.radii is not None:
        metrics.check_radii(tables.verdicts, tables.radii)
        found |= _of_radii(tables.radii)
    if tables.requirements is not None:
        found |= _of_requirements(tables.requirements)
    return found


def grid(tables: Tables) -> pd.DataFrame:
    """What `tables/epsilon_grid.csv` says without recalls, which need the test set's labels."""
    points = tables.points
    clean, fgsm, pgd = points["clean"], points["fgsm"], points["pgd"]
    right = np.zeros(len(clean), dtype=np.int64)  # as labels: 0 is right, 1 is not
    found = metrics.epsilon_grid(
        tables.epsilons,
        right,
        np.where(clean, 0, 1),
        np.where(fgsm, 0, 1),
        ~pgd,
        points["certified"],
    )
    return metrics.with_exact(found, _summary(tables))


def check_order(tables: Tables) -> None:
    """Raises `ContradictionError` where a point is proved and broken, in one table or in two."""
    points = tables.points
    clean = np.broadcast_to(points["clean"], points["fgsm"].shape)
    # A radius' attack counts what smaller ones break; grids ascend.
    unbroken = np.logical_and.accumulate(points["pgd"], axis=0)
    chain = (points["certified"], unbroken, points["pgd"], points["fgsm"], clean)
    for less, more in pairwise(chain):
        if (less & ~more).any():
            index, point = np.argwhere(less & ~more)[0]
            raise ContradictionError(
                f"test point {point}: certified <= PGD <= FGSM <= clean does not hold at epsilon "
                f"{tables.epsilons[index]:g}"
            )
    proved = tables.verdicts[tables.verdicts["verdict"] == Verdict.ROBUST.value]
    broken = tables.verdicts[tables.verdicts["verdict"] == Verdict.FALSIFIED.value]
    least = broken.groupby("sample_index")["epsilon"].min()
    for index, epsilon in proved.groupby("sample_index")["epsilon"].max().items():
        if least.get(index, np.inf) <= epsilon:
            raise ContradictionError(
                f"sample {index}: proved robust at epsilon {epsilon:g}, yet broken there or nearer"
            )
    metrics.check_points(tables.verdicts, points)


def _of_test_set(tables: Tables) -> Iterator[tuple[Name, Number]]:
    points, count = tables.points, len(tables.points["clean"])
    yield ("clean_accuracy", None), Number(float(points["clean"].mean()), count)
    for metric, name in ATTACKED.items():
        yield from _curve(metric, dict(zip(tables.epsilons, points[name], strict=True)))
    found = grid(tables).set_index("epsilon")
    first = f"fgsm_accuracy_first_{metrics.FIRST}"
    for epsilon, row in found.iterrows():
        few, right = min(count, metrics.FIRST), int(points["clean"].sum())
        name = f"fgsm/robust_accuracy_first_{metrics.FIRST}"
        yield (name, float(epsilon)), Number(float(row[first]), few)
        yield ("fgsm/success_rate", float(epsilon)), Number(float(row["fgsm_success_rate"]), right)


def _curve(metric: str, held: Mapping[float, Any]) -> Iterator[tuple[Name, Number]]:
    """The share at each radius, of what held at each point; the curve ends with the greatest."""
    shares = {epsilon: Number(float(np.mean(each)), len(each)) for epsilon, each in held.items()}
    for epsilon, share in shares.items():
        yield (metric, epsilon), share
    last = max(shares)
    yield (metric, None), shares[last]
    yield (f"{metric.partition('/')[0]}/epsilon", None), Number(last, len(held[last]))


def _of_verdicts(tables: Tables) -> dict[Name, Number]:
    verdicts, found = tables.verdicts, dict[Name, Number]()
    summary = _summary(tables).set_index("epsilon")
    for metric in (*metrics.COUNTS, *metrics.SHARES, *metrics.EXACT, "certified_recall"):
        if metric not in summary:
            continue
        for epsilon, row in summary.iterrows():
            count = int(row["points"])
            if metric == "certified_recall":
                of_class = verdicts["label"] == tables.positive
                count = int((of_class & (verdicts["epsilon"] == epsilon)).sum())
            number = Number(float(row[metric]), count)
            found[f"verification/{metric}", float(epsilon)] = number
            if metric not in metrics.COUNTS:  # a curve: the last radius is the greatest
                found[f"verification/{metric}", None] = number
                found["verification/epsilon", None] = Number(float(epsilon), count)
    sums = {f"verification/seconds/{stage}": f"seconds_{stage}" for stage in STAGES}
    sums["verification/witness/seconds"] = "witness_seconds"
    for metric, column in sums.items():
        if column in verdicts:  # older versions' tables have fewer
            found[metric, None] = Number(float(verdicts[column].sum()), len(verdicts))
    if "certificate" in verdicts:
        for epsilon, part in verdicts.groupby("epsilon"):
            number = Number(float((part["certificate"] == CHECKED).sum()), len(part))
            found["verification/certificates", float(epsilon)] = number
    for word in WITNESS_WORDS if "witness" in verdicts else ():
        number = Number(float((verdicts["witness"] == word).sum()), len(verdicts))
        found[f"verification/witness/{word}", None] = number
        found[f"verification/witness_{word}", None] = number
    return found


def _summary(tables: Tables) -> pd.DataFrame:
    test_size = len(tables.points["clean"])
    return metrics.verification_summary(tables.verdicts, tables.positive, test_size)


def _of_radii(radii: pd.DataFrame) -> dict[Name, Number]:
    summary, count = radius_summary(radii), len(radii)
    of_classes = radii.groupby("label").size()
    found = {
        "radius/proved_mean": Number(summary.mean, count),
        "radius/share_complete": Number(summary.share_complete, count),
    }
    for q, value in summary.proved_quantiles.items():
        found[f"radius/proved_q{q:g}"] = Number(value, count)
    for q, value in summary.falsified_quantiles.items():
        found[f"radius/falsified_q{q:g}"] = Number(value, count)
    for label, value in summary.class_means.items():
        found[f"radius/proved_mean_class_{label}"] = Number(value, int(of_classes[label]))
    return {(metric, None): number for metric, number in found.items()}


def _of_requirements(requirements: pd.DataFrame) -> dict[Name, Number]:
    words = {"certified": Verdict.ROBUST.value, "falsified": Verdict.FALSIFIED.value}
    found = dict[Name, Number]()
    for name, rows in requirements.groupby("requirement"):
        for measure, word in words.items():
            held = {
                float(epsilon): part["verdict"] == word for epsilon, part in rows.groupby("epsilon")
            }
            found |= dict(_curve(f"properties/{name}/{measure}", held))
    return found
