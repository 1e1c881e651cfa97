"""A store that is down or silent is said within seconds; later, in a run, within a minute."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from select import select
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from urllib3.connection import HTTPConnection
from urllib3.exceptions import MaxRetryError, NewConnectionError

from tasks.core.errors import CertiflowError
from tasks.tracking import open_store, patience, store
from tests.local_servers import free_port, silent_listener

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (patience, store):
        monkeypatch.setattr(module, "PROBE_SECONDS", 1.0)
    yield
    mlflow.set_tracking_uri(None)


def refusal(uri: str) -> str:
    mlflow.set_tracking_uri(uri)
    with pytest.raises(CertiflowError) as caught:
        open_store()
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
@pytest.mark.parametrize("accepts", [True, False], ids=["silent", "swallowing"])
def test_a_store_that_does_not_answer_is_said(scheme: str, accepts: bool) -> None:
    with silent_listener(accepts=accepts) as listener:
        port = listener.getsockname()[1]
        said = refusal(f"{scheme}://user:{SECRET}@127.0.0.1:{port}/mlflow")
    assert f"127.0.0.1:{port}/mlflow does not answer" in said


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("http://127.0.0.1:{port}", "refused"),
        ("postgresql://user:{secret}@127.0.0.1:{port}/mlflow", "refused"),
        ("postgresql://user:{secret}@127.0.0.1:port/mlflow", "port"),
        ("mysql+nodriver://user:{secret}@127.0.0.1:{port}/mlflow", "nodriver"),
    ],
)
def test_a_store_that_is_not_there_is_said(uri: str, why: str) -> None:
    said = refusal(uri.format(port=free_port(), secret=SECRET))
    assert "does not answer" in said
    assert why in said


class _NoDatabase(BaseHTTPRequestHandler):
    """A server that is well, but for its database."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *words: object) -> None:
        pass


def test_a_server_whose_database_is_gone_is_said() -> None:
    with HTTPServer(("127.0.0.1", 0), _NoDatabase) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = refusal(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "requests fail: is its database down?" in said


def test_a_server_that_falls_silent_is_not_asked_as_often_as_one_that_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    with silent_listener() as listener:
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        mlflow.set_tracking_uri(uri)
        patience.keep_limits()
        with pytest.raises(MlflowException, match="timed out"):
            MlflowClient(uri).search_experiments()
        tries = 0
        while select([listener], [], [], 0)[0]:
            listener.accept()[0].close()
            tries += 1
    assert tries == patience.SILENT_TRIES


def test_a_server_that_refuses_is_asked_until_the_retries_are_over() -> None:
    error = NewConnectionError(HTTPConnection("127.0.0.1"), "refused")
    retry: Any = patience._Retry(total=5, connect=5)
    for _ in range(5):
        retry = retry.increment("GET", "/", error=error)
    with pytest.raises(MaxRetryError):
        retry.increment("GET", "/", error=error)


def test_what_was_set_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with patience.impatient():
        assert patience.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 0
    assert patience.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 3
    assert not patience.MLFLOW_HTTP_REQUEST_TIMEOUT.is_set()
