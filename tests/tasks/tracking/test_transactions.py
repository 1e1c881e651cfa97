"""An interrupt leaves no transaction open, which would lock the store for all that comes after."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from sqlalchemy import Engine, event

from tasks import interrupts
from tasks.tracking import open_store


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """Of a store of SQLite's, in a process that Ctrl-C ends."""
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(interrupts, "_interruptions", [])
    before = signal.signal(signal.SIGINT, interrupts.interrupt)
    open_store()
    yield MlflowClient()
    signal.signal(signal.SIGINT, before)
    mlflow.set_tracking_uri(None)


def test_an_interrupt_waits_for_the_end_of_a_transaction(client: MlflowClient) -> None:
    run = client.create_run("0").info.run_id

    def press(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("INSERT INTO metrics"):
            signal.raise_signal(signal.SIGINT)

    event.listen(Engine, "after_cursor_execute", press)
    try:
        with pytest.raises(KeyboardInterrupt):
            client.log_metric(run, "loss", 1.0)
    finally:
        event.remove(Engine, "after_cursor_execute", press)
    assert client.get_run(run).data.metrics == {"loss": 1.0}
    client.set_terminated(run, "KILLED")
    assert client.get_run(run).info.status == "KILLED"
    assert signal.getsignal(signal.SIGINT) is interrupts.interrupt
