"""`certiflow promote` and `rollback`: who is champion.

What only writes a decision down needs neither Keras nor, without an API at hand, Prefect.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from flows.actions.head import end
from flows.processes import prefect_server
from flows.processes.session import prefect_api
from tasks import console, tracking
from tasks.core.errors import CertiflowError
from tasks.presentation.records import Decision
from tasks.tracking import RegisteredModel, answered
from tasks.versions import decisions


@answered("promote")
def promote(words: str, reason: str | None, json_file: Path | None) -> None:
    """Decides, and prints the decision: the gate's in a flow."""
    (words,) = tracking.in_full([words])
    version = tracking.find_version(words)
    if version is None:
        raise CertiflowError(f"{words}: expected a version such as 3 or {tracking.PREFIX}mnist/3")
    decisions.check_not_champion(RegisteredModel(version.model), version)
    if reason is not None and not _in_a_flow():
        decision = decisions.force(version.model, version.number, reason)
    else:
        with prefect_api("flows.promotion"):
            from flows.promotion import promote_flow

            decision = promote_flow(str(version), reason)
    end(decision, json_file, _show_decision)


@answered("rollback")
def rollback(reason: str, name: str | None, json_file: Path | None) -> None:
    """Takes the champion back, and prints the decision; in a flow where an API is at hand."""
    model = tracking.model_meant(name)
    if name is None and len(tracking.registered_models()) > 1:
        console.say("model", f"{model}, the newest run's; --model names another")
    if _in_a_flow():
        with prefect_api("flows.promotion"):
            from flows.promotion import rollback_flow

            decision = rollback_flow(reason, model)
    else:
        _, decision = decisions.roll_back(model, reason)
    end(decision, json_file, _show_decision)


def _in_a_flow() -> bool:
    """Whether a decision that only writes is a flow: where an API sees it without being started.

    On a shared store it always is: there the turns of those who decide are Prefect's.
    """
    return prefect_server.at_hand() or not tracking.is_local()


def _show_decision(decision: Decision) -> None:
    Console(highlight=False).print(
        f"{decision.model} version {decision.version} {decision.decision}: {decision.reason}",
        soft_wrap=True,
        markup=False,
    )
