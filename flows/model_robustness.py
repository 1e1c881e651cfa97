"""Questions about a model that exists, logged like the main flow's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import flow, runtime

from flows.processes import environment
from tasks import tracking
from tasks.core.evidence import metrics
from tasks.core.files import ArtifactRef
from tasks.core.models.keras_archive import KERAS_SUFFIX
from tasks.data import download, load
from tasks.presentation import descriptions
from tasks.presentation.records import ModelSummary
from tasks.radius import global_robustness, radius
from tasks.settings import ModelSettings
from tasks.verify import verify


@flow(name="model", flow_run_name="{settings.data.name} {settings.model}")
def model_flow(settings: ModelSettings, file: Path, fresh: bool = False) -> ModelSummary:
    """Verdicts, critical radii or global robustness of the model in `file`, as settings ask.

    Raises:
        CertiflowError: one line saying what could not be done; the MLflow run is then FAILED.
    """
    asked = {
        "verify": settings.verification,
        "radius": settings.radius,
        "global-robustness": settings.global_robustness,
    }
    name = "-".join(name for name, section in asked.items() if section is not None)
    tags = {
        "mlflow.source.name": f"certiflow {name}",
        "dataset": settings.data.name,
        "git.commit": tracking.git_commit(),
        tracking.FLOW_RUN_TAG: runtime.flow_run.id,
        "seed": settings.seed,
        "model": settings.model,
        tracking.INVOCATION_TAG: os.environ.get("CERTIFLOW_INVOCATION", "none"),
    }
    slug = f"{name}-{settings.data.name}"
    with tracking.tracked_run(slug, settings.tracking, tags) as run:
        run.settings(settings)
        dataset = download(settings.data)
        model = ArtifactRef.to(file)
        run.tags({"dataset.sha256": dataset.sha256, "model.sha256": model.sha256})
        run.dataset(load(dataset))
        if file.suffix == KERAS_SUFFIX:
            environment.load_keras()
        rest = (settings.seed, run.ref, fresh)
        found: dict[str, Any] = {}
        if settings.verification is not None:
            table = verify(dataset, model, settings.verification, settings.attack, *rest)
            summary = metrics.verification_summary(
                pd.read_csv(table.verified_path()), test_size=dataset.test_size
            )
            found["verification"] = summary.to_dict("records")
        if settings.radius is not None:
            table = radius(dataset, model, settings.radius, *rest)
            found["radius"] = pd.read_csv(table.verified_path()).to_dict("records")
        if settings.global_robustness is not None:
            table = global_robustness(dataset, model, settings.global_robustness, *rest)
            found["global_robustness"] = pd.read_csv(
                table.verified_path(), dtype={"class": str}, keep_default_na=False
            ).to_dict("records")
        summary = ModelSummary(
            run_id=run.ref.run_id,
            run_name=run.ref.name,
            url=run.ref.url,
            folder=str(run.ref.folder),
            model=settings.model,
            dataset=dataset.name,
            **found,
        )
        parts = (summary.verification, summary.radius, summary.global_robustness)
        run.describe(descriptions.of_answers(f"{dataset.name} {settings.model}", settings, *parts))
        return summary
