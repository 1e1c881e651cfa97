"""A small process that cleans up after a `certiflow` that was killed.

A process that is ended by SIGKILL cannot end its children or mark its runs. Its guardian, in a
session of its own, notices that the pipe between them closed without a goodbye; it ends every
process of the same invocation, marks the MLflow and the Prefect run, and ends the temporary Prefect
server last, since marking needs it. Where a store does not answer, the runs stay unmarked: nothing
lives longer than `LIFE_SECONDS` after the one that was killed.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress

import psutil

INVOCATION = "CERTIFLOW_INVOCATION"
ROLE = "CERTIFLOW_ROLE"  # 'server' for the temporary Prefect server
GOODBYE = b"done\n"
END_SECONDS = 3.0
LIFE_SECONDS = 15.0


def start() -> Callable[[str], None]:
    """Starts this process's guardian; the goodbye is said when the interpreter exits.

    Returns a function that tells it the URL of the Prefect API that will know the runs.
    """
    os.environ[INVOCATION] = uuid.uuid4().hex
    guardian = subprocess.Popen(
        [sys.executable, "-m", "flows.processes.guardian"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, ROLE: "guardian"},
        start_new_session=True,  # out of reach of Ctrl-C and of signals to the process group
    )
    atexit.register(_say_goodbye, guardian)

    def tell_api(url: str) -> None:
        assert guardian.stdin is not None
        with suppress(OSError):
            guardian.stdin.write(f"{url}\n".encode())
            guardian.stdin.flush()

    return tell_api


def _say_goodbye(guardian: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        guardian.communicate(GOODBYE)


def main() -> None:
    """Waits for the goodbye, or for the end of the process that should have said it."""
    said = sys.stdin.buffer.read()
    if said.endswith(GOODBYE):
        return
    limit = threading.Timer(LIFE_SECONDS, _give_up)
    limit.daemon = True
    limit.start()
    _end([process for process in _invocation() if _role(process) != "server"])
    try:
        _mark_runs(said.decode().strip())
    finally:
        _end(_invocation())


def _give_up() -> None:
    """Ends all that is left, this process too, whatever it waits for."""
    for process in _invocation():
        with suppress(psutil.Error):
            process.kill()
    os._exit(1)


def _invocation() -> list[psutil.Process]:
    """The other processes of this invocation: they inherited its mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and _mark(process, INVOCATION) == os.environ[INVOCATION]:
                found.append(process)
    return found


def _mark(process: psutil.Process, name: str) -> str | None:
    return process.environ().get(name)


def _role(process: psutil.Process) -> str | None:
    with suppress(psutil.Error):
        return _mark(process, ROLE)
    return None


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=END_SECONDS)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()


def _mark_runs(api_url: str) -> None:
    """At the API that was told; without one no flow has begun."""
    from tasks import tracking

    killed = tracking.mark_killed(tracking.INVOCATION_TAG, os.environ[INVOCATION])
    if not killed or not api_url:
        return
    from prefect import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Crashed

    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        for flow_run_id in killed:
            state = Crashed(message="The process was killed.")  # type: ignore[var-annotated]
            client.set_flow_run_state(flow_run_id, state, force=True)


if __name__ == "__main__":
    main()
