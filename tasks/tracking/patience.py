"""How long a store that does not answer is waited for: seconds before a run, a minute within it.

A server that refuses is starting again, and is asked until its retries are over. One that takes
requests and is silent has hung: each try costs a whole time limit, so that it gets fewer. MLflow
itself only counts tries, and waits for PostgreSQL without a limit, deaf to Ctrl-C meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from select import select
from time import monotonic, sleep
from typing import Any

import mlflow
import sqlalchemy
import urllib3
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.utils import request_utils
from urllib3.exceptions import NewConnectionError
from urllib3.exceptions import TimeoutError as Silence

PROBE_SECONDS = 6.0
PATIENCE_SECONDS = 60.0
SILENT_SECONDS = 40.0  # of a database, so that the end of the run comes within the minute
SILENT_TRIES = 2  # of MLFLOW_HTTP_REQUEST_TIMEOUT each
PAUSE_SECONDS = 1.0  # between two tries of a database that refuses


class _Patience:
    """Of a database, at the moment."""

    seconds = PATIENCE_SECONDS


@contextmanager
def impatient() -> Iterator[None]:
    """In the block stores are asked once, for `PROBE_SECONDS`."""
    settings = (MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT)
    before = [setting.get_raw() for setting in settings]  # type: ignore[no-untyped-call]
    for setting, value in zip(settings, (0, int(PROBE_SECONDS)), strict=True):
        setting.set(value)  # type: ignore[no-untyped-call]
    _Patience.seconds = PROBE_SECONDS
    try:
        yield
    finally:
        _Patience.seconds = PATIENCE_SECONDS
        for setting, text in zip(settings, before, strict=True):
            if text is None:
                setting.unset()  # type: ignore[no-untyped-call]
            else:
                setting.set(text)  # type: ignore[no-untyped-call]


class _Retry(urllib3.Retry):
    """Gives up a server that was silent `SILENT_TRIES` times, whatever the number of retries."""

    def is_exhausted(self) -> bool:
        silent = [each.error for each in self.history if isinstance(each.error, Silence)]
        refused = [error for error in silent if isinstance(error, NewConnectionError)]
        return super().is_exhausted() or len(silent) - len(refused) >= SILENT_TRIES


def keep_limits() -> None:
    """Makes MLflow's requests, and its connections to PostgreSQL, wait no longer than said here."""
    request_utils.Retry = _Retry  # type: ignore[attr-defined]
    if not mlflow.get_tracking_uri().startswith("postgres"):
        return
    from psycopg2 import extensions

    extensions.set_wait_callback(_wait)
    if not sqlalchemy.event.contains(sqlalchemy.Engine, "do_connect", _connected):
        sqlalchemy.event.listen(sqlalchemy.Engine, "do_connect", _connected)


def _wait(connection: Any) -> None:
    """Waits for PostgreSQL as libpq does, but not for ever, and so that signals are heard."""
    from psycopg2 import OperationalError, extensions

    seconds = min(_Patience.seconds, SILENT_SECONDS)
    deadline = monotonic() + seconds
    while (state := connection.poll()) != extensions.POLL_OK:
        reading = [connection] if state == extensions.POLL_READ else []
        writing = [] if reading else [connection]
        if not any(select(reading, writing, [], max(0.0, deadline - monotonic()))):
            raise OperationalError(f"no answer within {seconds:g} s")


def _connected(dialect: Any, record: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
    """MLflow's connection to a PostgreSQL that may be starting again; None for any other."""
    store = sqlalchemy.make_url(mlflow.get_tracking_uri())
    if dialect.name != store.get_backend_name() or dialect.create_connect_args(store)[1] != named:
        return None
    deadline = monotonic() + _Patience.seconds - PROBE_SECONDS
    while True:
        try:
            return dialect.connect(*arguments, **named)
        except dialect.loaded_dbapi.OperationalError:
            if monotonic() > deadline:
                raise
        sleep(PAUSE_SECONDS)
