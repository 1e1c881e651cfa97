"""Jobs in separate processes, each under a wall-clock limit and a memory cap enforced from outside.

A native solver can hang, crash or eat all memory, and holds Python's interpreter lock while it
runs: no limit inside its process can be relied on. Here a job that breaks a limit loses its
process, and only that job. A process can also die through no fault of its job, so a job whose
process died has a second try. Loading a model is not solving: what a solver prepares for a job has
a limit of its own.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import psutil

from tasks.core.errors import CertiflowError
from tasks.core.execution import solver_process

JobT = TypeVar("JobT")
AnswerT = TypeVar("AnswerT")

POLL_SECONDS = 0.05  # at most this late is a limit noticed; answers wake the wait at once
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
class Outcome(Generic[JobT, AnswerT]):
    """A job with its answer (None unless `DONE`), the reason otherwise, and its seconds.

    `stage` is the last one that its solver reported, empty where it reported none.
    """

    job: JobT
    ending: Ending
    answer: AnswerT | None
    reason: str
    seconds: float
    stage: str = ""


@dataclass(frozen=True, eq=False)
class _Try(Generic[JobT]):
    """A job handed to a worker, with the seconds and the end of a first try if its process died."""

    job: JobT
    limit_seconds: float
    spent_seconds: float = 0.0
    first_death: str = ""


@dataclass(frozen=True, eq=False)
class _End(Generic[AnswerT]):
    """How a try ended, `seconds` counting both tries; `died` when its process did."""

    ending: Ending
    seconds: float
    answer: AnswerT | None = None
    reason: str = ""
    died: bool = False


@dataclass(eq=False)
class _Worker(Generic[JobT]):
    """A process, what it works on since `started`, and the second try it was born for.

    `solving` once it is prepared for the job; `stage` is what its solver reported last.
    """

    process: Any
    connection: Connection
    started: float
    reserved: _Try[JobT] | None = None
    ready: bool = False
    current: _Try[JobT] | None = None
    solving: bool = False
    stage: str = ""
    memory_checked: float = 0.0

    @property
    def is_idle(self) -> bool:
        return self.ready and self.current is None


def run_jobs(
    make_solver: Callable[..., Callable[[JobT], AnswerT]],
    arguments: tuple[Any, ...],
    jobs: Sequence[JobT],
    *,
    num_workers: int,
    timeout_seconds: Callable[[JobT], float],
    memory_limit_bytes: int,
) -> Generator[Outcome[JobT, AnswerT], None, None]:
    """`WorkerPool.run` of a pool that ends with the iteration."""
    with closing(
        WorkerPool(
            make_solver, arguments, num_workers=num_workers, memory_limit_bytes=memory_limit_bytes
        )
    ) as pool:
        yield from pool.run(jobs, timeout_seconds)


class WorkerPool(Generic[JobT, AnswerT]):
    """Processes that each call `make_solver(*arguments)` once and then solve jobs, until `close`.

    They start when `run` first needs them, and end by themselves when this process dies or the
    thread that called `run` ends. `make_solver` must be importable by name.
    """

    def __init__(
        self,
        make_solver: Callable[..., Callable[[JobT], AnswerT]],
        arguments: tuple[Any, ...],
        *,
        num_workers: int,
        memory_limit_bytes: int,
    ) -> None:
        self.make_solver, self.arguments = make_solver, arguments
        self.num_workers, self.memory_limit_bytes = num_workers, memory_limit_bytes
        self.workers: list[_Worker[JobT]] = []

    def run(
        self, jobs: Sequence[JobT], timeout_seconds: Callable[[JobT], float]
    ) -> Iterator[Outcome[JobT, AnswerT]]:
        """One outcome per job, as they come.

        Jobs are handed out in the order given, each as soon as a process is free, and then
        `timeout_seconds(job)` is asked once. An exception in the solver is a `FAILED` outcome. A
        job whose process died or broke the memory limit is tried once more, in a fresh process;
        both tries together stay within its time limit, and the outcome of a second death says
        "twice". What the solver's `prepare(job)` takes, if it has such a method, does not count.
        Limits are enforced while the caller waits for the next outcome: it should not dwell on one.
        Ending the iteration ends every process that is not idle.

        Raises:
            CertiflowError: a process cannot start, or died before its first job.
        """
        waiting = deque(jobs)
        unfinished = len(waiting)
        try:
            while unfinished:
                self._replace_dead(unfinished)
                for worker in self.workers:
                    _hand_out(worker, waiting, timeout_seconds)
                wait([worker.connection for worker in self.workers], timeout=POLL_SECONDS)
                for worker in list(self.workers):
                    end: _End[AnswerT] | None = _poll(worker, self.memory_limit_bytes)
                    ended, stage = worker.current, worker.stage
                    if end is not None:
                        worker.current = None
                        if end.ending is not Ending.DONE:
                            self._stop(worker)
                    if worker in self.workers:
                        _hand_out(worker, waiting, timeout_seconds)
                    if end is None or ended is None:
                        continue
                    if end.died and not ended.first_death:
                        again = replace(ended, spent_seconds=end.seconds, first_death=end.reason)
                        self._start(again)
                        continue
                    unfinished -= 1
                    reason = _reason(ended, end)
                    yield Outcome(ended.job, end.ending, end.answer, reason, end.seconds, stage)
        finally:
            for worker in [w for w in self.workers if not w.is_idle]:
                self._stop(worker)

    def close(self) -> None:
        """Ends every process."""
        for worker in list(self.workers):
            self._stop(worker)

    def _replace_dead(self, unfinished: int) -> None:
        """Processes that died without a job are replaced, as far as jobs are left."""
        for worker in [w for w in self.workers if not w.current and not w.process.is_alive()]:
            if not worker.ready:
                raise CertiflowError(
                    "a solver process ended before its first job "
                    f"({_describe_exit(worker.process)}): check that maraboupy is installed"
                )
            self._stop(worker)
        while len(self.workers) < min(self.num_workers, unfinished):
            self._start()

    def _start(self, reserved: _Try[JobT] | None = None) -> None:
        process, connection = solver_process.start(self.make_solver, self.arguments)
        self.workers.append(_Worker(process, connection, time.monotonic(), reserved))

    def _stop(self, worker: _Worker[JobT]) -> None:
        self.workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _hand_out(
    worker: _Worker[JobT], waiting: deque[JobT], timeout_seconds: Callable[[JobT], float]
) -> None:
    """Gives an idle worker the try it was born for, else the first waiting job, if any."""
    if not worker.is_idle:
        return
    if worker.reserved is not None:
        worker.current, worker.reserved = worker.reserved, None
    elif waiting:
        job = waiting.popleft()
        worker.current = _Try(job, timeout_seconds(job))
    else:
        return
    worker.started, worker.solving, worker.stage = time.monotonic(), False, ""
    with suppress(ConnectionError):  # dead already: the next poll sees it
        worker.connection.send(worker.current.job)


def _poll(worker: _Worker[Any], memory_limit_bytes: int) -> _End[Any] | None:
    """How the worker's try ended, if it ended by itself or must be ended now."""
    while worker.connection.poll():
        message = _receive(worker)
        if message is None or isinstance(message, _End):
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
            return _End(Ending.FAILED, current.spent_seconds, reason=reason)
        seconds = current.spent_seconds
    else:
        seconds = current.spent_seconds + now - worker.started
    if seconds > current.limit_seconds:
        reason = f"time limit of {current.limit_seconds:g} s"
        return _End(Ending.TIMEOUT, seconds, reason=reason)
    if now - worker.memory_checked > MEMORY_CHECK_SECONDS:
        worker.memory_checked = now
        if _memory_bytes(worker.process.pid) > memory_limit_bytes:
            reason = f"memory limit of {memory_limit_bytes / 2**20:.0f} MB"
            return _End(Ending.MEMORY, seconds, reason=reason, died=True)
    return None


def _receive(worker: _Worker[Any]) -> _End[Any] | tuple[str, Any] | None:
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
        return _End(Ending.FAILED, seconds, reason=_describe_exit(worker.process), died=True)
    if current is not None and message == solver_process.DONE:
        return _End(Ending.DONE, spent + seconds, answer=value)
    if current is not None and message == solver_process.FAILED:
        return _End(Ending.FAILED, spent + seconds, reason=value)
    return message, value


def _follow(worker: _Worker[Any], message: tuple[str, Any]) -> None:
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


def _reason(ended: _Try[Any], end: _End[Any]) -> str:
    if end.died:
        return f"the solver's process died twice ({ended.first_death}, then {end.reason})"
    if end.reason and ended.first_death:
        return f"{end.reason}, after a first process died ({ended.first_death})"
    return end.reason


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
