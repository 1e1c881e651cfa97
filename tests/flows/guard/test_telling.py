"""Alarms told to a server that is there, away, silent, or refuses: none is lost, nobody waits."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flows.guard import telling
from flows.guard.telling import HEADERS, URL, Teller
from tasks.core.errors import CertiflowError
from tests.guarded import until
from tests.local_servers import free_port

MODEL = "certiflow-digits"


@dataclass
class Api:
    """What a server was sent, and how it answers; without `open` it says nothing."""

    status: int = 204
    open: threading.Event = field(default_factory=threading.Event)
    paths: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)


@contextmanager
def serving(port: int, api: Api) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            api.open.wait()
            api.paths.append(self.path)
            api.events += json.loads(body)
            api.authorizations.append(self.headers["Authorization"])
            self.send_response(api.status)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            api.open.set()
            server.shutdown()


@pytest.fixture
def api() -> Api:
    answering = Api()
    answering.open.set()
    return answering


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Where the API is said to be; what fails is tried again soon."""
    found = free_port()
    monkeypatch.setenv(URL, f"http://127.0.0.1:{found}/api")
    monkeypatch.delenv(HEADERS, raising=False)
    monkeypatch.setattr(telling, "AGAIN_SECONDS", 0.05)
    return found


def configured() -> Teller:
    teller = Teller.configured()
    assert teller is not None
    return teller


def test_nothing_is_told_where_no_api_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv(URL, raising=False)
        else:
            monkeypatch.setenv(URL, value)
        assert Teller.configured() is None


def test_what_waits_is_told_once_a_server_answers(port: int, api: Api) -> None:
    with closing(configured()) as teller:
        teller.tell(MODEL, 3, "labels", "labels: shifted")
        teller.tell(MODEL, 3, "client", "client a")
        until(lambda: teller.trouble, "nobody says that the server is away")
        assert f"not told to Prefect at http://127.0.0.1:{port}/api/events" in teller.trouble
        assert "\n" not in teller.trouble
        with serving(port, api):
            until(lambda: len(api.events) == 2, "nothing is told")
            until(lambda: not teller.trouble, "the trouble stays")
    assert set(api.paths) == {"/api/events"}
    assert [each["resource"]["certiflow.cause"] for each in api.events] == ["labels", "client"]
    assert api.events[0]["payload"] == {"version": 3, "message": "labels: shifted"}


def test_what_is_refused_is_told_again_as_the_same_event(port: int, api: Api) -> None:
    api.status = 500
    with serving(port, api), closing(configured()) as teller:
        teller.tell(MODEL, 1, "inputs", "brightness: shifted")
        until(lambda: len(api.events) > 1, "it is not told again")
        assert "500" in teller.trouble
        api.status = 204
        until(lambda: not teller.trouble, "the trouble stays")
    assert len({each["id"] for each in api.events}) == 1


def test_a_silent_server_keeps_nobody_waiting(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither who raises alarms, of which no more wait than may, nor the guard's end."""
    monkeypatch.setattr(telling, "SECONDS", 0.5)
    monkeypatch.setattr(telling, "WAITING", 10)
    silent = Api()
    with serving(port, silent):
        ended = configured()
        ended.tell(MODEL, 1, "client", "the last one")
        ended.close()
        teller = configured()
        for number in range(100):
            teller.tell(MODEL, 1, "client", str(number))
        until(lambda: "timed out" in teller.trouble, "nobody says that the server is silent")
        assert not silent.events
        silent.open.set()
        waited = {str(number) for number in range(10)}
        until(lambda: waited <= told(silent), "what waits is not told")
        teller.close()
    assert len(told(silent) - {"the last one"}) <= 11  # one is being told


def told(api: Api) -> set[str]:
    return {each["payload"]["message"] for each in api.events}


def test_the_clients_headers_are_sent_and_a_password_is_not_shown(
    port: int, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, f"http://alice:s3cretpw@127.0.0.1:{port}/api")
    with closing(configured()) as teller:
        teller.tell(MODEL, 1, "client", "client a")
        until(lambda: teller.trouble, "nobody says that the server is away")
        assert "s3cretpw" not in teller.trouble
    monkeypatch.setenv(URL, f"http://127.0.0.1:{port}/api")
    token = f"Basic {b64encode(b'alice:s3cretpw').decode()}"
    monkeypatch.setenv(HEADERS, json.dumps({"Authorization": token}))
    with serving(port, api), closing(configured()) as teller:
        teller.tell(MODEL, 1, "client", "client a")
        until(lambda: api.events, "nothing is told")
    assert api.authorizations == [token]
    for wrong in ("{", "[]", '{"Authorization": 1}'):
        monkeypatch.setenv(HEADERS, wrong)
        with pytest.raises(CertiflowError, match="expected a JSON object of texts"):
            Teller.configured()


def test_what_waits_is_told_before_the_end(port: int, api: Api) -> None:
    with serving(port, api):
        teller = configured()
        for number in range(5):
            teller.tell(MODEL, 1, "client", str(number))
        teller.close()
        assert [each["payload"]["message"] for each in api.events] == list("01234")
