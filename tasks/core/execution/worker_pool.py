"""Jobs in separate processes, each under a wall-clock limit and a memory cap enforced from outside.

A native solver can hang, crash or eat all memory, and holds Python's interpreter lock while it
runs: no limit inside its process can be relied on. Here a job that breaks a limit loses its
process, and only that job. A process can also die through no fault of its job, so a job whose
process died has a second try. Loading a model is not solving: what a solver prepares for a job has
a limit of its own.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import Any, Generic

from tasks.core.errors import CertiflowError
from tasks.core.execution import solver_process
from tasks.core.execution.worker import (
    AnswerT,
    End,
    Ending,
    JobT,
    Try,
    Worker,
    describe_exit,
    poll,
)

EARLY_DEATHS = 5  # in a row, of processes that had no job yet: one can happen to any
POLL_SECONDS = 0.05  # at most this late is a limit noticed; answers wake the wait at once


@dataclass(frozen=True, eq=False)
class Outcome(Generic[JobT, AnswerT]):
    """A job with its answer (None unless `DONE`), the reason otherwise, and its seconds.

    `stage` is the last one that its solver reported, empty where it reported none; `retried` when a
    first process died, which left it less than its time.
    """

    job: JobT
    ending: Ending
    answer: AnswerT | None
    reason: str
    seconds: float
    stage: str = ""
    retried: bool = False


def run_jobs(
    make_solver: Callable[..., Callable[[JobT], AnswerT]],
    arguments: tuple[Any, ...],
    jobs: Sequence[JobT],
    *,
    num_workers: int,
    timeout_seconds: Callable[[JobT], float],
    memory_limit_bytes: int,
) -> Generator[Outcome[JobT, AnswerT], None, None]:
    """`WorkerPool.run` of a pool that ends with the iteration, its processes on all cores."""
    share = len(os.sched_getaffinity(0)) // max(1, min(num_workers, len(jobs)))
    pool: WorkerPool[JobT, AnswerT] = WorkerPool(
        make_solver,
        arguments,
        num_workers=num_workers,
        memory_limit_bytes=memory_limit_bytes,
        num_threads=max(1, share),
    )
    with closing(pool):
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
        num_threads: int = 1,
    ) -> None:
        """`num_threads` are each process's."""
        self.make_solver, self.arguments = make_solver, arguments
        self.num_threads = num_threads
        self.num_workers, self.memory_limit_bytes = num_workers, memory_limit_bytes
        self.workers: list[Worker[JobT]] = []
        self.early_deaths = 0

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
            CertiflowError: a process cannot start, or several in a row died before a job.
        """
        waiting = deque(jobs)
        unfinished = len(waiting)
        self.early_deaths = 0
        try:
            while unfinished:
                self._replace_dead(unfinished)
                for worker in self.workers:
                    _hand_out(worker, waiting, timeout_seconds)
                wait([worker.connection for worker in self.workers], timeout=POLL_SECONDS)
                for worker in list(self.workers):
                    end: End[AnswerT] | None = poll(worker, self.memory_limit_bytes)
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
                    yield Outcome(
                        ended.job,
                        end.ending,
                        end.answer,
                        reason,
                        end.seconds,
                        stage,
                        retried=bool(ended.first_death),
                    )
        finally:
            for worker in [w for w in self.workers if not w.is_idle]:
                self._stop(worker)

    def close(self) -> None:
        """Ends every process."""
        for worker in list(self.workers):
            self._stop(worker)

    def _replace_dead(self, unfinished: int) -> None:
        """Processes that died without a job are replaced, as far as jobs are left."""
        if any(worker.ready for worker in self.workers):
            self.early_deaths = 0
        for worker in [w for w in self.workers if not w.current and not w.process.is_alive()]:
            self._stop(worker)
            if not worker.ready:
                self.early_deaths += 1
                if self.early_deaths >= EARLY_DEATHS:
                    raise CertiflowError(
                        f"{EARLY_DEATHS} solver processes in a row ended before their first job "
                        f"(the last by {describe_exit(worker.process)}): is there memory for them?"
                    )
            if worker.reserved is not None:
                self._start(worker.reserved)
        while len(self.workers) < min(self.num_workers, unfinished):
            self._start()

    def _start(self, reserved: Try[JobT] | None = None) -> None:
        process, connection = solver_process.start(
            self.make_solver, self.arguments, self.num_threads
        )
        self.workers.append(Worker(process, connection, time.monotonic(), reserved))

    def _stop(self, worker: Worker[JobT]) -> None:
        self.workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _hand_out(
    worker: Worker[JobT], waiting: deque[JobT], timeout_seconds: Callable[[JobT], float]
) -> None:
    """Gives an idle worker the try it was born for, else the first waiting job, if any."""
    if not worker.is_idle:
        return
    if worker.reserved is not None:
        worker.current, worker.reserved = worker.reserved, None
    elif waiting:
        job = waiting.popleft()
        worker.current = Try(job, timeout_seconds(job))
    else:
        return
    worker.started, worker.solving, worker.stage = time.monotonic(), False, ""
    with suppress(ConnectionError):  # dead already: the next poll sees it
        worker.connection.send(worker.current.job)


def _reason(ended: Try[Any], end: End[Any]) -> str:
    if end.died:
        return f"the solver's process died twice ({ended.first_death}, then {end.reason})"
    if end.reason and ended.first_death:
        return f"{end.reason}, after a first process died ({ended.first_death})"
    return end.reason
