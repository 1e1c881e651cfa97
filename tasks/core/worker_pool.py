"""Jobs in separate processes, each under a wall-clock limit and a memory cap enforced from outside.

A native solver can hang, crash or eat all memory, and holds Python's interpreter lock while it
runs: no limit inside its process can be relied on. Here a job that breaks a limit loses its
process, and only that job.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import psutil

from tasks.core.errors import CertiflowError

Job = TypeVar("Job")
Answer = TypeVar("Answer")

POLL_SECONDS = 0.05
START_SECONDS = 120.0  # a fresh process imports NumPy and the solver before its first job


class Ending(StrEnum):
    """How a job ended."""

    DONE = "done"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Outcome(Generic[Job, Answer]):
    """A job with its answer (None unless `DONE`), the reason otherwise, and its seconds."""

    job: Job
    ending: Ending
    answer: Answer | None
    reason: str
    seconds: float


@dataclass(eq=False)
class _Worker(Generic[Job]):
    process: Any
    connection: Connection
    started: float
    ready: bool = False
    job: Job | None = None


def run_jobs(
    make_solver: Callable[..., Callable[[Job], Answer]],
    arguments: tuple[Any, ...],
    jobs: Sequence[Job],
    *,
    num_workers: int,
    timeout_seconds: float,
    memory_limit_bytes: int,
) -> Iterator[Outcome[Job, Answer]]:
    """Outcomes as they come. Each process calls `make_solver(*arguments)` once, then the solver.

    `make_solver` must be importable by name. Ending the iteration ends every process, and they end
    by themselves when this process dies.
    """
    waiting = deque(jobs)
    workers: list[_Worker[Job]] = []
    unfinished = len(waiting)
    try:
        while unfinished:
            for worker in [w for w in workers if w.job is None and not w.process.is_alive()]:
                if not worker.ready:
                    raise CertiflowError(
                        "a solver process ended before its first job "
                        f"({_describe_exit(worker.process)}): check that maraboupy is installed"
                    )
                workers.remove(worker)
                _stop(worker)
            while len(workers) < min(num_workers, unfinished):
                workers.append(_start(make_solver, arguments))
            wait([worker.connection for worker in workers], timeout=POLL_SECONDS)
            for worker in list(workers):
                outcome: Outcome[Job, Answer] | None = _poll(
                    worker, timeout_seconds, memory_limit_bytes
                )
                if outcome is not None:
                    unfinished -= 1
                    worker.job = None
                    if outcome.ending is not Ending.DONE:
                        workers.remove(worker)
                        _stop(worker)
                    yield outcome
                if worker in workers and worker.ready and worker.job is None and waiting:
                    worker.job, worker.started = waiting.popleft(), time.monotonic()
                    with suppress(ConnectionError):  # dead already: the next poll sees it
                        worker.connection.send(worker.job)
    finally:
        for worker in workers:
            _stop(worker)


def _start(
    make_solver: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]
) -> _Worker[Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(theirs, os.getpid(), make_solver, arguments), daemon=True
    )
    process.start()
    theirs.close()
    return _Worker(process, ours, time.monotonic())


def _poll(
    worker: _Worker[Any], timeout_seconds: float, memory_limit_bytes: int
) -> Outcome[Any, Any] | None:
    """The worker's outcome if its job has ended by itself or must be ended now."""
    seconds = time.monotonic() - worker.started
    if worker.connection.poll():
        ending, answer = _receive(worker)
        if ending is None:
            return None
        reason = "" if ending is Ending.DONE else str(answer)
        return Outcome(
            worker.job, ending, answer if ending is Ending.DONE else None, reason, seconds
        )
    if worker.job is None:
        if not worker.ready and seconds > START_SECONDS:
            raise CertiflowError(
                f"a solver process did not start within {START_SECONDS:g} s: "
                "is the machine overloaded?"
            )
        return None
    if seconds > timeout_seconds:
        reason = f"time limit of {timeout_seconds:g} s"
        return Outcome(worker.job, Ending.TIMEOUT, None, reason, seconds)
    if _memory_bytes(worker.process.pid) > memory_limit_bytes:
        reason = f"memory limit of {memory_limit_bytes / 2**20:.0f} MB"
        return Outcome(worker.job, Ending.MEMORY, None, reason, seconds)
    return None


def _receive(worker: _Worker[Any]) -> tuple[Ending | None, Any]:
    """The job's ending with its answer or reason; no ending when the worker has no job."""
    try:
        status, answer = worker.connection.recv()
    except (EOFError, ConnectionError):
        worker.process.join(timeout=1)
        if worker.job is None:
            return None, None  # the caller replaces it
        return Ending.FAILED, f"the solver's process died ({_describe_exit(worker.process)})"
    worker.ready = True
    return (None, None) if status == "ready" else (Ending(status), answer)


def _describe_exit(process: Any) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _memory_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _stop(worker: _Worker[Any]) -> None:
    worker.process.kill()
    worker.process.join()
    worker.connection.close()


def _serve(
    connection: Connection,
    parent: int,
    make_solver: Callable[..., Callable[[Any], Any]],
    arguments: tuple[Any, ...],
) -> None:
    """A worker's life: quiet, one thread, deaf to Ctrl-C, dead with its parent."""
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(tempfile.gettempdir())  # Marabou writes a query that it fails on where it stands
    _die_with(parent)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    with threadpool_limits(1):
        solver = make_solver(*arguments)
        connection.send(("ready", None))
        while True:
            try:
                job = connection.recv()
            except EOFError:
                return
            try:
                answer = (Ending.DONE, solver(job))
            except (ArithmeticError, MemoryError, RuntimeError, ValueError) as error:
                answer = (Ending.FAILED, f"{type(error).__name__}: {error}")
            connection.send(answer)


def _die_with(parent: int) -> None:
    """Asks Linux to kill this process when its parent dies, even in the middle of a solve."""
    import ctypes
    import sys

    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)
