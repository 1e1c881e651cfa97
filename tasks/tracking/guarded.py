"""The files that a service needs of a registered version (see `tasks.guarding.files`)."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow import MlflowClient

from tasks.core.errors import CertiflowError
from tasks.tracking.records import find_version, run_of
from tasks.tracking.registry import Version
from tasks.tracking.store import answered, open_store

GUARD_FOLDER = "guard"  # of a run's artifacts
GUARD_REFUSED = "guard.refused"  # tag of a run whose model cannot be served so: why


def version_meant(words: str) -> Version:
    """The version that `models:/name@alias` or `models:/name/3` means now.

    Raises:
        CertiflowError: it is neither; there is none; the store does not answer.
    """
    open_store()
    with answered(words):
        version = find_version(words)
    if version is None:
        raise CertiflowError(
            f"{words}: expected a registered version: models:/certiflow-mnist@champion, or "
            "models:/certiflow-mnist/3"
        )
    return version


def download_guard_files(version: Version, folder: Path) -> Path:
    """The folder with the version's files.

    Raises:
        CertiflowError: it has none, and why; its run was deleted; the store does not answer.
    """
    open_store()
    with answered(str(version)):
        run = run_of(version)
        if not MlflowClient().list_artifacts(run.run_id, GUARD_FOLDER):
            refused = run.tags.get(GUARD_REFUSED)
            why = refused or "it was made by an earlier certiflow: train or evaluate it again"
            raise CertiflowError(f"{version} cannot be guarded: {why}")
        found = mlflow.artifacts.download_artifacts(
            run_id=run.run_id, artifact_path=GUARD_FOLDER, dst_path=str(folder)
        )
        return Path(found)
