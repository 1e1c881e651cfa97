"""Model versions side by side: their evidence from MLflow, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tasks import console
from tasks.core.errors import CertiflowError
from tasks.core.evidence.comparison import Evidence, differences, rank
from tasks.core.evidence.paired import GATE, MCNEMAR, Difference
from tasks.presentation.records import SIGNIFICANCE, Comparison, Row
from tasks.tracking import (
    CHAMPION,
    VERSION_TAG,
    RegisteredModel,
    RunDeletedError,
    RunRecord,
    deleted_versions,
    find_run,
    model_name,
    registered_runs,
    run_of,
)

P_VALUE = "promotion.certified_p_value"


@dataclass(frozen=True, eq=False)
class Contender:
    """A run with what it found, as it is compared."""

    run: RunRecord
    version: int | None
    aliases: tuple[str, ...]
    decision: Mapping[str, str]  # the version's tags about the last decision on it
    evidence: Evidence

    @property
    def dataset(self) -> str:
        return self.run.tags["dataset"]

    @property
    def label(self) -> str:
        """Version and aliases, or the run's name where it registered nothing."""
        if self.version is None:
            return self.run.name
        return " ".join([f"v{self.version}", *self.aliases])


def collect(words: Sequence[str], experiment: str) -> list[Contender]:
    """The runs that the words mean, or all registered ones of the experiment, newest first.

    Raises:
        CertiflowError: an unknown run, version or experiment; nothing to compare; a run that is
            none of the main flow's.
    """
    if not words:
        return _all_registered(experiment)
    runs = {run.run_id: run for run in map(find_run, words)}
    return [_contender(run) for run in sorted(runs.values(), key=lambda run: -run.started)]


def _all_registered(experiment: str) -> list[Contender]:
    found, left_out = [], []
    for run in registered_runs(experiment):
        try:
            found.append(_contender(run))
        except CertiflowError as error:
            left_out.append(str(error))
    left_out += deleted_versions(experiment)
    if not found and left_out:
        raise CertiflowError(f"no version of {experiment} is left: {'; '.join(left_out)}")
    if not found:
        raise CertiflowError(
            f"experiment {experiment} has no registered version yet: run `make run-flow` first, or "
            "name another with --experiment"
        )
    for reason in left_out:
        console.warn(f"left out: {reason}")
    return found


def compare(contenders: Sequence[Contender], epsilon: float | None = None) -> list[Comparison]:
    """A comparison for each dataset, in the order of the datasets' names."""
    datasets = sorted({contender.dataset for contender in contenders})
    return [
        _compare(name, [each for each in contenders if each.dataset == name], epsilon)
        for name in datasets
    ]


def as_records(comparison: Comparison) -> list[dict[str, Any]]:
    """The comparison as flat rows, for a CSV file."""
    records = []
    for row in comparison.rows:
        record = {"dataset": comparison.dataset, "epsilon": comparison.epsilon}
        record |= row.model_dump(include={"version", "run_id", "run_name", "architecture"})
        record |= {"aliases": " ".join(row.aliases), **row.measures}
        record |= {"certified_deployed_accuracy": row.certified_deployed_accuracy, **row.costs}
        record |= {f"{measure}_points": count for measure, count in row.points.items()}
        for measure, (low, high) in row.intervals.items():
            record |= {f"{measure}_low": low, f"{measure}_high": high}
        for measure, difference in row.differences.items():
            record[f"{measure}_difference"] = difference.value
            record[f"{measure}_difference_points"] = difference.points
            record[f"{measure}_difference_sample"] = difference.sample
            record[f"{measure}_significant"] = difference.significant
            record[f"{measure}_test"] = difference.method
            record[f"{measure}_p_value"] = difference.p_value
            lower, upper = difference.interval or (None, None)
            record |= {f"{measure}_interval_low": lower, f"{measure}_interval_high": upper}
        records.append(record)
    return records


def _compare(dataset: str, contenders: list[Contender], epsilon: float | None) -> Comparison:
    champion = next((each for each in contenders if CHAMPION in each.aliases), None)
    if champion is None:
        champion = _champion(dataset)
    leader = champion or contenders[0]
    radius = float(leader.run.tags["reference_epsilon"]) if epsilon is None else epsilon
    rows = [_row(each, champion, radius) for each in contenders]
    return Comparison(
        dataset=dataset,
        epsilon=radius,
        champion=None if champion is None else champion.version,
        rows=sorted(rows, key=lambda row: rank(row.measures, row.costs)),
    )


def _row(contender: Contender, champion: Contender | None, epsilon: float) -> Row:
    found: dict[str, Difference] = {}
    if champion is not None and champion.run.run_id != contender.run.run_id:
        found = differences(contender.evidence, champion.evidence, epsilon, SIGNIFICANCE)
        judged = _at_the_gate(contender, champion, epsilon)
        if judged is not None:
            found["certified_accuracy"] = judged
    return Row(
        version=contender.version,
        aliases=contender.aliases,
        run_id=contender.run.run_id,
        run_name=contender.run.name,
        architecture=contender.run.tags["architecture"],
        measures=contender.evidence.measures(epsilon),
        certified_deployed_accuracy=contender.evidence.certified_deployed_accuracy(epsilon),
        points=contender.evidence.points_behind(epsilon),
        intervals=contender.evidence.intervals(epsilon),
        costs=dict(contender.evidence.costs),
        differences=found,
    )


def _at_the_gate(contender: Contender, champion: Contender, epsilon: float) -> Difference | None:
    """Of certified accuracy, where the gate compared the two at this radius, on its own points.

    It is the one difference told of the two, so that table and decision say the same.
    """
    if contender.evidence.data != champion.evidence.data:
        return None
    judged = _judged(contender, champion, epsilon)
    if judged is None:  # it may have been the champion's turn to be judged
        judged = _judged(champion, contender, epsilon)
        return None if judged is None else judged.reversed
    return judged


def _judged(new: Contender, old: Contender, epsilon: float) -> Difference | None:
    """What the gate found when `new` was judged against `old`, all proofs counting."""
    tags = new.decision
    if (
        P_VALUE not in tags  # nothing was compared
        or tags["promotion.against"] != str(old.version)
        or not np.isclose(float(tags["promotion.epsilon"]), epsilon)
        or new.run.params.get("promotion.deployed") != "False"
    ):
        return None
    p_value = float(tags[P_VALUE])
    return Difference(
        new=float(tags["promotion.certified_accuracy"]),
        old=float(tags["promotion.certified_accuracy_champion"]),
        points=int(tags["promotion.points"]),
        method=MCNEMAR,
        significant=p_value < SIGNIFICANCE,
        p_value=p_value,
        sample=GATE,
    )


def _champion(dataset: str) -> Contender | None:
    """The champion that is not among the runs compared."""
    champion = RegisteredModel(model_name(dataset)).champion()
    if champion is None or not champion.run_id:
        return None
    try:
        return _contender(run_of(champion))
    except RunDeletedError as error:
        console.warn(f"no differences to the champion: {error}")
        return None


def _contender(run: RunRecord) -> Contender:
    version = run.tags.get(VERSION_TAG)
    aliases: Mapping[str, int] = {}
    decision: Mapping[str, str] = {}
    if version is not None:
        model = RegisteredModel(model_name(run.tags["dataset"]))
        aliases, decision = model.aliases(), model.decision(int(version))
    return Contender(
        run=run,
        version=None if version is None else int(version),
        aliases=tuple(sorted(a for a, number in aliases.items() if str(number) == version)),
        decision=decision,
        evidence=_evidence(run),
    )


def _evidence(run: RunRecord) -> Evidence:
    points = run.artifact("tables/test_points.npz")
    verification = _table(run, "verification")
    if points is None or verification is None or "architecture" not in run.tags:
        raise CertiflowError(
            f"run {run.name} ({run.status}) holds no whole evidence (tables/test_points.npz, "
            "tables/verification.csv): name finished runs of `certiflow run` or `retrain`"
        )
    with np.load(points, allow_pickle=False) as arrays:
        return Evidence(
            data=run.tags["dataset.sha256"],
            points=dict(arrays),
            verification=verification,
            radii=_table(run, "critical_radius"),
            costs=costs(run.metrics, verification),
        )


def costs(metrics: Mapping[str, float], verification: pd.DataFrame) -> dict[str, float]:
    """Of a run with these metrics: without a training's seconds where that was elsewhere."""
    known = {"parameters": "train/parameters", "train_seconds": "train/seconds"}
    found = {name: metrics[key] for name, key in known.items() if key in metrics}
    # the verdicts' own seconds, which those taken from the store keep
    return found | {"verification_seconds": float(verification["seconds"].sum())}


def _table(run: RunRecord, name: str) -> pd.DataFrame | None:
    path = run.artifact(f"tables/{name}.csv")
    return None if path is None else pd.read_csv(path)
