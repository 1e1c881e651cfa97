"""The `certiflow` command in a process of its own, as a user runs it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest
from click.testing import Result
from filelock import FileLock
from typer.testing import CliRunner

from flows.command.cli import app
from flows.processes import environment as libraries
from flows.processes import guardian, prefect_server
from flows.processes.guardian import INVOCATION
from tasks.core.errors import CertiflowError
from tasks.core.sources.download import MIRROR_VARIABLE
from tests import command_server

ROOT = Path(__file__).parents[1]
CERTIFLOW = [sys.executable, "-m", "flows.command.cli"]
SECONDS = 300
SESSION = Path(
    tempfile.gettempdir(),
    f"certiflow-tests-{os.environ.get('PYTEST_XDIST_TESTRUNUID') or uuid.uuid4().hex}",
)


def clean_environment(prefect_home: Path, **more: str) -> dict[str, str]:
    """This process's, without a mirror and servers, and Prefect's files in their own folder."""
    unset = {MIRROR_VARIABLE, "MLFLOW_TRACKING_URI", "PREFECT_API_URL", INVOCATION}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    own = {"PREFECT_HOME": str(prefect_home), "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return kept | own | more


def with_settings(folder: Path) -> Path:
    """A project's folder that has `conf/`."""
    (folder / "conf").symlink_to(ROOT / "conf")
    return folder


class Command:
    """A running command: a fork of the session's `command_server`."""

    def __init__(self, project: Path, environment: dict[str, str], *arguments: str) -> None:
        asked = {"folder": str(project), "environment": environment, "arguments": arguments}
        self.returncode: int | None = None
        self._said = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115  open with us
        _served()
        self._connection = _connected()
        with open(os.devnull) as nothing:
            streams = [stream.fileno() for stream in (nothing, *self._said)]
            socket.send_fds(self._connection, [json.dumps(asked).encode()], streams)
        self.pid = int(_received(self._connection))

    def poll(self) -> int | None:
        """Its exit code, minus a signal's number; None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = int(_received(self._connection))
            self._connection.close()
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its exit code, when it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not, in this many seconds.
        """
        if self.returncode is None:
            select.select([self._connection], [], [], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(f"certiflow {self.pid}", timeout)
        return code

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it has said on both streams, when it has ended; raises as `wait`."""
        self.wait(timeout)
        for stream in self._said:
            stream.seek(0)
        out, error = (stream.read() for stream in self._said)
        return out, error

    def end(self) -> None:
        """Kills it if it still runs."""
        self.send_signal(signal.SIGKILL)
        self.wait(SECONDS)
        for stream in self._said:
            stream.close()

    def send_signal(self, number: signal.Signals) -> None:
        """Does nothing when it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


@contextmanager
def started(project: Path, environment: dict[str, str], *arguments: str) -> Iterator[Command]:
    """A running command, which does not outlive the block."""
    command = Command(project, environment, *arguments)
    try:
        yield command
    finally:
        command.end()


def certiflow(
    project: Path, environment: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command in `project` to its end."""
    with started(project, environment, *arguments) as command:
        out, error = command.communicate(SECONDS)
    return subprocess.CompletedProcess(arguments, command.wait(SECONDS), out, error)


def interpreted(
    project: Path, environment: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """As `certiflow`, in a Python that has imported nothing: that of a user."""
    return subprocess.run(
        [*CERTIFLOW, *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that says why the command could not do its job."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


def invoked(patch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """The command in this process, which starts no server and no guardian: what it looks at first.

    Its switches for a whole process stay as they are, and it is told of no Prefect server.
    """

    def started() -> None:
        raise AssertionError("something was started")

    patch.delenv("PREFECT_API_URL", raising=False)
    patch.setattr(libraries, "hush", lambda: None)
    patch.setattr(prefect_server, "start", started)
    patch.setattr(guardian, "start", started)
    return CliRunner().invoke(app, arguments, prog_name="certiflow")


def refusal(patch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What the command says of arguments that it cannot serve, before anything is started."""
    result = invoked(patch, *arguments)
    assert isinstance(result.exception, CertiflowError), result.exception
    assert result.stdout == ""
    assert "\n" not in str(result.exception)
    return str(result.exception)


def misuse(patch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What the command says of wrong usage."""
    result = invoked(patch, *arguments)
    assert result.exit_code == 2, result.exception
    return result.stderr


@cache
def prefect_url() -> str:
    """The API of the session's Prefect server."""
    connection = _served()
    connection.send(json.dumps({"wanted": "prefect"}).encode())
    return _received(connection)


@cache
def _served() -> socket.socket:
    """This process's own connection to the command server, which ends with the session's last."""
    SESSION.mkdir(mode=0o700, exist_ok=True)
    with FileLock(SESSION / "lock"):
        try:
            return _connected()
        except OSError:  # we are the first
            return _started()


def _started() -> socket.socket:
    with (SESSION / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.command_server", str(SESSION)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C must not end it before those that use it
        )
    while True:
        with suppress(OSError):
            return _connected()
        assert server.poll() is None, (SESSION / "log").read_text()
        time.sleep(0.05)


def _connected() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(SESSION / command_server.SOCKET))
    except OSError:
        connection.close()
        raise
    return connection


def _received(connection: socket.socket) -> str:
    message = connection.recv(command_server.MESSAGE_BYTES).decode()
    assert message, "the command server has ended"
    return message
