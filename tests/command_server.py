"""A process for the whole test session: it forks commands that need no imports, and has Prefect.

`python -m tests.command_server FOLDER` listens in the folder. Importing TensorFlow, MLflow and
Prefect takes seconds, which are most of a command's life in tests. A fork of a process that has
them is a process of its own like any other: its signals, streams, folder and end are its own. What
a command itself starts, such as solvers, is started as ever.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

import flows
from flows.processes import environment

SOCKET = "socket"
MESSAGE_BYTES = 2**17
START_SECONDS = 120.0
LIBRARIES = [
    "maraboupy.MarabouCore",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tensorflow",
]


@dataclass
class _Server:
    """What the process looks after: connections, commands that run, and Prefect's server."""

    selector: selectors.BaseSelector
    prefect: subprocess.Popen[bytes]
    prefect_url: str
    users: set[socket.socket] = field(default_factory=set)  # the session's processes
    commands: dict[int, tuple[int, socket.socket]] = field(default_factory=dict)  # by pidfd

    def serve(self) -> Mapping[str, Any] | None:
        """Returns in the forked process what it is to run, and None when nobody uses us."""
        while True:
            for key, _ in self.selector.select(START_SECONDS):
                asked: Mapping[str, Any] | None = key.data(key.fileobj)
                if asked is not None:
                    return asked
            if not self.users:
                return None

    def accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self.users.add(connection)
        self.selector.register(connection, selectors.EVENT_READ, self.answer)

    def answer(self, connection: socket.socket) -> Mapping[str, Any] | None:
        """A wish for Prefect's URL or a command, or the end of a connection."""
        message, streams, *_ = socket.recv_fds(connection, MESSAGE_BYTES, 3)
        if not message:
            self.selector.unregister(connection)
            self.users.discard(connection)
            connection.close()
            return None
        asked = json.loads(message)
        if "arguments" not in asked:
            connection.send(self._prefect().encode())
            return None
        pid = os.fork()
        if pid == 0:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            self._forget()
            return dict(asked)
        for stream in streams:
            os.close(stream)
        descriptor = os.pidfd_open(pid)
        self.commands[descriptor] = (pid, connection)
        self.selector.register(descriptor, selectors.EVENT_READ, self.reap)
        connection.send(str(pid).encode())
        return None

    def reap(self, descriptor: int) -> None:
        self.selector.unregister(descriptor)
        os.close(descriptor)
        pid, connection = self.commands.pop(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(OSError):
            connection.send(str(code).encode())

    def end(self) -> None:
        for pid, _ in self.commands.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.prefect.terminate()
        self.prefect.wait()

    def _prefect(self) -> str:
        """The URL of its API, which answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.prefect_url}/health").is_success:
                    return self.prefect_url
            assert self.prefect.poll() is None, "Prefect's server has ended"
            assert time.monotonic() < deadline, "Prefect's server does not answer"
            time.sleep(0.1)

    def _forget(self) -> None:
        """Closes in a fork what is the server's."""
        for user in self.users:
            user.close()
        for descriptor in self.commands:
            os.close(descriptor)
        self.selector.close()


def _prefect(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = folder / "prefect"
    home.mkdir()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "prefect", "server", "start", "--no-ui"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        cwd=folder,
        env={**os.environ, "PREFECT_HOME": str(home)},
        stdin=subprocess.DEVNULL,
    )
    return server, f"http://127.0.0.1:{port}/api"


def _own_modules() -> list[str]:
    """The commands and the flows; not the processes, which are started."""
    found = [module.name for module in pkgutil.walk_packages(flows.__path__, "flows.")]
    return [name for name in found if not name.startswith("flows.processes.")]


def _run(asked: Mapping[str, Any]) -> None:
    """The command, as `python -m flows.command.cli` would run it."""
    from prefect.context import refresh_global_settings_context

    from flows.command import cli

    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    environment.prepare(verbose=True)  # no more than what Prefect reads when it is imported
    refresh_global_settings_context()
    sys.argv[1:] = asked["arguments"]
    sys.modules["__main__"] = cli  # which a spawned solver imports again
    cli.main()


def main() -> None:
    """Serves until nobody is connected any more."""
    folder = Path(sys.argv[1])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(folder / SOCKET))
        listener.listen(64)
        environment.prepare(verbose=False)
        prefect, url = _prefect(folder)
        environment.load_keras()
        for name in [*LIBRARIES, *_own_modules()]:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # so that collections in the forks leave these pages alone
        server = _Server(selectors.DefaultSelector(), prefect, url)
        server.selector.register(listener, selectors.EVENT_READ, server.accept)
        asked = server.serve()
        if asked is None:
            shutil.rmtree(folder, ignore_errors=True)  # no newcomer connects to who is ending
            server.end()
    if asked is not None:
        _run(asked)


if __name__ == "__main__":
    main()
