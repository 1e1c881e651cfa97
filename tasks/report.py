"""The report stage: tables, figures, the registered version, and the same story in Prefect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.attack import epsilon_grid, test_points
from tasks.core.evidence import figures, metrics
from tasks.core.evidence.radii import radius_summary
from tasks.core.files import ArtifactRef, written_atomically
from tasks.data import DatasetRef, load
from tasks.presentation import descriptions
from tasks.presentation.records import Summary
from tasks.requirements import records
from tasks.settings import Settings, decimal
from tasks.tracking import NEVER_PREDICTED, VERSION_TAG, Run, RunRef, model_name
from tasks.train import ModelRef

REFERENCE_EPSILON = 0.1
# The internship project that certiflow grew from: a dense network on MNIST, FGSM at epsilon 0.1 on
# the first 1,000 test images.
REFERENCE = {"clean accuracy": 0.9771, "under FGSM at 0.1, first 1,000": 0.0620}


@task(name="report", cache_policy=NO_CACHE)
def report(
    dataset: DatasetRef,
    model: ModelRef,
    attack_files: tuple[ArtifactRef, ArtifactRef, ArtifactRef],
    questions: tuple[ArtifactRef, ArtifactRef | None, ArtifactRef | None],
    settings: Settings,
    run: RunRef,
) -> Summary:
    """Checks certified <= attacked <= clean, writes tables and figures, registers the model.

    `questions` are the files of verdicts, and of critical radii and required properties if asked.
    """
    log, (verified_file, radius_file, properties_file) = Run(run), questions
    data = load(dataset)
    with console.stage("report", 3) as progress:
        grid = epsilon_grid(dataset, *attack_files, settings.attack)
        table = pd.read_csv(verified_file.verified_path())
        radii = None if radius_file is None else pd.read_csv(radius_file.verified_path())
        if radii is not None:
            metrics.check_radii(table, radii)
        points = test_points(dataset, *attack_files, settings.attack)
        metrics.check_points(table, points)
        verified = metrics.verification_summary(table, data.positive, dataset.test_size)
        grid = metrics.with_exact(grid, verified)
        title = (
            f"{dataset.name} {model.architecture}, {dataset.test_size:,} test {data.domain.noun}s"
        )
        figure = _write(log, grid, verified, title, data.perturbation.unit)
        _write_points(log, points)
        progress.advance()
        summary = Summary(
            run_id=run.run_id,
            run_name=run.name,
            url=run.url,
            dataset=dataset.name,
            dataset_requested=settings.data.name,
            architecture=model.architecture,
            model_version="",
            test_images=dataset.test_size,
            clean_accuracy=model.clean.accuracy,
            measures=model.clean.others,
            positive=None if data.positive is None else data.class_names[data.positive],
            tolerance=data.tolerance,
            noun=data.domain.noun,
            epsilon_grid=[row.dropna().to_dict() for _, row in grid.iterrows()],
            verification=verified.to_dict("records"),
            median_radius=None if radii is None else _median_radius(radii),
            radius_points=0 if radii is None else len(radii),
            properties=[] if properties_file is None else records(properties_file),
            warnings=log.alerts(),
            reference=_beside_reference(dataset, model, grid),
            figure=figure,
            folder=str(run.folder),
        )
        markdown = descriptions.of_run(summary, settings)
        log.describe(markdown)
        version = log.register(
            model.model_id,
            model_name(dataset.name),
            _key_numbers(dataset, model, summary, settings),
            markdown,
        )
        log.tags({VERSION_TAG: version})
        progress.advance()
        _prefect_artifacts(markdown, grid, verified, run)
        progress.advance(note=f"{model_name(dataset.name)} version {version}")
    return summary.model_copy(update={"model_version": version})


def _write(log: Run, grid: pd.DataFrame, verified: pd.DataFrame, title: str, unit: str) -> str:
    folder = log.ref.folder
    table, figure = folder / "tables/epsilon_grid.csv", folder / "figures/robustness_curve.png"
    with written_atomically(table) as temporary:
        grid.to_csv(temporary, index=False)
    figures.robustness_curve(grid, verified, title, unit, figure)
    log.files("tables", table)
    log.files("figures", figure)
    return str(figure)


def _write_points(log: Run, points: dict[str, Any]) -> None:
    """What held at each test point, so that versions can be compared on the same ones."""
    path = log.ref.folder / "tables/test_points.npz"
    with written_atomically(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **points)
    log.files("tables", path)


def _median_radius(radii: pd.DataFrame) -> tuple[float, float]:
    summary = radius_summary(radii)
    return summary.proved_quantiles[0.5], summary.falsified_quantiles[0.5]


def _beside_reference(
    dataset: DatasetRef, model: ModelRef, grid: pd.DataFrame
) -> dict[str, tuple[float, float]]:
    """The published figures beside ours, where the data are the same."""
    at_reference = grid[grid["epsilon"] == REFERENCE_EPSILON]
    if dataset.name != "mnist" or at_reference.empty:
        return {}
    first = float(at_reference[f"fgsm_accuracy_first_{metrics.FIRST}"].iloc[0])
    return dict(
        zip(
            REFERENCE,
            zip(REFERENCE.values(), (model.clean.accuracy, first), strict=True),
            strict=True,
        )
    )


def _key_numbers(
    dataset: DatasetRef, model: ModelRef, summary: Summary, settings: Settings
) -> dict[str, Any]:
    """Tags of the registered version: what versions are compared by."""
    tags: dict[str, Any] = {
        "architecture": summary.architecture,
        "clean_accuracy": round(summary.clean_accuracy, 4),
        "dataset.sha256": dataset.sha256,
        "reference_epsilon": decimal(settings.reference_epsilon),
        "seed": settings.seed,
        "verification.samples": settings.verification.samples,
    }
    if model.trained_here:  # else a retraining would take it for what these settings make
        tags["settings.sha256"] = settings.fingerprint
    for row in summary.epsilon_grid:
        for attack in ("fgsm", "pgd"):
            key = f"{attack}/robust_accuracy/eps_{decimal(row['epsilon'])}"
            tags[key] = round(row[f"{attack}_accuracy"], 4)
    for row in summary.verification:
        for share in ("certified_accuracy", "certified_deployed_accuracy"):
            key = f"verification/{share}/eps_{decimal(row['epsilon'])}"
            tags[key] = round(row[share], 4)
    if model.clean.never_predicted:
        tags[NEVER_PREDICTED] = ", ".join(model.clean.never_predicted)
    if summary.median_radius is not None:
        tags["radius/proved_q0.5"] = round(summary.median_radius[0], 4)
    return tags


def _prefect_artifacts(
    markdown: str, grid: pd.DataFrame, verified: pd.DataFrame, run: RunRef
) -> None:
    create_markdown_artifact(markdown, key="certiflow-report", description=run.name)
    create_table_artifact(
        grid.to_dict("records"), key="certiflow-epsilon-grid", description=run.name
    )
    create_table_artifact(
        verified.to_dict("records"), key="certiflow-verification", description=run.name
    )
    if run.url.startswith("http"):
        create_link_artifact(run.url, key="certiflow-mlflow-run", link_text=run.name)
    else:  # no address to link to
        create_markdown_artifact(
            descriptions.of_place(run.name, run.url), key="certiflow-mlflow-run"
        )
