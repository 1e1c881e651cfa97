"""The report stage: tables, figures, the registered version, and the same story in Prefect."""

from __future__ import annotations

from typing import Any

import pandas as pd
from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from tasks import console
from tasks.attack import epsilon_grid
from tasks.core import figures, metrics
from tasks.core.files import ArtifactRef, written_atomically
from tasks.data import DatasetRef
from tasks.settings import Settings, decimal
from tasks.tracking import Run, RunRef
from tasks.train import ModelRef

REFERENCE_EPSILON = 0.1
# The internship project that certiflow grew from: a dense network on MNIST, FGSM at epsilon 0.1 on
# the first 1,000 test images.
REFERENCE = {"clean accuracy": 0.9771, "under FGSM at 0.1, first 1,000": 0.0620}


class Summary(BaseModel):
    """What a run found; `--json` writes it, the last screen shows it."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    run_name: str
    url: str
    dataset: str
    dataset_requested: str
    architecture: str
    model_version: str
    clean_accuracy: float
    epsilon_grid: list[dict[str, float]]
    verification: list[dict[str, float]]
    reference: dict[str, tuple[float, float]]  # name: (theirs, ours)
    figure: str
    folder: str


@task(name="report", cache_policy=NO_CACHE)
def report(
    dataset: DatasetRef,
    model: ModelRef,
    attack_files: tuple[ArtifactRef, ArtifactRef, ArtifactRef],
    verified_file: ArtifactRef,
    settings: Settings,
    run: RunRef,
) -> Summary:
    """Checks certified <= attacked <= clean, writes tables and figures, registers the model."""
    log = Run(run)
    with console.stage("report", 3) as progress:
        grid = epsilon_grid(dataset, *attack_files, settings.attack)
        verified = metrics.verification_summary(pd.read_csv(verified_file.verified_path()))
        figure = _write(log, grid, verified, f"{dataset.name} {model.architecture}")
        progress.advance()
        markdown = _markdown(dataset, settings, model, grid, verified, run)
        log.describe(markdown)
        version = log.register(
            model.model_id,
            f"certiflow-{dataset.name}",
            _key_numbers(dataset, model, grid, verified, settings),
            markdown,
        )
        log.tags({"model.version": version})
        progress.advance()
        _prefect_artifacts(markdown, grid, verified, run)
        progress.advance(note=f"certiflow-{dataset.name} version {version}")
    return Summary(
        run_id=run.run_id,
        run_name=run.name,
        url=run.url,
        dataset=dataset.name,
        dataset_requested=settings.data.dataset,
        architecture=model.architecture,
        model_version=version,
        clean_accuracy=model.clean_accuracy,
        epsilon_grid=grid.to_dict("records"),
        verification=verified.to_dict("records"),
        reference=_beside_reference(dataset, model, grid),
        figure=figure,
        folder=str(run.folder),
    )


def _write(log: Run, grid: pd.DataFrame, verified: pd.DataFrame, title: str) -> str:
    folder = log.ref.folder
    table, figure = folder / "tables/epsilon_grid.csv", folder / "figures/robustness_curve.png"
    with written_atomically(table) as temporary:
        grid.to_csv(temporary, index=False)
    figures.robustness_curve(grid, verified, title, figure)
    log.files("tables", table)
    log.files("figures", figure)
    return str(figure)


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
            zip(REFERENCE.values(), (model.clean_accuracy, first), strict=True),
            strict=True,
        )
    )


def _key_numbers(
    dataset: DatasetRef,
    model: ModelRef,
    grid: pd.DataFrame,
    verified: pd.DataFrame,
    settings: Settings,
) -> dict[str, Any]:
    """Tags of the registered version: what versions are compared by."""
    tags: dict[str, Any] = {
        "architecture": model.architecture,
        "clean_accuracy": round(model.clean_accuracy, 4),
        "dataset.sha256": dataset.sha256,
        "seed": settings.seed,
        "verification.samples": settings.verification.samples,
    }
    for row in grid.to_dict("records"):
        for attack in ("fgsm", "pgd"):
            key = f"{attack}/robust_accuracy/eps_{decimal(row['epsilon'])}"
            tags[key] = round(row[f"{attack}_accuracy"], 4)
    for row in verified.to_dict("records"):
        key = f"verification/certified_accuracy/eps_{decimal(row['epsilon'])}"
        tags[key] = round(row["certified_accuracy"], 4)
    return tags


def _markdown(
    dataset: DatasetRef,
    settings: Settings,
    model: ModelRef,
    grid: pd.DataFrame,
    verified: pd.DataFrame,
    run: RunRef,
) -> str:
    """The result as one page, for MLflow's description and Prefect's artifact."""
    requested = settings.data.dataset
    lines = [f"**{dataset.name} {model.architecture}**: clean accuracy {model.clean_accuracy:.2%}."]
    if dataset.name != requested:
        lines.append(f"\n**{requested} could not be had: this is {dataset.name}.**")
    for name, (theirs, ours) in _beside_reference(dataset, model, grid).items():
        lines.append(f"\n{name}: {ours:.2%} (reference: {theirs:.2%})")
    lines += ["", "Whole test set: what attacks leave, and what linear bounds prove.", ""]
    lines += _rows(
        ("epsilon", "FGSM", "PGD", "certified"),
        [
            (
                decimal(row["epsilon"]),
                row["fgsm_accuracy"],
                row["pgd_accuracy"],
                row["certified_accuracy"],
            )
            for row in grid.to_dict("records")
        ],
    )
    samples, engine = settings.verification.samples, settings.verification.engine
    lines += ["", f"{samples} sampled points, verified (engine `{engine}`).", ""]
    verdicts = ("robust", "falsified", "unknown", "timeout", "error")
    lines += _rows(
        ("epsilon", *verdicts, "certified"),
        [
            (
                decimal(row["epsilon"]),
                *(str(int(row[verdict])) for verdict in verdicts),
                row["certified_accuracy"],
            )
            for row in verified.to_dict("records")
        ],
    )
    return "\n".join([*lines, "", f"MLflow run: [{run.name}]({run.url})"])


def _rows(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    cells = [[f"{c:.2%}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    lines = [header, ["---:"] * len(header), *cells]
    return ["| " + " | ".join(line) + " |" for line in lines]


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
    create_link_artifact(run.url, key="certiflow-mlflow-run", link_text=run.name)
