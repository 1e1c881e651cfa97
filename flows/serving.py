"""`certiflow serve`: the scheduled retraining from one process."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.events import DeploymentEventTrigger
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError
from rich.console import Console

from flows import served
from flows.processes import guardian, prefect_server
from flows.retraining import retrain_flow
from tasks import console
from tasks.core.errors import CertiflowError
from tasks.core.uris import without_passwords
from tasks.guarding.alarms import ALARM_EVENT, CAUSE, RESOURCE, guarded_model
from tasks.settings import Settings
from tasks.tracking import model_name, open_store

# A run that is due while another one runs is dropped: the next night's comes soon enough, and two
# at once would only compete for the same cores and decide on the same champion.
ONE_AT_A_TIME = ConcurrencyLimitConfig(
    limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
)
# Whoever sends a guard what it flags can raise alarms, by many names: of each cause, one starts a
# run, and those of the next hour none.
BETWEEN_ALARMS = timedelta(hours=1)


def serve_retraining(settings: Settings, cron: str, port: int) -> None:
    """Serves the deployment until it is interrupted; starts Prefect's server when none is set.

    It runs on schedule, and when a guard raises an alarm about its registered model: by an
    automation of its own, which Prefect makes anew with each start, where the server has them.

    Raises:
        CertiflowError: no such cron schedule; the port is in use; a server does not answer.
    """
    _check_cron(cron)
    open_store()
    tell_api = guardian.start()
    with console.stage("start", 1) as progress:
        api_url = prefect_server.start(port)()
        tell_api(api_url)
        progress.advance()
    name = served.deployment_name(settings)
    served.announce(settings)
    shown = without_passwords(api_url)
    out = Console(highlight=False)
    for title, text in {
        "serving": f"retrain/{name}, cron '{cron}' (UTC), one run at a time; Ctrl-C ends it",
        "alarms": f"of a guard of {model_name(settings.data.name)} start a run",
        "folder": str(Path.cwd()),
        "Prefect": shown.removesuffix("/api"),
        "run now": f"PREFECT_API_URL={shown} prefect deployment run retrain/{name}",
    }.items():
        out.print(f"{title:<10}  {text}", soft_wrap=True, markup=False)
    with temporary_settings({PREFECT_API_URL: api_url}):
        retrain_flow.serve(
            name=name,
            description=f"Retrains in {Path.cwd()}",
            schedule=Cron(cron, timezone="UTC"),
            triggers=[_on_alarm(settings)],
            parameters={"settings": settings.model_dump(mode="json"), "force": False},
            global_limit=ONE_AT_A_TIME,
            print_starting_message=False,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )


def _on_alarm(settings: Settings) -> DeploymentEventTrigger:
    model = model_name(settings.data.name)
    return DeploymentEventTrigger(
        name=f"retrain/{served.deployment_name(settings)} on alarm",
        description=f"Retrains when a guard raises an alarm about {model}",
        expect={ALARM_EVENT},
        match={RESOURCE: guarded_model(model)},
        for_each={CAUSE},
        within=BETWEEN_ALARMS,
    )


def _check_cron(cron: str) -> None:
    try:
        CronSchedule(cron=cron)
    except ValidationError as error:
        raise CertiflowError(
            f"--cron is '{cron}': expected minute, hour, day, month and weekday, such as "
            "'0 2 * * *' for two at night"
        ) from error
