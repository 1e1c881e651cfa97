"""What a run that was started through Prefect's API may choose: no more than who serves it.

Its parameters come from whoever reaches the API. They may choose what is computed, but not where
the data go: a cluster runs what it is sent and sends back what it likes, and a path may lie
anywhere. What the operator has chosen is told to the run out of the API's reach: by the environment
of the process that `certiflow serve` has started, or by the folder's prefect.yaml.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import yaml
from prefect import runtime

from tasks.core.errors import CertiflowError
from tasks.core.files import sha256_of
from tasks.settings import DATASETS, Settings

SERVED = "CERTIFLOW_SERVED"  # the settings that `certiflow serve` was started with
ENGINE = "PREFECT__FLOW_RUN_ID"  # Prefect sets it where a worker has started the process
DEPLOYMENTS = Path("prefect.yaml")


def deployment_name(settings: Settings) -> str:
    """Of this folder's deployment: two folders at one Prefect server have two."""
    folder = f"{platform.node()}:{Path.cwd().resolve()}"
    return f"{settings.slug}-{sha256_of(folder.encode())[:8]}"


def announce(settings: Settings) -> None:
    """Tells the runs that this process will start what they are served with."""
    os.environ[SERVED] = settings.model_dump_json()


def check_run(settings: Settings) -> None:
    """Passes the operator's own commands, and of the API's runs those that keep to their limits.

    Raises:
        CertiflowError: the run is of another folder's deployment; it has a cluster or a path
            outside the project's folder that it was not served with.
    """
    if SERVED not in os.environ and ENGINE not in os.environ:
        return
    check_places(settings, _served_settings())


def check_places(settings: Settings, served: Settings) -> None:
    """Raises `CertiflowError` when `settings` have a cluster or path that `served` do not allow."""
    allowed, chosen = _places(served), _places(settings)
    for key, value in chosen.items():
        if value != allowed.get(key) and not _is_harmless(key, value):
            raise CertiflowError(
                f"{key} is {value!r}, but this deployment is served with {allowed.get(key)!r}: a "
                "run started through Prefect cannot choose a cluster or a path outside the "
                "project's folder; change the settings that are served, or use `certiflow retrain`"
            )


def settings_in_file(name: str | None) -> Settings:
    """What prefect.yaml here gives the deployment; the defaults where it does not know it.

    Raises:
        CertiflowError: it is not as Prefect and the settings want it.
    """
    try:
        described = yaml.safe_load(DEPLOYMENTS.read_text(encoding="utf-8"))["deployments"]
        own: dict[str, Any] = next((each for each in described if each["name"] == name), {})
        return Settings.model_validate(own.get("parameters", {}).get("settings", {}))
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise CertiflowError(
            f"{DEPLOYMENTS}: expected deployments with a name and parameters.settings as in "
            f"conf/*.yaml ({' '.join(str(error).split())})"
        ) from error


def _served_settings() -> Settings:
    name = runtime.deployment.name
    if SERVED not in os.environ:
        return settings_in_file(name)
    served = Settings.model_validate_json(os.environ[SERVED])
    if name != deployment_name(served):
        raise CertiflowError(
            f"this run is of the deployment {name}, but {Path.cwd()} serves "
            f"{deployment_name(served)}: start it where its deployment is served"
        )
    return served


def _places(settings: Settings) -> dict[str, str | None]:
    clusters = {
        f"{name}.cluster": section.cluster
        for name, section in settings
        if hasattr(section, "cluster")
    }
    return clusters | {
        "data.dataset": settings.data.dataset,
        "data.fallback": settings.data.fallback,
        "data.cache": str(settings.data.cache),
        "tracking.output": str(settings.tracking.output),
    }


def _is_harmless(key: str, value: str | None) -> bool:
    if value is None or (key in {"data.dataset", "data.fallback"} and value in DATASETS):
        return True
    is_path = not key.endswith(".cluster")
    return is_path and Path(value).resolve().is_relative_to(Path.cwd().resolve())
