"""Local robustness of a model that exists, logged like the main flow's."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
from prefect import flow, runtime
from pydantic import BaseModel, ConfigDict

from tasks import tracking
from tasks.core import metrics
from tasks.core.files import ArtifactRef
from tasks.data import download, load
from tasks.settings import ModelSettings
from tasks.verify import verify


class ModelSummary(BaseModel):
    """What was found; `--json` writes it."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    run_name: str
    url: str
    folder: str
    model: str
    dataset: str
    verification: list[dict[str, float]]


@flow(name="verify-model", flow_run_name="{settings.data.dataset} {settings.model}")
def verify_model_flow(settings: ModelSettings, file: Path, fresh: bool = False) -> ModelSummary:
    """Verdicts for sampled test points of a dataset under the model in `file`.

    Raises:
        CertiflowError: one line saying what could not be done; the MLflow run is then FAILED.
    """
    tags = {
        "dataset": settings.data.dataset,
        "git.commit": tracking.git_commit(),
        "prefect.flow_run_id": runtime.flow_run.id,
        "seed": settings.seed,
        "model": settings.model,
        "invocation": os.environ.get("CERTIFLOW_INVOCATION", "none"),
    }
    slug = f"verify-{settings.data.dataset}"
    with tracking.tracked_run(slug, settings.tracking, tags) as run:
        run.settings(settings)
        dataset = download(settings.data.dataset, settings.data.cache.absolute())
        model = ArtifactRef.to(file)
        run.tags({"dataset.sha256": dataset.sha256, "model.sha256": model.sha256})
        run.dataset(load(dataset))
        verified = verify(
            dataset,
            model,
            settings.verification,
            settings.attack,
            settings.seed,
            run.ref,
            fresh,
        )
        summary = metrics.verification_summary(pd.read_csv(verified.verified_path()))
        return ModelSummary(
            run_id=run.ref.run_id,
            run_name=run.ref.name,
            url=run.ref.url,
            folder=str(run.ref.folder),
            model=settings.model,
            dataset=dataset.name,
            verification=summary.to_dict("records"),
        )
