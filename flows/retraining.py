"""The scheduled flow: what is new, a new version, and whether it may serve.

Annotations are evaluated here: `serve` sends the flow to its process by value, where Prefect cannot
look up names that are only written down.
"""

from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event

from flows import served
from flows.robustness import assess, run_tags
from tasks import console, tracking
from tasks.data import download
from tasks.presentation.page import page
from tasks.presentation.records import Decision, RetrainSummary
from tasks.settings import Settings
from tasks.versions.data_check import check_data
from tasks.versions.promotion import gate

FAILURE_EVENT = "certiflow.retrain.failed"


def _flow_run_name() -> str:
    settings = runtime.flow_run.parameters["settings"]
    return f"retrain {Settings.model_validate(settings).title}"


def mark_failure(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """A hook for every bad end: marks the MLflow run and raises an event to build alerts on.

    A flow that failed by an exception has marked its run already; a killed process could not.
    """
    if not state.is_failed():
        tracking.mark_killed(tracking.FLOW_RUN_TAG, str(flow_run.id))
    emit_event(
        FAILURE_EVENT,
        resource={
            "prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
            "prefect.resource.name": flow_run.name,
        },
        payload={"state": state.name, "message": state.message},
    )


@flow(
    name="retrain",
    flow_run_name=_flow_run_name,
    validate_parameters=True,
    on_failure=[mark_failure],
    on_crashed=[mark_failure],
    on_cancellation=[mark_failure],
)
def retrain_flow(settings: Settings, force: bool = False) -> RetrainSummary:
    """Trains a new version when there is something new, and lets the gate decide on it.

    It stops early when a version was trained on the same data with the same settings and judged,
    unless `force`. `data.fallback` is not used: other data would make another model. Verdicts are
    kept as they come, so that the flow goes on where a killed one was.

    Raises:
        CertiflowError: one line saying what could not be done; a run started through Prefect's
            API asks for more than it was served with.
    """
    served.check_run(settings)
    logger = get_run_logger()
    dataset = download(settings.data)
    check = check_data(dataset, settings)
    logger.info(check.sentence)
    if check.judged is not None and not force:
        outcome = (
            f"nothing to do: version {check.judged} was trained on these data with these settings, "
            "and judged"
        )
        console.say("retrain", outcome)
        logger.info(outcome)
        return RetrainSummary(outcome=outcome, check=check)
    tags = run_tags(settings) | {"mlflow.source.name": "certiflow retrain"}
    with tracking.tracked_run(settings.slug, settings.tracking, tags) as run:
        run.settings(settings)
        run.tags({"data.check": check.sentence})
        if check.drift is not None:
            run.metrics({f"data/drift_{part}": v for part, v in check.drift.parts().items()})
        summary = assess(settings, dataset, run, fresh=False)
        decision = gate(int(summary.model_version), dataset, settings)
        run.tags({tracking.DECISION: decision.decision, "promotion.reason": decision.reason})
    written = page([run.ref.run_id, *_champion(decision)])
    outcome = f"version {decision.version} {decision.decision}: {decision.reason}"
    logger.info(outcome)
    return RetrainSummary(
        outcome=outcome, check=check, summary=summary, decision=decision, page=str(written.path)
    )


def _champion(decision: Decision) -> list[str]:
    return [] if decision.against is None else [f"{decision.model}/{decision.against}"]
