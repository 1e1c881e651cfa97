"""A study: several configurations as one MLflow run with a child for each."""

from __future__ import annotations

from prefect import flow, runtime

from flows.robustness import robustness_flow
from tasks import console, tracking
from tasks.core.errors import CertiflowError
from tasks.presentation import descriptions
from tasks.presentation.records import StudySummary
from tasks.settings import Study
from tasks.study import conclude


def _flow_run_name() -> str:
    return str(Study.model_validate(runtime.flow_run.parameters["study"]).title)


@flow(name="study", flow_run_name=_flow_run_name, validate_parameters=True)
def study_flow(study: Study, fresh: bool = False) -> StudySummary:
    """Runs every configuration, and compares what came of them.

    A configuration that fails leaves the others alone.

    Raises:
        CertiflowError: all of them failed.
    """
    settings = study.any_settings
    tags = {"study": study.title, "configurations": ", ".join(study.configurations)}
    with tracking.tracked_run("study", settings.tracking, tags) as run:
        runs: dict[str, str] = {}
        failed: dict[str, str] = {}
        for number, (name, each) in enumerate(study.configurations.items(), start=1):
            console.say("study", f"{number} of {len(study.configurations)}: {name} ({each.title})")
            try:
                runs[name] = robustness_flow(each, fresh, run.ref.run_id).run_id
            except CertiflowError as error:
                failed[name] = str(error)
                run.alert(f"configuration_{number}", f"{name} failed: {error}")
        if not runs:
            raise CertiflowError(f"every configuration failed; the last one: {failed[name]}")
        compared = conclude(runs, settings.reference_epsilon, run.ref)
        run.describe(descriptions.of_study(study.title, compared, runs, failed))
    return StudySummary(
        run_id=run.ref.run_id,
        run_name=run.ref.name,
        url=run.ref.url,
        folder=str(run.ref.folder),
        runs=runs,
        failed=failed,
        comparison=compared,
    )
