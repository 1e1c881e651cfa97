"""How one MLflow run begins and ends."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tasks.core.errors import CertiflowError
from tasks.core.uris import without_passwords
from tasks.settings import TrackingSettings
from tasks.tracking.origin import command_line, library_versions
from tasks.tracking.patience import impatient
from tasks.tracking.runs import COMMAND_TAG, LIBRARIES_TAG, Run, RunRef
from tasks.tracking.store import (
    STORE_ERRORS,
    experiment_id,
    first_line,
    open_store,
    outage,
    page_of_run,
    store_failure,
)


@contextmanager
def tracked_run(slug: str, settings: TrackingSettings, tags: Mapping[str, Any]) -> Iterator[Run]:
    """A run over the block: FINISHED after it, FAILED or KILLED when it raises.

    What was logged before a failure stays. Opens the store first, so that one that cannot be
    reached fails before any work is done.

    Raises:
        CertiflowError: the store does not answer, or the output folder cannot be written.
    """
    run = _start(slug, settings, tags)
    with ExitStack() as farewell:
        try:
            # Logging a model needs the run to be this thread's active one.
            with (
                mlflow.start_run(run_id=run.ref.run_id, nested=True),
                _waited_for_once(farewell),
            ):
                yield run
        except BaseException as error:
            silent = outage() if isinstance(error, STORE_ERRORS) else None
            is_told = silent is None and _tell_failure(run, error)
            if isinstance(error, STORE_ERRORS):
                left = "" if is_told else " (still RUNNING in MLflow, which could not be told)"
                raise CertiflowError(
                    f"{silent or store_failure(error)}; what was done so far is in "
                    f"{run.ref.folder}{left}"
                ) from error
            raise


@contextmanager
def _waited_for_once(farewell: ExitStack) -> Iterator[None]:
    """What is told after a store failed in the block, or Ctrl-C, is told once.

    The store has had its retries then, and who interrupts it waits for none. Holds until `farewell`
    is over.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, STORE_ERRORS) or not isinstance(error, Exception):
            farewell.enter_context(impatient())
        raise


def _tell_failure(run: Run, error: BaseException) -> bool:
    """Whether MLflow could be told: a store that is gone must not hide the failure."""
    try:
        reason = " ".join(without_passwords(str(error)).split())[:500]
        run.tags({"failure": reason or type(error).__name__})
        run.finish("FAILED" if isinstance(error, Exception) else "KILLED")
    except STORE_ERRORS:
        return False
    return True


def _start(slug: str, settings: TrackingSettings, tags: Mapping[str, Any]) -> Run:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
    name = f"{slug}-{stamp}"
    folder = settings.output.absolute() / name
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise CertiflowError(
            f"{folder}: {error.strerror}: make it writable, free some space, or choose another "
            "folder with tracking.output"
        ) from error
    open_store()
    uri = mlflow.get_tracking_uri()
    try:
        client = MlflowClient()
        experiment = experiment_id(client, settings.experiment)
        origin = {"mlflow.user": getpass.getuser(), "mlflow.source.name": "certiflow run"}
        origin |= {COMMAND_TAG: command_line(), LIBRARIES_TAG: library_versions()}
        run = client.create_run(
            experiment,
            run_name=name,
            tags=origin | {key: str(value) for key, value in tags.items()},
        )
    except MlflowException as error:
        raise CertiflowError(
            f"MLflow at {uri} does not answer ({first_line(error)}): start it, or unset "
            "MLFLOW_TRACKING_URI to use the project's own store"
        ) from error
    run_id = run.info.run_id
    url = page_of_run(experiment, run_id)
    return Run(RunRef(run_id=run_id, name=name, folder=folder, url=url))
