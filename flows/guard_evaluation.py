"""The flow that evaluates a guarded version."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from prefect import flow, runtime

from flows.processes import environment
from tasks import tracking
from tasks.core.guard.evaluation import Effort
from tasks.data import download, load
from tasks.guarding.evaluation import GuardSummary, evaluate_guard, told
from tasks.settings import DataSettings, TrackingSettings, decimal


@flow(name="guard-evaluation", flow_run_name="{data.name} {words}")
def guard_evaluation_flow(
    words: str, model_file: Path, data: DataSettings, epsilon: float, effort: Effort
) -> GuardSummary:
    """What the guard of the version that `words` mean does, in an MLflow run and its description.

    Raises:
        CertiflowError: one line saying what could not be done; the MLflow run is then FAILED.
    """
    version = tracking.version_meant(words)
    tags = {
        "mlflow.source.name": "certiflow guard-evaluate",
        "dataset": data.name,
        "model": str(version),
        "git.commit": tracking.git_commit(),
        tracking.FLOW_RUN_TAG: runtime.flow_run.id,
        "seed": effort.seed,
        tracking.INVOCATION_TAG: os.environ.get("CERTIFLOW_INVOCATION", "none"),
    }
    slug = f"guard-{version.model}-{version.number}"
    with (
        tempfile.TemporaryDirectory() as folder,
        tracking.tracked_run(slug, TrackingSettings(), tags) as run,
    ):
        files = tracking.download_guard_files(version, Path(folder))
        dataset = download(data)
        run.dataset(load(dataset))
        environment.load_keras()
        summary = evaluate_guard(dataset, files, model_file, str(version), epsilon, effort, run.ref)
        tags = {f"guard/{name}": round(value, 4) for name, value in summary.clean.items()}
        tags |= {"guard/epsilon": decimal(epsilon), "guard/run": run.ref.run_id}
        tracking.RegisteredModel(version.model).describe_guard(version, told(summary), tags)
        return summary
