"""Quiet and offline libraries: set before they are imported."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from tasks.core.uris import parted
from tasks.interrupts import uninterrupted

OFFLINE = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # 0, 4, 8, 16 and 32 s between the attempts: a server may be away for a minute during a run. One
    # that is down at the start is said at once, and one that is silent is asked less often: see
    # `tracking.patience`.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "18",
    "PREFECT_API_REQUEST_TIMEOUT": "10",
}
# TensorFlow takes oneDNN's convolutions by itself on some processors only: training is 1.5 times as
# fast with them on the others too.
FAST = {"TF_ENABLE_ONEDNN_OPTS": "1"}
LOOPBACK = ("127.0.0.1", "localhost")
QUIET = {
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # it logs a traceback of what it raises
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_ROOT_LEVEL": "CRITICAL",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TQDM_DISABLE": "1",
}


def prepare(*, verbose: bool, prefect_level: str = "CRITICAL") -> None:
    """Sets the libraries' environment, as far as the user has not.

    `prefect_level` is what Prefect's own messages must reach to be shown, unless verbose.
    """
    always = OFFLINE | FAST
    quiet = QUIET | {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": prefect_level}
    for name, value in (always if verbose else always | quiet).items():
        os.environ.setdefault(name, value)
    _hide_prefect_password()
    _reach_loopback()


def _reach_loopback() -> None:
    """Keeps requests to this machine's own servers from a proxy, which cannot pass them on."""
    names = ("no_proxy", "NO_PROXY")  # libraries read one of them, or the first that is set
    known = [host for name in names for host in os.environ.get(name, "").split(",") if host]
    os.environ |= dict.fromkeys(names, ",".join(dict.fromkeys((*known, *LOOPBACK))))


def hush() -> None:
    """Drops Python's warnings, and the failures of log lines: for a command's own process alone."""
    warnings.filterwarnings("ignore")
    logging.raiseExceptions = False  # a log line that Prefect's server did not take


def _hide_prefect_password() -> None:
    """Moves user and password out of Prefect's URL into the header that they mean.

    Prefect's messages quote the URL. The setting for basic authentication would not do: a proxy
    wants the header with websockets as well.
    """
    url, credentials = parted(os.environ.get("PREFECT_API_URL", ""))
    if credentials is None:
        return
    token = b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()
    headers = json.loads(os.environ.get("PREFECT_CLIENT_CUSTOM_HEADERS", "{}"))
    headers["Authorization"] = f"Basic {token}"
    os.environ["PREFECT_CLIENT_CUSTOM_HEADERS"] = json.dumps(headers)
    os.environ["PREFECT_API_URL"] = url


def load_keras() -> None:
    """Imports Keras, which takes seconds, as quietly as `prepare` was asked to make the libraries.

    Flows call it where the first of their tasks trains or loads a Keras model. Operations follow
    each other from then on, on as many cores as there are each: where TensorFlow runs several at
    once, sums round as they happen to be scheduled, `enable_op_determinism` or not, and the same
    seed gives other weights.
    """
    if "keras" in sys.modules:
        return
    name = "TF_CPP_MIN_LOG_LEVEL"
    quiet = os.environ.get(name) == QUIET[name]
    # TensorFlow crashes where its import ends in the middle.
    with uninterrupted(), silenced_stderr() if quiet else nullcontext():
        import keras
        import tensorflow as tf
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if quiet:
        keras.config.disable_interactive_logging()
        tf.get_logger().setLevel("ERROR")


@contextmanager
def silenced_stderr() -> Iterator[None]:
    """Discards what native code writes to stderr past Python, as TensorFlow's import does."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
