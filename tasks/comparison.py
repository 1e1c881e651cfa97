"""Model versions side by side: their evidence from MLflow, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tasks import console
from tasks.core.errors import CertiflowError
from tasks.core.evidence.comparison import Evidence, differences, rank
from tasks.core.evidence.paired import Difference
from tasks.records import SIGNIFICANCE, Comparison, Row
from tasks.tracking import (
    CHAMPION,
    VERSION_TAG,
    RegisteredModel,
    RunRecord,
    find_run,
    model_name,
    registered_runs,
)


@dataclass(frozen=True, eq=False)
class Contender:
    """A run with what it found, as it is compared."""

    run: RunRecord
    version: int | None
    aliases: tuple[str, ...]
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
    found = []
    for run in registered_runs(experiment):
        try:
            found.append(_contender(run))
        except CertiflowError as error:
            console.warn(f"left out: {error}")
    if not found:
        raise CertiflowError(
            f"experiment {experiment} has no registered version yet: run `make run-flow` first, or "
            "name another with --experiment"
        )
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
        for measure, difference in row.differences.items():
            record[f"{measure}_difference"] = difference.value
            record[f"{measure}_significant"] = difference.significant
            record[f"{measure}_test"] = difference.method
            record[f"{measure}_p_value"] = difference.p_value
            low, high = difference.interval or (None, None)
            record |= {f"{measure}_interval_low": low, f"{measure}_interval_high": high}
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
    return Row(
        version=contender.version,
        aliases=contender.aliases,
        run_id=contender.run.run_id,
        run_name=contender.run.name,
        architecture=contender.run.tags["architecture"],
        measures=contender.evidence.measures(epsilon),
        certified_deployed_accuracy=contender.evidence.certified_deployed_accuracy(epsilon),
        costs=dict(contender.evidence.costs),
        differences=found,
    )


def _champion(dataset: str) -> Contender | None:
    """The champion that is not among the runs compared."""
    champion = RegisteredModel(model_name(dataset)).champion()
    return (
        None if champion is None or not champion.run_id else _contender(find_run(champion.run_id))
    )


def _contender(run: RunRecord) -> Contender:
    version = run.tags.get(VERSION_TAG)
    aliases = {}
    if version is not None:
        aliases = RegisteredModel(model_name(run.tags["dataset"])).aliases()
    return Contender(
        run=run,
        version=None if version is None else int(version),
        aliases=tuple(sorted(a for a, number in aliases.items() if str(number) == version)),
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
            costs={
                "parameters": run.metrics["train/parameters"],
                "train_seconds": run.metrics["train/seconds"],
                # the verdicts' own seconds, which those taken from the store keep
                "verification_seconds": float(verification["seconds"].sum()),
            },
        )


def _table(run: RunRecord, name: str) -> pd.DataFrame | None:
    path = run.artifact(f"tables/{name}.csv")
    return None if path is None else pd.read_csv(path)
