"""`certiflow serve`: who may use its API, whose runs it starts and when, what they may choose."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests import guarded
from tests.command import CERTIFLOW, ROOT, clean_environment, with_settings
from tests.guarded import Guard, until
from tests.local_servers import free_port, prefect_server

SECONDS = 180
# How often Prefect asks whether a run is due: 10 seconds would be most of these tests' time.
PROMPT = {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}
ALARM, TRIGGERED = "certiflow.guard.alarm", "prefect.automation.triggered"
FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "evil.example:{port}"},
    {"Host": "127.0.0.1:1"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://evil.example:{port}"},
    {"Origin": "https://127.0.0.1:{port}"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
]
OWN = [
    {},
    {"Origin": "http://127.0.0.1:{port}"},
    {"Origin": "http://localhost:{port}", "Host": "localhost:{port}"},
]


@dataclass(frozen=True)
class Served:
    """A running `certiflow serve`: its folder, the API, and the deployment there."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    deployment: dict[str, Any]

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def asked_runs(self, headers: dict[str, str]) -> list[dict[str, Any]]:
        """Those that were started through the API; Prefect plans that of the schedule itself."""
        found = httpx.post(f"{self.api}/flow_runs/filter", json={}, headers=headers)
        return [run for run in found.raise_for_status().json() if not run["auto_scheduled"]]

    def run(self, **settings: Any) -> dict[str, Any]:
        """The last state of a run with these sections of settings, started through the API."""
        parameters = {"settings": self.deployment["parameters"]["settings"] | settings}
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        url = f"{self.api}/deployments/{self.deployment['id']}/create_flow_run"
        answer = httpx.post(url, json=body)
        while answer.status_code == 503:  # SQLite was busy; Prefect's client asks again, too
            time.sleep(0.3)
            answer = httpx.post(url, json=body)
        return ended(self.api, answer.raise_for_status().json()["id"], self.process)


def ended(api: str, run: str, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None
        state = httpx.get(f"{api}/flow_runs/{run}").json()["state"]
        if state["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}:
            return dict(state)
        time.sleep(0.3)
    raise TimeoutError(run)


@contextmanager
def serving(folder: Path, environment: dict[str, str], port: int, *more: str) -> Iterator[Served]:
    command = ["serve", "--conf", "conf/smoke.yaml", "--cron", "0 2 1 1 *", *more]
    with subprocess.Popen(
        [*CERTIFLOW, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            found = registered(f"http://127.0.0.1:{port}/api", folder, process)
            yield Served(folder, port, process, found)
        finally:
            process.terminate()
            process.wait(60)


def registered(api: str, folder: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The deployment of a folder, once it is there."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None
        with suppress(httpx.HTTPError):
            for each in httpx.post(f"{api}/deployments/filter", json={}).json():
                if each["description"] == f"Retrains in {folder}":
                    return dict(each)
        time.sleep(0.3)
    raise TimeoutError(api)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return clean_environment(tmp_path_factory.mktemp("prefect"), **PROMPT)


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[Served]:
    """Serves a folder, with Prefect's server; its data are kept outside."""
    folder, port = with_settings(tmp_path_factory.mktemp("first")), free_port()
    cache = tmp_path_factory.mktemp("cache")
    options = ["--port", str(port), "--set", f"data.cache={cache}"]
    with serving(folder, environment, port, *options) as served:
        yield served


def filled(headers: dict[str, str], port: int) -> dict[str, str]:
    return {name: value.format(port=port) for name, value in headers.items()}


def websocket(served: Served, headers: dict[str, str]) -> int:
    """The HTTP status of opening a websocket of Prefect's."""
    port = served.port
    host = headers.pop("Host", f"127.0.0.1:{port}")

    async def status() -> int:
        address = f"ws://{host}/api/events/in"
        try:
            async with connect(
                address, host="127.0.0.1", port=port, additional_headers=headers, proxy=None
            ):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    return asyncio.run(status())


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_foreign_page_is_refused(first: Served, headers: dict[str, str]) -> None:
    headers = filled(headers, first.port)
    simple = headers | {"Content-Type": "text/plain"}  # which a browser sends without asking first
    url = f"{first.api}/deployments/{first.deployment['id']}/create_flow_run"
    answers = [
        httpx.post(url, content="{}", headers=simple),
        httpx.get(f"{first.api}/health", headers=headers),
        httpx.get(f"{first.api.removesuffix('/api')}/", headers=headers),
        httpx.options(url, headers=headers | {"Access-Control-Request-Method": "POST"}),
    ]
    assert [answer.status_code for answer in answers] == [403] * 4
    assert not any("access-control-allow-origin" in answer.headers for answer in answers)
    assert websocket(first, headers) == 403
    assert first.asked_runs({}) == []


@pytest.mark.parametrize("headers", OWN)
def test_own_pages_and_programs_are_answered(first: Served, headers: dict[str, str]) -> None:
    headers = filled(headers, first.port)
    assert first.asked_runs(headers) == []
    page = httpx.get(f"http://127.0.0.1:{first.port}/", headers=headers, follow_redirects=True)
    assert "<html" in page.text
    assert websocket(first, headers) == 101


def test_deployment_is_offered_with_its_schedule_and_form(first: Served) -> None:
    found = first.deployment
    assert found["name"].startswith("digits-dense-16-")
    assert found["schedules"][0]["schedule"]["cron"] == "0 2 1 1 *"
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    schema = found["parameter_openapi_schema"]
    samples = schema["definitions"]["VerificationSettings"]["properties"]["samples"]["anyOf"]
    assert [(each.get("minimum"), each.get("const")) for each in samples] == [
        (1, None),
        (None, "all"),
    ]
    settings = httpx.get(f"http://127.0.0.1:{first.port}/ui-settings").json()
    assert settings["api_url"] == first.api


def test_run_through_the_api_cannot_choose_another_place(first: Served, tmp_path: Path) -> None:
    state = first.run(verification={"cluster": "tcp://evil.example:8786"})
    assert state["type"] == "FAILED"
    assert "verification.cluster is 'tcp://evil.example:8786', but this" in state["message"]
    state = first.run(tracking={"output": str(tmp_path / "new")})
    assert "tracking.output is" in state["message"]
    assert list(tmp_path.iterdir()) == []


def test_run_as_it_is_served_is_done(first: Served) -> None:
    state = first.run()
    assert state["type"] == "COMPLETED", state
    assert list(first.folder.glob("runs/*/report.html"))


def test_folders_at_one_server_run_their_own_deployments(
    first: Served, tmp_path: Path, environment: dict[str, str]
) -> None:
    folder = with_settings(tmp_path)
    before = {entry.name for entry in first.folder.iterdir()}
    shared = environment | {"PREFECT_API_URL": first.api}
    with serving(folder, shared, first.port) as second:
        assert second.deployment["id"] != first.deployment["id"]
        (folder / "here.npz").write_bytes(b"no array")
        state = second.run(data={"dataset": "here.npz"})
        assert "here.npz: cannot be read as .npz" in state["message"]  # not: no such file
    assert {entry.name for entry in first.folder.iterdir()} == before
    unchanged = httpx.get(f"{first.api}/deployments/{first.deployment['id']}").json()
    assert unchanged["parameters"] == first.deployment["parameters"]


def prefect(folder: Path, environment: dict[str, str], *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=SECONDS,
    )


def test_worker_keeps_to_prefect_yaml(
    first: Served, tmp_path: Path, environment: dict[str, str]
) -> None:
    folder = with_settings(tmp_path)
    for name in ("flows", "tasks"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "prefect.yaml", folder)
    shared = environment | {"PREFECT_API_URL": first.api}
    prefect(folder, shared, "work-pool", "create", "certiflow", "--type", "process")
    prefect(folder, shared, "--no-prompt", "deploy", "--all")
    url = f"{first.api}/deployments/name/retrain/nightly"
    deployment = httpx.get(url).raise_for_status().json()
    with subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", "certiflow"],
        cwd=folder,
        env=shared,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as worker:
        try:
            served = Served(folder, first.port, worker, deployment)
            state = served.run(verification={"cluster": "tcp://evil.example:8786"})
        finally:
            worker.kill()  # Prefect's own graceful end can take for ever
    assert state["type"] == "FAILED"
    assert "verification.cluster is 'tcp://evil.example:8786', but this" in state["message"]


def automations(api: str) -> list[dict[str, Any]]:
    return list(httpx.post(f"{api}/automations/filter", json={}).raise_for_status().json())


def events(api: str, name: str) -> list[dict[str, Any]]:
    """Those that Prefect has received, of a name."""
    named = {"filter": {"event": {"name": [name]}}}
    return list(httpx.post(f"{api}/events/filter", json=named).raise_for_status().json()["events"])


def raise_alarms(guard: Guard, inputs: np.ndarray, api: str) -> int:
    """How many; Prefect has received them."""
    before = len(events(api, ALARM))
    guard.predict(inputs)
    raised = int(guard.metric("certiflow_guard_alarms_total"))
    assert raised > 0
    until(lambda: len(events(api, ALARM)) == before + raised, "Prefect is not told")
    assert guard.readiness()["troubles"] == []
    return raised


def test_an_alarm_of_a_guard_starts_a_run(tmp_path: Path, environment: dict[str, str]) -> None:
    """At a Prefect server of the user's own, by one automation however often it is served."""
    data, own, other = guarded.digits(tmp_path), guarded.MODEL, "certiflow-others"
    for name in (own, other):
        guarded.register(tmp_path, guarded.class_means(data), data, name)
    folder = with_settings(tmp_path)
    strict = {"epsilon": 0.02, "budget_ms": 0, "flag_rate": 0.001}
    with prefect_server(tmp_path / "server") as port:
        api = f"http://127.0.0.1:{port}/api"
        named = {"PREFECT_API_URL": api}
        with serving(folder, environment | named, port):
            until(lambda: automations(api), "there is no automation")
            (former,) = automations(api)
        with serving(folder, environment | named, port) as served:
            until(
                lambda: former["id"] not in [each["id"] for each in automations(api)],
                "it is not made anew",
            )
            until(lambda: automations(api), "there is no automation")
            (automation,) = automations(api)
            assert served.deployment["name"] in automation["name"] == former["name"]

            for name in (other, own):
                settings = strict | {"model": f"models:/{name}@champion"}
                with guarded.guarding(tmp_path, settings, **named) as guard:
                    raised = raise_alarms(guard, data.test_inputs, api)
            until(lambda: len(served.asked_runs({})) >= raised, "no run is started")
            until(lambda: len(events(api, TRIGGERED)) >= raised, "nobody says what started it")
            runs, fired = served.asked_runs({}), events(api, TRIGGERED)
    assert len(runs) == raised
    for run in runs:
        assert run["deployment_id"] == served.deployment["id"]
        assert run["created_by"]["type"] == "AUTOMATION"
        assert run["created_by"]["id"] == automation["id"]
    about = {
        each["payload"]["triggering_event"]["resource"]["prefect.resource.id"] for each in fired
    }
    assert about == {f"certiflow.model.{own}"}  # the other model's alarms, which came first, none
