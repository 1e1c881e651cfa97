"""The project's own store is made whole, and full disks are said."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.store.db import utils
from sqlalchemy.exc import OperationalError

from tasks.core.errors import CertiflowError
from tasks.tracking import downloaded_model, open_store, store


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mlflow.db"
    mlflow.set_tracking_uri(f"sqlite:///{path}")
    yield path
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("step", ["_initialize_tables", "_upgrade_db"])
def test_a_store_whose_making_was_killed_is_made_anew(
    database: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before or after MLflow's first tables, which it cannot make again."""

    def die(engine: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(utils, step, die)
        with pytest.raises(KeyboardInterrupt):
            open_store()
    assert not database.exists()
    database.with_name(".mlflow.db.new-journal").write_bytes(b"of the one that was killed")
    open_store()
    assert MlflowClient().search_experiments()
    assert {path.name for path in database.parent.iterdir()} == {"mlflow.db", ".mlflow.db.lock"}


def test_a_full_disk_is_said_with_what_to_do() -> None:
    flush = "(raised as a result of Query-invoked autoflush; consider something)\n"
    full = OperationalError("insert", {}, Exception("database or disk is full"))
    for error in (
        full,
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        Exception(f"{flush}{full}"),
    ):
        said = store.store_failure(error)
        assert said.endswith(": free some space")
        assert "autoflush" not in said
    assert store.store_failure(ValueError("no such thing")) == "no such thing"


def test_a_version_that_is_not_there_is_told_from_those_that_are(database: Path) -> None:
    open_store()
    client = MlflowClient()
    client.create_registered_model("certiflow-one")
    with pytest.raises(CertiflowError, match=r"certiflow-one/9: .*\); give models:"):
        downloaded_model("models:/certiflow-one/9")
    for _ in range(2):
        client.create_model_version("certiflow-one", str(database))
    with pytest.raises(CertiflowError, match="; certiflow-one has versions 2, 1; give models:"):
        downloaded_model("models:/certiflow-one/9")
