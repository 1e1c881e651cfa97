"""The event by which a guard tells Prefect of an alarm, and by which a retraining knows it."""

from __future__ import annotations

ALARM_EVENT = "certiflow.guard.alarm"
RESOURCE = "prefect.resource.id"
CAUSE = "certiflow.cause"  # a label of the resource: `client`, `flag rate`, `inputs` or `labels`


def guarded_model(name: str) -> str:
    """The id of the resource that the event is about: a registered model."""
    return f"certiflow.model.{name}"
