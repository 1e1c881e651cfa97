"""Runs that are over, as they are read back: by id, by name, by registered version."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, ViewType
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from tasks import console
from tasks.core.errors import CertiflowError
from tasks.core.files import temporary_folder
from tasks.tracking.registry import (
    PREFIX,
    RegisteredModel,
    Version,
    model_meant,
    registered_models,
)
from tasks.tracking.store import open_store, page_of_run

VERSION_TAG = "model.version"  # of a run: the number of the version that it registered
RUN_ID = re.compile(r"[0-9a-f]{32}")
VERSION = re.compile(rf"(?:models:/)?(?:({PREFIX}[\w-]+)/)?v?(\d{{1,9}})")
ALIAS = re.compile(rf"(?:models:/)?({PREFIX}[\w-]+)@(\w+)")
PAGE = 1000


@dataclass(frozen=True)
class RunRecord:
    """A run as it was when it was read; times in seconds since 1970, `page` as `page_of_run`."""

    run_id: str
    name: str
    page: str
    status: str
    started: float
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    def artifact(self, path: str) -> Path | None:
        """A local copy of an artifact, or None when the run has none of that name."""
        folder = path.rpartition("/")[0]
        listed = MlflowClient().list_artifacts(self.run_id, folder or None)
        if path not in {entry.path for entry in listed}:
            return None
        copies = temporary_folder("certiflow-artifact-")
        return Path(MlflowClient().download_artifacts(self.run_id, path, str(copies)))

    def artifacts(self, folder: str = "") -> dict[str, bytes]:
        """The files under a folder of the run's artifacts, by path; none without such a folder."""
        listed = MlflowClient().list_artifacts(self.run_id, folder or None)
        if not listed:
            return {}
        with tempfile.TemporaryDirectory() as copies:
            MlflowClient().download_artifacts(self.run_id, folder, copies)
            paths = sorted(path for path in Path(copies).rglob("*") if path.is_file())
            return {str(path.relative_to(copies)): path.read_bytes() for path in paths}


def find_run(words: str) -> RunRecord:
    """The run that a user means by a run id, a run's name, or a version.

    A version is `certiflow-mnist/3`, `certiflow-mnist@champion`, or `3` of the model of the newest
    version; `models:/` before it is allowed.

    Raises:
        CertiflowError: there is no such run or version.
    """
    if RUN_ID.fullmatch(words):
        return read_run(words)
    version = find_version(words)
    if version is not None:
        return run_of(version)
    found = _search(f"attributes.run_name = '{words.replace(chr(39), '')}'")
    if len(found) != 1:
        raise CertiflowError(
            f"{words}: {len(found)} runs have this name; give a run's id, a run's full name, or a "
            "version such as certiflow-mnist/3 or certiflow-mnist@champion"
        )
    return found[0]


def find_version(words: str) -> Version | None:
    """The registered version that the words mean; None when they do not look like one.

    Raises:
        CertiflowError: they look like one, but there is none, or several.
    """
    by_alias, by_number = ALIAS.fullmatch(words), VERSION.fullmatch(words)
    if by_alias:
        model = RegisteredModel(by_alias[1])
        aliases = model.aliases()
        if by_alias[2] not in aliases:
            known = ", ".join(sorted(aliases)) or "none"
            raise CertiflowError(f"{model.name} has no {by_alias[2]} yet; its aliases: {known}")
        return model.version(aliases[by_alias[2]])
    if not by_number:
        return None
    return RegisteredModel(by_number[1] or model_meant()).version(int(by_number[2]))


def in_full(words: Sequence[str]) -> list[str]:
    """The words with its model's name before each bare number; says which, if there are several.

    Raises:
        CertiflowError: a bare number, but no model is registered.
    """
    if all((found := VERSION.fullmatch(each)) is None or found[1] for each in words):
        return list(words)
    model, others = model_meant(), len(registered_models()) > 1
    if others:
        console.say("model", f"{model}, the newest run's; name another as in {PREFIX}mnist/3")
    numbers = [(each, VERSION.fullmatch(each)) for each in words]
    return [each if not n or n[1] else f"{model}/{n[2]}" for each, n in numbers]


class RunDeletedError(CertiflowError):
    """A run was deleted in MLflow, for now or for good."""


def run_of(version: Version) -> RunRecord:
    """The run that registered a version; raises `RunDeletedError` naming the version."""
    try:
        return read_run(version.run_id)
    except RunDeletedError as error:
        raise RunDeletedError(f"{version}: {error}") from error


def read_run(run_id: str) -> RunRecord:
    """Raises `RunDeletedError` when there is no such run, or it was deleted."""
    open_store()
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise RunDeletedError(
                f"run {run_id}: MLflow at {mlflow.get_tracking_uri()} has no such run: it was "
                "deleted for good, or is another store's; `certiflow compare` lists what there is"
            ) from error
        raise
    if run.info.lifecycle_stage == LifecycleStage.DELETED:
        raise RunDeletedError(_deleted(run_id))
    return _record(run)


def registered_runs(experiment: str) -> list[RunRecord]:
    """The finished runs of an experiment that registered a version, newest first.

    Raises:
        CertiflowError: there is no such experiment.
    """
    open_store()
    known = MlflowClient().get_experiment_by_name(experiment)
    if known is None:
        names = ", ".join(sorted(e.name for e in MlflowClient().search_experiments()))
        raise CertiflowError(
            f"experiment {experiment}: there is none in {mlflow.get_tracking_uri()} (there "
            f"are: {names}); run `make run-flow` first, or name another with --experiment"
        )
    return _registered(known.experiment_id, ViewType.ACTIVE_ONLY)


def deleted_versions(experiment: str) -> list[str]:
    """What is said of the versions of an experiment whose runs were deleted."""
    known = MlflowClient().get_experiment_by_name(experiment)
    runs = [] if known is None else _registered(known.experiment_id, ViewType.DELETED_ONLY)
    return [f"version {run.tags[VERSION_TAG]}: {_deleted(run.run_id)}" for run in runs]


def _deleted(run_id: str) -> str:
    return f"run {run_id} was deleted: `mlflow runs restore --run-id {run_id}` brings it back"


def _registered(experiment_id: str, kept: int) -> list[RunRecord]:
    found = _search("attributes.status = 'FINISHED'", [experiment_id], kept)
    return [run for run in found if VERSION_TAG in run.tags]


def _search(
    condition: str, experiments: list[str] | None = None, kept: int = ViewType.ACTIVE_ONLY
) -> list[RunRecord]:
    open_store()
    client = MlflowClient()
    ids = experiments or [entry.experiment_id for entry in client.search_experiments()]
    found: list[RunRecord] = []
    token: Any = None
    while True:
        page = client.search_runs(ids, condition, kept, PAGE, page_token=token)
        found += map(_record, page)
        token = page.token
        if not token:
            return found


def _record(run: MlflowRun) -> RunRecord:
    return RunRecord(
        run_id=run.info.run_id,
        name=run.info.run_name,
        page=page_of_run(run.info.experiment_id, run.info.run_id),
        status=run.info.status,
        started=run.info.start_time / 1000,
        params=run.data.params,
        metrics=run.data.metrics,
        tags=run.data.tags,
    )
