"""One process of a pool, the job that it has, and how a try of a job ends.

Limits are looked at from outside, by `poll`.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

import psutil

from tasks.core.errors import CertiflowError
from tasks.core.execution import solver_process

JobT = TypeVar("JobT")
AnswerT = TypeVar("AnswerT")

MEMORY_CHECK_SECONDS = 0.2  # reading a process's memory costs as much as a short job
START_SECONDS = 120.0  # a fresh process imports NumPy and the solver before its first job
PREPARE_SECONDS = 120.0  # TensorFlow takes 15 s to import, and much more on a busy machine


class Ending(StrEnum):
    """How a job ended."""

    DONE = "done"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Try(Generic[JobT]):
    """A job handed to a worker, with the seconds and the end of a first try if its process died."""

    job: JobT
    limit_seconds: float
    spent_seconds: float = 0.0
    first_death: str = ""


@dataclass(frozen=True, eq=False)
class End(Generic[AnswerT]):
    """How a try ended, `seconds` counting both tries; `died` when its process did."""

    ending: Ending
    seconds: float
    answer: AnswerT | None = None
    reason: str = ""
    died: bool = False


@dataclass(eq=False)
class Worker(Generic[JobT]):
    """A process, what it works on since `started`, and the second try it was born for.

    `solving` once it is prepared for the job; `stage` is what its solver reported last.
    """

    process: Any
    connection: Connection
    started: float
    reserved: Try[JobT] | None = None
    ready: bool = False
    current: Try[JobT] | None = None
    solving: bool = False
    stage: str = ""
    memory_checked: float = 0.0

    @property
    def is_idle(self) -> bool:
        return self.ready and self.current is None


def poll(worker: Worker[Any], memory_limit_bytes: int) -> End[Any] | None:
    """How the worker's try ended, if it ended by itself or must be ended now."""
    while worker.connection.poll():
        message = _receive(worker)
        if message is None or isinstance(message, End):
            return message
        _follow(worker, message)
    now = time.monotonic()
    current = worker.current
    if current is None:
        if not worker.ready and now - worker.started > START_SECONDS:
            raise CertiflowError(
                f"a solver process did not start within {START_SECONDS:g} s: "
                "is the machine overloaded?"
            )
        return None
    if not worker.solving:
        if now - worker.started > PREPARE_SECONDS:
            reason = f"the model was not loaded within {PREPARE_SECONDS:g} s"
            return End(Ending.FAILED, current.spent_seconds, reason=reason)
        seconds = current.spent_seconds
    else:
        seconds = current.spent_seconds + now - worker.started
    if seconds > current.limit_seconds:
        reason = f"time limit of {current.limit_seconds:g} s"
        return End(Ending.TIMEOUT, seconds, reason=reason)
    if now - worker.memory_checked > MEMORY_CHECK_SECONDS:
        worker.memory_checked = now
        if _memory_bytes(worker.process.pid) > memory_limit_bytes:
            reason = f"memory limit of {memory_limit_bytes / 2**20:.0f} MB"
            return End(Ending.MEMORY, seconds, reason=reason, died=True)
    return None


def _receive(worker: Worker[Any]) -> End[Any] | tuple[str, Any] | None:
    """How the try ended, another message of the process, or None when it died without a job."""
    current = worker.current
    spent = 0.0 if current is None else current.spent_seconds
    try:
        message, value, seconds = worker.connection.recv()
    except (EOFError, ConnectionError):
        worker.process.join(timeout=1)
        if current is None:
            return None  # the caller replaces it
        seconds = spent + (time.monotonic() - worker.started if worker.solving else 0.0)
        return End(Ending.FAILED, seconds, reason=describe_exit(worker.process), died=True)
    if current is not None and message == solver_process.DONE:
        return End(Ending.DONE, spent + seconds, answer=value)
    if current is not None and message == solver_process.FAILED:
        return End(Ending.FAILED, spent + seconds, reason=value)
    return message, value


def _follow(worker: Worker[Any], message: tuple[str, Any]) -> None:
    """Takes note of what the process says on its way."""
    kind, value = message
    if kind == solver_process.STAGE:
        worker.stage = value
    elif kind == solver_process.SOLVING:
        worker.started, worker.solving = time.monotonic(), True
    elif kind == solver_process.FAILED:
        raise CertiflowError(f"a solver process cannot start: {value}")
    else:
        worker.ready = True


def describe_exit(process: Any) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _memory_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
