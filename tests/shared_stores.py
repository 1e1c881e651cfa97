"""The servers of compose.yaml for real, without Docker: the same commands, on a PostgreSQL of ours.

`python -m tests.shared_stores` runs them until Ctrl-C and prints what to export.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Self

import httpx
import yaml

COMPOSE = Path(__file__).parents[1] / "compose.yaml"
START_SECONDS = 120.0
STOP_SECONDS = 20.0


class Server:
    """A process that lives in its `with` block, and that no end of this one leaves behind."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        answers: Callable[[], bool],
        environment: Mapping[str, str],
        end: signal.Signals = signal.SIGTERM,
        **options: Any,
    ) -> None:
        self._command = ["setpriv", "--pdeathsig", end.name.removeprefix("SIG"), *command]
        self._log = log
        self._answers = answers
        self._options = {"env": environment, "cwd": log.parent, **options}
        self._end = end

    def __enter__(self) -> Self:
        self._launch()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server again after `stop`; raises as `wait`."""
        self._launch()
        self.wait()

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must not end it before those that use it
                **self._options,
            )

    def wait(self) -> None:
        """Returns when the server answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; the message holds its last lines.
        """
        deadline = monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or monotonic() > deadline:
                self.stop()
                last = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"{' '.join(self._command)} does not answer:\n{last}")
            sleep(0.1)

    def stop(self) -> None:
        """Ends the server and its children; does nothing when it has ended."""
        self.process.send_signal(self._end)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass(frozen=True)
class SharedStores:
    """Running servers, and the environment variables that select them."""

    environment: Mapping[str, str]
    mlflow: Server
    prefect: Server


def missing() -> str | None:
    """Why the servers cannot be started on this machine; None when they can."""
    if _postgres_programs() is None:
        return "needs PostgreSQL's server: initdb on PATH or in /usr/lib/postgresql/*/bin"
    if shutil.which("setpriv") is None:
        return (
            "needs setpriv (util-linux), by which the servers end with the process that uses them"
        )
    return None


@contextmanager
def running() -> Iterator[SharedStores]:
    """PostgreSQL, MLflow and Prefect for the time of the block, their files in a temporary folder.

    Raises:
        RuntimeError: one of them does not start.
    """
    with tempfile.TemporaryDirectory(prefix="certiflow-stores-") as name, _postgres(Path(name)):
        mlflow, mlflow_url = _server("mlflow", 5000, "/health", Path(name))
        prefect, prefect_url = _server("prefect", 4200, "/api/health", Path(name))
        with mlflow, prefect:  # both load their libraries meanwhile
            mlflow.wait()
            prefect.wait()
            urls = {"MLFLOW_TRACKING_URI": mlflow_url, "PREFECT_API_URL": f"{prefect_url}/api"}
            yield SharedStores(urls, mlflow, prefect)


def _server(service: str, port: int, health: str, folder: Path) -> tuple[Server, str]:
    """A service of compose.yaml on a free loopback port over the PostgreSQL in `folder`."""
    described = yaml.safe_load(COMPOSE.read_text())["services"][service]
    free = str(_free_port())

    def here(text: str) -> str:
        artifacts = text.replace("=/artifacts", f"={folder}/artifacts")
        return artifacts.replace("0.0.0.0", "127.0.0.1").replace(str(port), free)

    program, *arguments = map(here, described["command"])
    url = f"http://127.0.0.1:{free}"
    server = Server(
        [str(Path(sys.executable).with_name(program)), *arguments],
        folder / f"{service}.log",
        lambda: _healthy(url + health),
        _environment(
            {name: here(value) for name, value in described["environment"].items()}
            | _database(folder)
            | {"PREFECT_HOME": str(folder / "prefect")}
        ),
    )
    return server, url


@contextmanager
def _postgres(folder: Path) -> Iterator[None]:
    """A PostgreSQL with both databases, reachable only by who may enter `folder`."""
    programs = _postgres_programs()
    assert programs is not None, missing()
    owner = _owner(folder)
    environment = _environment(_database(folder))
    data = folder / "postgres"

    def answers() -> bool:
        return not subprocess.run(
            [programs / "pg_isready", "--quiet", "--dbname", "postgres"],
            env=environment,
            check=False,
        ).returncode

    def call(program: str, *arguments: str | Path) -> None:
        command = [programs / program, *arguments]
        subprocess.run(
            command, env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL, **owner
        )

    # Nothing has to survive a crash of the machine: it is thrown away.
    call("initdb", "--auth=trust", "--no-sync", "--username", environment["PGUSER"], "-D", data)
    command = [
        *(str(programs / "postgres"), "-D", str(data), "-c", "fsync=off"),
        *("-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"),
    ]
    # SIGTERM would wait for the clients to leave.
    with Server(
        command, folder / "postgres.log", answers, environment, signal.SIGINT, **owner
    ) as server:
        server.wait()
        for database in ("mlflow", "prefect"):
            call("createdb", database)
        yield


def _database(folder: Path) -> dict[str, str]:
    return {"PGHOST": str(folder), "PGPORT": "5432", "PGUSER": "certiflow", "PGPASSWORD": ""}


def _environment(changed: Mapping[str, str]) -> dict[str, str]:
    """This process's environment for a server: it must not take itself for a client."""
    clients = {"MLFLOW_TRACKING_URI", "PREFECT_API_URL"}
    kept = {name: value for name, value in os.environ.items() if name not in clients}
    return {**kept, **changed}


def _owner(folder: Path) -> dict[str, Any]:
    """Options of a process that runs as a user that PostgreSQL accepts: it refuses root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _postgres_programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs; Debian keeps them off PATH."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: int(path.parts[-3]), default=None)
    return None if newest is None else newest.parent


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def main() -> None:
    """Runs the servers until SIGINT or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    reason = missing()
    if reason is not None:
        sys.exit(reason)
    with running() as stores:
        for name, value in stores.environment.items():
            print(f"export {name}={value}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
