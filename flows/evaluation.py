"""The main flow for a model that was trained elsewhere: everything but the training."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.processes import environment
from flows.robustness import check_questions, judge, obtain_dataset, record_dataset, run_tags
from tasks import tracking
from tasks.adopt import adopt
from tasks.core.models.keras_archive import KERAS_SUFFIX
from tasks.presentation.records import Summary
from tasks.settings import Settings
from tasks.versions.promotion import crown_first


@flow(name="evaluation", flow_run_name="{settings.data.name} {name}")
def evaluation_flow(settings: Settings, file: Path, name: str, fresh: bool = False) -> Summary:
    """Attacks, bounds, verifies and registers the model in `file`, which `name` is told by.

    Of the settings, `training` is not looked at. The version is compared, promoted and reported
    like any other.

    Raises:
        CertiflowError: one line saying what could not be done; the MLflow run is then FAILED.
    """
    tags = run_tags(settings) | {"architecture": name, "defence": "unknown"}
    with tracking.tracked_run(f"{settings.data.name}-{name}", settings.tracking, tags) as run:
        run.settings(settings)
        dataset = obtain_dataset(settings, run)
        check_questions(settings, dataset)
        record_dataset(dataset, run)
        if file.suffix.lower() == KERAS_SUFFIX:
            environment.load_keras()
        model = adopt(dataset, file, name, run.ref)
        summary = judge(settings, dataset, model, run, fresh)
        first = crown_first(int(summary.model_version), dataset, settings)
        return summary.model_copy(update={"champion": first is not None})
