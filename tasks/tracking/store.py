"""MLflow's store: the project's own or the one that MLFLOW_TRACKING_URI names, opened safely."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx
import mlflow
import sqlalchemy
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import RunInfo
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy.exc import SQLAlchemyError

from tasks.core.errors import CertiflowError
from tasks.core.uris import parted, without_passwords
from tasks.tracking.patience import PROBE_SECONDS, impatient, keep_limits
from tasks.tracking.transactions import keep_whole

SQLITE = "sqlite:///"
LOCAL_STORE = f"{SQLITE}mlflow.db"
LOCAL_ARTIFACTS = Path("mlartifacts")
TRAINING_VIEW = "workflowType=machine_learning"  # MLflow opens on language models otherwise
DISK_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "disk is full")
SERVER_ERRORS = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")  # and a request that timed out
STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError)  # gone, unreachable, or the disk is full


def open_store() -> None:
    """Points MLflow at the project's own store, unless told otherwise, and initialises it once.

    A server's URL is without user and password afterwards, wherever it is shown or stored.
    Two processes that initialise one SQLite store at the same time would break it.

    Raises:
        CertiflowError: the store cannot be used; a server or a database that is down or silent is
            said within seconds, since it is asked before MLflow's own requests with their retries.
            Once it has answered, the retries bridge its restarts.
    """
    if not mlflow.is_tracking_uri_set():  # type: ignore[no-untyped-call]
        mlflow.set_tracking_uri(LOCAL_STORE)
    _hide_password()
    keep_limits()
    database = local_database()
    if database is not None:
        keep_whole()
        _initialise(database)
    else:
        _probe(mlflow.get_tracking_uri())


def _hide_password() -> None:
    """Moves user and password out of a server's URL, to where MLflow looks for them as well."""
    uri, credentials = parted(mlflow.get_tracking_uri())
    if credentials is not None and uri.startswith("http"):
        os.environ["MLFLOW_TRACKING_USERNAME"] = credentials.user
        os.environ["MLFLOW_TRACKING_PASSWORD"] = credentials.password
        mlflow.set_tracking_uri(uri)


def local_database() -> Path | None:
    """The SQLite file of the store in use, if it is one."""
    uri = mlflow.get_tracking_uri()
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def is_local() -> bool:
    """Whether the store in use is a file of SQLite's, beside which there is a lock."""
    open_store()
    return local_database() is not None


@contextmanager
def answered(what: str) -> Iterator[None]:
    """Turns a store that fails in the block into one line; `what` could not be done."""
    try:
        yield
    except BrokenPipeError:  # whoever read our output has gone, not the store
        raise
    except STORE_ERRORS as error:
        reason = outage() or f"MLflow at {mlflow.get_tracking_uri()} failed ({first_line(error)})"
        raise CertiflowError(f"{what}: {reason}; is MLFLOW_TRACKING_URI right?") from error


def _initialise(database: Path) -> None:
    try:
        with FileLock(database.with_name(f".{database.name}.lock"), timeout=120):
            if not (database.exists() or database.name == ":memory:" or "?" in database.name):
                _make_whole(database)
            MlflowClient().search_experiments(max_results=1)
    except OSError as error:
        raise CertiflowError(
            f"{database}: {error.strerror or error}: make the folder writable or set "
            "MLFLOW_TRACKING_URI"
        ) from error
    except (MlflowException, SQLAlchemyError) as error:
        if "database schema" in str(error):
            raise CertiflowError(
                f"{database} was written by another version of MLflow than {mlflow.__version__}: "
                f"copy it away, then run `mlflow db upgrade {SQLITE}{database}`; if that one is "
                "newer, use its version or move the file away"
            ) from error
        raise CertiflowError(
            f"{database} cannot be used as MLflow's store ({first_line(error)}): free some space, "
            "or move it away"
        ) from error


def _make_whole(database: Path) -> None:
    """A new store with all its tables: MLflow cannot use one whose making was killed midway."""
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    unfinished = database.with_name(f".{database.name}.new")
    for left in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        left.unlink(missing_ok=True)
    engine = create_sqlalchemy_engine(f"{SQLITE}{unfinished}")  # type: ignore[no-untyped-call]
    try:
        _initialize_tables(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()
    unfinished.replace(database)


@cache
def _probe(uri: str) -> None:
    silent = outage()
    if silent is not None:
        raise CertiflowError(
            f"{silent}: start it, or unset MLFLOW_TRACKING_URI to use the project's own store"
        )


def outage() -> str | None:
    """Says that the store in use does not answer; None when it does, or is a file."""
    uri = mlflow.get_tracking_uri()
    told = f"MLflow at {without_passwords(uri)} does not answer"
    with impatient():
        if uri.startswith("http"):
            return _outage_of_server(uri, told)
        if uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES and not local_database():
            return _outage_of_database(uri, told)
    return None


def _outage_of_server(uri: str, told: str) -> str | None:
    """Its health says nothing of its database, which a request needs."""
    try:
        httpx.get(f"{uri.rstrip('/')}/health", timeout=PROBE_SECONDS)
        MlflowClient(uri).search_experiments(max_results=1)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{told} ({first_line(error)})"
    except MlflowException as error:
        if error.error_code in SERVER_ERRORS:
            return f"{told} (it is up, but requests fail: is its database down?)"
    return None


def _outage_of_database(uri: str, told: str) -> str | None:
    try:
        sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool).connect().close()
    except (
        SQLAlchemyError,
        ImportError,
        ValueError,
    ) as error:  # no driver; a port that is no number
        return f"{told} ({first_line(error)})"
    return None


def page_of_run(experiment: str, run_id: str) -> str:
    """A server's page of the run; of another store where the page lies below the UI's address.

    Nobody knows where `make ui` will serve a store that is not served.
    """
    uri = mlflow.get_tracking_uri()
    page = f"/#/experiments/{experiment}/runs/{run_id}?{TRAINING_VIEW}"
    return uri.rstrip("/") + page if uri.startswith("http") else page


def way_to(url: str) -> str:
    """How to open a `page_of_run`."""
    return url if url.startswith("http") else f"make ui, then {url}"


def serve_ui(port: int, *, verbose: bool = False) -> None:
    """Replaces this process by MLflow's server on loopback over the store in use.

    Unless `verbose` it says nothing of the requests that it answers.
    """
    open_store()
    if mlflow.get_tracking_uri().startswith("http"):
        raise CertiflowError(
            f"MLFLOW_TRACKING_URI is a server: open {mlflow.get_tracking_uri()}, or unset it to "
            "see the project's own store"
        )
    with answered("ui"):  # the server itself would end in a traceback
        newest = _newest_run()
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise CertiflowError(f"port {port} is in use: choose another one, make ui PORT=5001")
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1"),
        *("--artifacts-destination", LOCAL_ARTIFACTS.absolute().as_uri()),
        *([] if verbose else ["--uvicorn-opts", "--log-level=error"]),
    ]
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # A command line is seen by everybody on the machine, and this URI may hold a password.
    for name in ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_REGISTRY_STORE_URI"):
        os.environ[name] = mlflow.get_tracking_uri()
    if not verbose:
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
    here = f"http://127.0.0.1:{port}/#/experiments"
    print(f"MLflow's UI  {here}?{TRAINING_VIEW} in some seconds; Ctrl-C ends it", flush=True)
    if newest is not None:
        page = page_of_run(newest.experiment_id, newest.run_id)
        print(f"newest run   http://127.0.0.1:{port}{page}", flush=True)
    os.execv(sys.executable, command)


def _newest_run() -> RunInfo | None:
    client = MlflowClient()
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = client.search_runs(experiments, max_results=1, order_by=["attributes.start_time DESC"])
    return found[0].info if found else None


def experiment_id(client: MlflowClient, name: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    local = mlflow.get_tracking_uri() == LOCAL_STORE
    location = LOCAL_ARTIFACTS.absolute().as_uri() if local else None
    try:
        # The UI then opens on training runs rather than on its pages for language models.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(name, artifact_location=location, tags=kind))
    except MlflowException as error:
        known = client.get_experiment_by_name(name)  # another process was faster
        if known is None:
            raise error
        return str(known.experiment_id)


def first_line(error: Exception) -> str:
    """What an exception says first, but for SQLAlchemy's remarks on how it came about."""
    lines = without_passwords(str(error)).strip().splitlines()
    said = [line for line in lines if not line.startswith("(raised as a result of ")]
    return said[0][:200] if said else type(error).__name__


def store_failure(error: Exception) -> str:
    """What an error of the store says, with the remedy where the disk is full."""
    said = first_line(error)
    full = any(words in said for words in DISK_FULL)
    return f"{said}: free some space" if full else said
