"""The stage of required properties: monotone and fair, around sampled points of a table."""

from __future__ import annotations

import json
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.core.evidence.sampling import share_interval
from tasks.core.files import ArtifactRef, written_atomically
from tasks.core.pairs.requirements import required
from tasks.core.verdicts import VERDICT_COLUMNS, Verdict
from tasks.data import DatasetRef, load
from tasks.presentation.records import REQUIREMENTS
from tasks.settings import PropertySettings, decimal
from tasks.tracking import Run, RunRef
from tasks.verify import sample_for

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.data.datasets import Dataset
    from tasks.core.pairs.relational import PairResult


@task(name="properties", cache_policy=NO_CACHE)
def properties(
    dataset: DatasetRef,
    model: ArtifactRef,
    settings: PropertySettings,
    seed: int,
    run: RunRef,
    fresh: bool = False,
) -> ArtifactRef:
    """Every requirement around every sampled point at every radius: the table of shares."""
    from tasks.core.execution.verdict_store import PROJECT_STORE, VerdictStore
    from tasks.core.models.loading import load_artifact
    from tasks.core.models.tolerance import answering
    from tasks.core.pairs.pair_solver import PairGoal
    from tasks.core.pairs.relational import verify_pairs

    log, started, data = Run(run), monotonic(), load(dataset)
    loaded = answering(load_artifact(model), data)
    sample = sample_for(loaded, data, settings.samples, seed)
    asked = required(settings.monotone, settings.fair, data)
    counts: Counter[Verdict] = Counter()
    total = len(asked) * settings.samples * len(settings.epsilons)
    with console.stage("properties", total) as progress, VerdictStore(PROJECT_STORE) as store:

        def on_result(result: PairResult) -> None:
            counts[result.verdict] += 1
            progress.advance(note=" · ".join(f"{counts[v]} {v}" for v in Verdict if counts[v]))

        results = verify_pairs(
            loaded.runtime,
            loaded.network,
            sample,
            settings.epsilons,
            asked,
            PairGoal(settings.engine, settings.timeout_seconds, seed),
            settings.resources,
            store=store,
            fresh=fresh,
            on_result=on_result,
        )
    log.metrics({"properties/seconds": monotonic() - started})
    return _log_results(log, results, data, run.folder)


def _log_results(log: Run, results: list[PairResult], data: Dataset, folder: Path) -> ArtifactRef:
    table = pd.DataFrame(
        {
            "requirement": result.requirement.name,
            "sample_index": result.sample_index,
            "epsilon": result.epsilon,
            "verdict": result.verdict.value,
            "decided_by": result.decided_by.value,
            "deployed": result.deployed,
            "seconds": round(result.seconds, 3),
            "reason": result.reason,
        }
        for result in results
    )
    path, summary = folder / "tables/properties.csv", summarised(table, results, data)
    for file, frame in ((path, table), (folder / REQUIREMENTS, summary)):
        with written_atomically(file) as temporary:
            frame.to_csv(temporary, index=False)
        log.files("tables", file)
    for name, rows in summary.groupby("requirement"):
        at = rows.set_index("epsilon")
        for measure in ("certified", "falsified"):
            shares = at[measure].to_dict()
            log.per_epsilon(f"properties/{name}/{measure}", shares, curve=measure == "certified")
    log.files("counterexamples", *_save_pairs(results, folder))
    return ArtifactRef.to(folder / REQUIREMENTS)


def summarised(table: pd.DataFrame, results: list[PairResult], data: Dataset) -> pd.DataFrame:
    """A row for each requirement and radius: points by verdict, shares, and a counterexample."""
    examples = dict[tuple[str, float], str]()
    for result in results:
        key = (result.requirement.name, result.epsilon)
        if result.pair is not None and key not in examples:
            examples[key] = example(result, data)
    rows = []
    for key, part in table.groupby(["requirement", "epsilon"], sort=False):
        counts = {word: int((part["verdict"] == word).sum()) for word in VERDICT_COLUMNS}
        robust = counts[Verdict.ROBUST.value]
        low, high = share_interval(robust, len(part))
        rows.append(
            {
                "requirement": key[0],
                "epsilon": key[1],
                "points": len(part),
                "certified": robust / len(part),
                "certified_low": low,
                "certified_high": high,
                "falsified": counts[Verdict.FALSIFIED.value] / len(part),
                "open": len(part) - robust - counts[Verdict.FALSIFIED.value],
                "counterexample": examples.get(key, ""),
            }
        )
    return pd.DataFrame(rows)


def example(result: PairResult, data: Dataset) -> str:
    """A pair that breaks a requirement, in the words of the table."""
    assert result.pair is not None
    first, other = result.pair
    center = data.test_inputs[result.sample_index]
    so, (change, *_) = ", ".join(data.domain.moves(center, first)), data.domain.moves(first, other)
    where = f"test row {result.sample_index}" + (f" with {so}" if so else "")
    effect = "changes the decision"
    if result.requirement.demand != "same":
        lowers = result.requirement.demand == "up"
        effect = f"{'lowers' if lowers else 'raises'} the score of {_positive(data)}"
    return f"{where}: {change} {effect}"


def _positive(data: Dataset) -> str:
    return "the positive class" if data.positive is None else data.class_names[data.positive]


def _save_pairs(results: list[PairResult], folder: Path) -> list[Path]:
    paths = []
    for result in results:
        if result.pair is None:
            continue
        kind = result.requirement.name.replace("/", "_")
        name = f"{kind}_sample_{result.sample_index}_eps_{decimal(result.epsilon)}.npz"
        path = folder / "counterexamples" / name
        with written_atomically(path) as temporary:
            np.savez_compressed(
                temporary, allow_pickle=False, first=result.pair[0], second=result.pair[1]
            )
        paths.append(path)
    return paths


def records(file: ArtifactRef) -> list[dict[str, Any]]:
    """The rows of a summary, as JSON has them."""
    table = pd.read_csv(file.verified_path(), keep_default_na=False)
    found: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    return found
