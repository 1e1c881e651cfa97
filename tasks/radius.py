"""Critical radii of sampled points, and global robustness, of a model that exists."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.core.files import ArtifactRef, written_atomically
from tasks.data import DatasetRef, load
from tasks.settings import GlobalSettings, RadiusSettings
from tasks.tracking import Run, RunRef
from tasks.verify import sample_for, warn_of_broken_relations

if TYPE_CHECKING:
    from tasks.core.pairs.global_robustness import ClassResult
    from tasks.core.verification.critical_radius import Bracket


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
    warn_of_broken_relations(sample.perturbation.domain, sample.inputs, sample.indices)
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
    """How much each class's score can change within delta, over a domain: the table.

    The pair of the greatest change is stored; of a table it is told in words.
    """
    from tasks.core.execution.verdict_store import PROJECT_STORE, VerdictStore
    from tasks.core.models.loading import load_artifact
    from tasks.core.models.tolerance import answering
    from tasks.core.pairs import global_robustness as core
    from tasks.core.pairs.difference_search import DifferenceGoal
    from tasks.core.pairs.near_pairs import near_pairs

    loaded, log, data = load_artifact(model), Run(run), load(dataset)
    answering(loaded, data)  # the shapes must fit
    names = data.class_names if data.reference is None else (data.reference.name,)
    goal = DifferenceGoal(
        settings.epsilon, settings.tolerance, settings.timeout_seconds, settings.engine, seed
    )
    pairs = near_pairs(data, settings.domain_radius, settings.delta)
    with (
        console.stage("global", len(names)) as progress,
        VerdictStore(PROJECT_STORE) as store,
    ):

        def on_result(result: ClassResult) -> None:
            name = names[result.label]
            progress.advance(note=f"class {name}: {result.epsilon:.3f} proved")

        results = core.global_robustness(
            loaded.network,
            pairs,
            goal,
            settings.resources,
            runtime=loaded.runtime,
            store=store,
            fresh=fresh,
            on_result=on_result,
        )
    _log_differences(log, results)
    table = pd.DataFrame(
        {
            "label": result.label,
            "class": names[result.label],
            "verdict": result.verdict.value,
            "epsilon_proved": result.epsilon,
            "largest_difference": result.largest_difference,
            "decided_by": result.decided_by.value,
            "seconds": round(result.seconds, 3),
            "reason": result.reason,
            "pair": "" if result.pair is None else "; ".join(pairs.domain.moves(*result.pair)),
        }
        for result in results
    )
    return _logged_table(log, table, "global_robustness")


def _log_differences(log: Run, results: list[ClassResult]) -> None:
    """Metrics of each class, and the pair with the greatest change that was found of its score."""
    for result in results:
        measured = {
            "epsilon_proved": result.epsilon,
            "largest_difference": result.largest_difference,
        }
        log.metrics(
            {
                f"global/{name}_class_{result.label}": value
                for name, value in measured.items()
                if np.isfinite(value)
            }
        )
        if result.pair is not None:
            path = log.ref.folder / "counterexamples" / f"global_class_{result.label}.npz"
            with written_atomically(path) as temporary:
                np.savez_compressed(
                    temporary, allow_pickle=False, first=result.pair[0], second=result.pair[1]
                )
            log.files("counterexamples", path)


def _logged_table(log: Run, table: pd.DataFrame, name: str) -> ArtifactRef:
    path = log.ref.folder / "tables" / f"{name}.csv"
    with written_atomically(path) as temporary:
        table.to_csv(temporary, index=False)
    log.files("tables", path)
    return ArtifactRef.to(path)
