"""A small process that cleans up after a `certiflow` that was killed.

A process that is ended by SIGKILL cannot end its children or mark its runs. Its guardian, in a
session of its own, notices that the pipe between them closed without a goodbye; it ends every
process of the same invocation, marks the MLflow and the Prefect run, and ends the temporary Prefect
server last, since marking needs it.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import uuid
from contextlib import suppress

import psutil

INVOCATION = "CERTIFLOW_INVOCATION"
ROLE = "CERTIFLOW_ROLE"  # 'server' for the temporary Prefect server
GOODBYE = b"done\n"
END_SECONDS = 5.0


def start() -> None:
    """Starts this process's guardian; the goodbye is said when the interpreter exits."""
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


def _say_goodbye(guardian: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        guardian.communicate(GOODBYE)


def main() -> None:
    """Waits for the goodbye, or for the end of the process that should have said it."""
    if sys.stdin.buffer.read() == GOODBYE:
        return
    _end([process for process in _invocation() if _role(process) != "server"])
    try:
        _mark_runs()
    finally:
        _end(_invocation())


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


def _mark_runs() -> None:
    from prefect import get_client
    from prefect.states import Crashed

    from tasks import tracking

    for flow_run_id in tracking.mark_killed(tracking.INVOCATION_TAG, os.environ[INVOCATION]):
        with get_client(sync_client=True) as client:
            state = Crashed(message="The process was killed.")  # type: ignore[var-annotated]
            client.set_flow_run_state(flow_run_id, state, force=True)


if __name__ == "__main__":
    main()
