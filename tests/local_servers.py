"""Real servers on loopback, for the tests that need one: MLflow's and Prefect's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx

START_SECONDS = 120.0


@contextmanager
def mlflow_server(folder: Path) -> Iterator[int]:
    """The port of an MLflow server whose store is in `folder`; stricter than the SQLite store."""
    port = free_port()
    command = [
        *("-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", "sqlite:///server.db"),
        *("--artifacts-destination", "./artifacts"),
    ]
    quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with _running(command, folder, quick, f"http://127.0.0.1:{port}/health"):
        yield port


@contextmanager
def prefect_server(home: Path) -> Iterator[int]:
    """The port of Prefect's own server over the database in `home`."""
    home.mkdir(exist_ok=True)
    port = free_port()
    command = [
        *("-m", "prefect", "server", "start", "--no-ui"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    own = {"PREFECT_HOME": str(home)}
    with _running(command, home, own, f"http://127.0.0.1:{port}/api/health"):
        yield port


@contextmanager
def silent_listener(*, accepts: bool = True) -> Iterator[socket.socket]:
    """A loopback port that never answers; one that does not accept swallows what is sent to it."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(64 if accepts else 0)
        for _ in range(0 if accepts else 4):  # the queue of those that wait is full then
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def _running(
    command: list[str], folder: Path, environment: Mapping[str, str], health: str
) -> Iterator[None]:
    """Python running `command` in `folder` and answering, for the time of the block."""
    clients = {"MLFLOW_TRACKING_URI", "PREFECT_API_URL"}
    kept = {name: value for name, value in os.environ.items() if name not in clients}
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={**kept, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(health):
                assert process.poll() is None, "the server has ended"
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.2)
            yield
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url).is_success
    return False
