"""Critical radii of sampled points, and global robustness, of a model that exists."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.core.errors import CertiflowError
from tasks.core.files import ArtifactRef, written_atomically
from tasks.data import DatasetRef, load
from tasks.settings import GlobalSettings, RadiusSettings
from tasks.tracking import Run, RunRef
from tasks.verify import sample_for

if TYPE_CHECKING:
    from tasks.core.verification.critical_radius import Bracket
    from tasks.core.verification.global_robustness import ClassResult


@task(name="radius", cache_policy=NO_CACHE)
def radius(
    dataset: DatasetRef,
    model: ArtifactRef,
    settings: RadiusSettings,
    seed: int,
    run: RunRef,
    fresh: bool = False,
) -> ArtifactRef:
    """A bracket around every sampled point's critical radius: the table, logged with its figure."""
    from tasks.core.evidence import radii, radius_figures
    from tasks.core.execution.verdict_store import PROJECT_STORE, VerdictStore
    from tasks.core.models.loading import load_artifact
    from tasks.core.models.tolerance import answering
    from tasks.core.verification import critical_radius
    from tasks.core.verification.radius_search import RadiusGoal

    log, data = Run(run), load(dataset)
    loaded = answering(load_artifact(model), data)
    sample = sample_for(loaded, data, settings.samples, seed)
    goal = RadiusGoal(
        settings.max_epsilon, settings.tolerance, settings.timeout_seconds, settings.engine, seed
    )
    counts: Counter[str] = Counter()
    with (
        console.stage("radius", settings.samples) as progress,
        VerdictStore(PROJECT_STORE) as store,
    ):

        def on_result(bracket: Bracket) -> None:
            counts["complete" if bracket.complete else "open"] += 1
            progress.advance(note=" · ".join(f"{counts[word]} {word}" for word in sorted(counts)))

        brackets = critical_radius.critical_radii(
            loaded.runtime,
            loaded.network,
            sample,
            goal,
            settings.resources,
            store=store,
            fresh=fresh,
            on_result=on_result,
        )
    table = radii.radius_table(brackets)
    figure = run.folder / "figures" / "critical_radius.png"
    radius_figures.radius_curves(
        table,
        settings.max_epsilon,
        f"Critical radius, {settings.samples} points",
        sample.perturbation.unit,
        figure,
    )
    log.files("figures", figure)
    _log_brackets(log, brackets, table)
    return _logged_table(log, table, "critical_radius")


def _log_brackets(log: Run, brackets: list[Bracket], table: pd.DataFrame) -> None:
    from tasks.core.evidence.radii import radius_summary

    summary = radius_summary(table)
    log.metrics(
        {
            "radius/proved_mean": summary.mean,
            "radius/share_complete": summary.share_complete,
            **{f"radius/proved_q{q:g}": v for q, v in summary.proved_quantiles.items()},
            **{
                f"radius/falsified_q{q:g}": v
                for q, v in summary.falsified_quantiles.items()
                if np.isfinite(v)
            },
            **{f"radius/proved_mean_class_{k}": v for k, v in summary.class_means.items()},
        }
    )
    for bracket in brackets:
        if bracket.counterexample is None:
            continue
        path = log.ref.folder / "counterexamples" / f"sample_{bracket.sample_index}.npz"
        with written_atomically(path) as temporary:
            np.savez_compressed(
                temporary,
                allow_pickle=False,
                image=bracket.counterexample,
                label=bracket.label,
                epsilon=bracket.falsified,
            )
        log.files("counterexamples", path)


@task(name="global robustness", cache_policy=NO_CACHE)
def global_robustness(
    dataset: DatasetRef,
    model: ArtifactRef,
    settings: GlobalSettings,
    seed: int,
    run: RunRef,
    fresh: bool = False,
) -> ArtifactRef:
    """How much each class's score can change within delta, over a domain: the table."""
    from tasks.core.execution.verdict_store import PROJECT_STORE, VerdictStore
    from tasks.core.models.loading import load_artifact
    from tasks.core.models.tolerance import answering
    from tasks.core.verification import global_robustness as core
    from tasks.core.verification.difference_search import DifferenceGoal

    log, data = Run(run), load(dataset)
    loaded = answering(load_artifact(model), data)
    if data.domain.is_table:
        raise CertiflowError(
            f"{data.name} is a table: global robustness is asked of images; use verify or radius"
        )
    mean = data.train_inputs.mean(axis=0, dtype=np.float64)
    goal = DifferenceGoal(
        settings.epsilon, settings.tolerance, settings.timeout_seconds, settings.engine, seed
    )
    with (
        console.stage("global", data.num_classes) as progress,
        VerdictStore(PROJECT_STORE) as store,
    ):

        def on_result(result: ClassResult) -> None:
            progress.advance(note=f"class {result.label}: {result.epsilon:.3f} proved")

        results = core.global_robustness(
            loaded.network,
            data.perturbation.box(mean[None], settings.domain_radius),
            settings.delta,
            goal,
            settings.resources,
            runtime=loaded.runtime,
            store=store,
            fresh=fresh,
            on_result=on_result,
        )
    table = pd.DataFrame(
        {
            "label": result.label,
            "verdict": result.verdict.value,
            "epsilon_proved": result.epsilon,
            "largest_difference": result.largest_difference,
            "decided_by": result.decided_by.value,
            "seconds": round(result.seconds, 3),
            "reason": result.reason,
        }
        for result in results
    )
    log.metrics(
        {
            f"global/{column}_class_{row['label']}": row[column]
            for row in table.to_dict("records")
            for column in ("epsilon_proved", "largest_difference")
            if np.isfinite(row[column])
        }
    )
    return _logged_table(log, table, "global_robustness")


def _logged_table(log: Run, table: pd.DataFrame, name: str) -> ArtifactRef:
    path = log.ref.folder / "tables" / f"{name}.csv"
    with written_atomically(path) as temporary:
        table.to_csv(temporary, index=False)
    log.files("tables", path)
    return ArtifactRef.to(path)
