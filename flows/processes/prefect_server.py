"""A Prefect API for one command: the configured one, or a temporary server of our own.

Prefect would start a temporary server itself, but as a child that a killed flow leaves behind with
the terminal's output open, and that Ctrl-C ends before the interrupted run can be marked.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import IO

import httpx
from filelock import FileLock, Timeout

from flows.processes import running_server
from flows.processes.guardian import ROLE
from flows.processes.running_server import HOST
from tasks.core.errors import CertiflowError
from tasks.core.uris import without_passwords

START_SECONDS = 120.0
STOP_SECONDS = 10.0
PROBE_SECONDS = 6.0
EXCEPTION = re.compile(r"[\w.]+(Error|Exception)\b")  # at the end of a traceback
DATABASE_VARIABLES = (
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
)


def start(port: int | None = None) -> Callable[[], str]:
    """Starts a server on loopback for this process's life, unless an API is at hand.

    At hand is the configured one, or a lasting server of this user's on this machine. With a `port`
    only the former counts, and the server is a lasting one: it has its services, which start
    scheduled runs, and its UI. It answers this machine's programs and its own pages only: see
    `flows.processes.guarded_server`.

    Returns a function that waits until the API answers and gives its URL, so that the caller can
    import its libraries meanwhile. The server ends when the interpreter exits: after Prefect's own
    threads, which send their last logs and events then.

    Raises (the function):
        CertiflowError: the configured API does not answer, or the server does not start.
    """
    configured = configured_url()
    if configured:
        return lambda: _answering(configured)
    running = running_server.find() if port is None else None
    if running is not None and _answers(running):
        return lambda: running
    extras = ["--no-services"] if port is None else []
    port = _free_port() if port is None else _unused(port)
    url = f"http://{HOST}:{port}/api"
    lock = _alone(running_server.home())
    log = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the server runs
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "flows.processes.guarded_server", *extras),
            *("--port", str(port)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, ROLE: "server"},
        start_new_session=True,  # Ctrl-C must not end it before the run is marked
    )
    atexit.register(_stop, server)
    return lambda: _started(server, url, log, lock)


def configured_url() -> str | None:
    """The API that the user has chosen, if any; Prefect is imported only where a file may say it.

    Importing it takes a second.
    """
    files = (running_server.home() / "profiles.toml", Path("prefect.toml"), Path(".env"))
    project = Path("pyproject.toml")
    said = (
        any(name in os.environ for name in ("PREFECT_PROFILE", "PREFECT_PROFILES_PATH"))
        or any(file.exists() for file in files)
        or (project.exists() and "[tool.prefect" in project.read_text(errors="replace"))
    )
    if not said or os.environ.get("PREFECT_API_URL"):
        return os.environ.get("PREFECT_API_URL") or None
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


def at_hand() -> bool:
    """Whether an API is configured, or a lasting server of this user's runs."""
    return configured_url() is not None or running_server.find() is not None


def _alone(home: Path) -> FileLock:
    """Held until the server answers: two that migrate one SQLite database break each other.

    Raises:
        CertiflowError: Prefect's home is not writable, or another start takes too long.
    """
    lock = FileLock(home / ".certiflow-server.lock", timeout=START_SECONDS)
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise CertiflowError(
            f"{home}: another command has been starting a Prefect server for {START_SECONDS:g} s: "
            "end it, or set PREFECT_HOME to another folder"
        ) from error
    except OSError as error:
        raise CertiflowError(
            f"{home}: {error.strerror}: make it writable, or set PREFECT_HOME to another folder"
        ) from error
    return lock


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def _unused(port: int) -> int:
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise CertiflowError(
                f"port {port} is in use: if that is a Prefect server, set "
                f"PREFECT_API_URL=http://{HOST}:{port}/api to use it; else choose another --port"
            )
    return port


def _healthy(url: str) -> str | None:
    """None when the API and its database answer, else why not."""
    from prefect.settings import get_current_settings

    headers = get_current_settings().client.custom_headers
    for path in ("health", "ready"):  # the latter asks the database; not every API has it
        try:
            answer = httpx.get(f"{url}/{path}", headers=headers, timeout=PROBE_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{path}: {str(error) or type(error).__name__}"
        if not answer.is_success and (path, answer.status_code) != ("ready", 404):
            return f"{path}: HTTP {answer.status_code}"
    return None


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=PROBE_SECONDS).is_success
    except httpx.HTTPError:
        return False


def _answering(url: str) -> str:
    reason = _healthy(url)
    if reason is not None:
        raise CertiflowError(
            f"Prefect's API at {url} does not answer ({reason}): start it, or unset "
            "PREFECT_API_URL to use a temporary one"
        )
    return url


def _started(server: subprocess.Popen[bytes], url: str, log: IO[bytes], lock: FileLock) -> str:
    deadline = monotonic() + START_SECONDS
    try:
        while monotonic() < deadline and server.poll() is None:
            if _healthy(url) is None:
                return url
            sleep(0.1)
    finally:
        lock.release()
    log.seek(0)
    raise CertiflowError(
        f"the Prefect server did not start ({_last_words(log.read().decode(errors='replace'))}): "
        f"{_remedy()}"
    )


def _last_words(said: str) -> str:
    """The exception that ended a server, or else its last line."""
    lines = said.strip().splitlines() or ["it printed nothing"]
    exceptions = [line for line in lines if EXCEPTION.match(line)]
    return without_passwords((exceptions or lines)[-1].strip())


def _remedy() -> str:
    for name in DATABASE_VARIABLES:
        if name in os.environ:
            return f"does the database of {name} answer?"
    home = os.environ.get("PREFECT_HOME", "~/.prefect")
    return f"is PREFECT_HOME ({home}) writable, with space left?"
