"""What the interval certificate leaves open goes down the ladder, in processes beside the service.

A thread for each process hands it one job after another: a job that hangs or eats memory loses its
process, as anywhere (`execution.worker_pool`), and its answer is then `unknown`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import TypeVar

import numpy as np

from tasks.core.arrays import Float32Array
from tasks.core.bounds.float32_error import row_error
from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.execution.asking import GRACE_SECONDS
from tasks.core.execution.worker_pool import WorkerPool
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.perturbation import Perturbation
from tasks.core.properties.specification import Property
from tasks.core.search import ladder
from tasks.core.search.answer import Answer
from tasks.core.verdicts import DecidedBy, Verdict
from tasks.core.verification.balls import Ball, answered

MEMORY_LIMIT_BYTES = 2**31  # of a process

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, eq=False)
class Question:
    """Whether the label holds all over the ball, within so many seconds."""

    center: Float32Array
    label: int
    epsilon: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Escalated:
    """What the ladder says: `ROBUST` only where it holds for every float32 evaluation.

    `counterexample`, of the center's shape: a valid input of the ball with another label.
    """

    verdict: Verdict
    decided_by: DecidedBy
    seconds: float
    margin: float | None = None
    counterexample: Float32Array | None = None


@dataclass(frozen=True, eq=False)
class _Waiting:
    question: Question
    deadline: float
    future: Future[Escalated]


class QueueFullError(Exception):
    """There are too many questions already."""


@dataclass(frozen=True, eq=False)
class Decider:
    """What a process holds, sent once."""

    network: ReluNetwork
    perturbation: Perturbation

    def __post_init__(self) -> None:
        ladder.warm_up()

    def __call__(self, question: Question) -> Answer:
        """`robust` when every margin exceeds what float32 can take of it.

        A search ends at the first bound above zero, so what rounding may take is subtracted before.
        """
        robustness = _ball(question).robustness(self.perturbation, self.network.num_outputs)
        return ladder.decide(
            self.network,
            self._less_rounding(robustness),
            timeout_seconds=question.seconds,
            with_marabou=False,
        )

    def _less_rounding(self, prop: Property) -> Property:
        box = prop.unsafe[0].box
        hidden = preactivation_bounds(self.network, box, "interval")
        rows = np.concatenate([region.rows for region in prop.unsafe])
        errors = row_error(self.network, rows, hidden, box)[0]
        unsafe = [
            replace(region, offsets=region.offsets - error)
            for region, error in zip(prop.unsafe, errors, strict=True)
        ]
        return replace(prop, unsafe=tuple(unsafe))


class Escalation:
    """Processes that live until `close`, and a bounded queue before them."""

    def __init__(
        self, network: ReluNetwork, perturbation: Perturbation, num_workers: int, queue_size: int
    ) -> None:
        self._network, self._perturbation = network, perturbation
        self._runtime = NumpyRuntime(network)
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(queue_size)
        self._started: list[Future[Escalated]] = [Future() for _ in range(num_workers)]
        self._threads = [
            threading.Thread(target=self._serve, args=(started,), name="escalation", daemon=True)
            for started in self._started
        ]
        for thread in self._threads:
            thread.start()

    def wait_until_started(self) -> None:
        """Raises `CertiflowError` where a process cannot start."""
        for started in self._started:
            started.result()

    @property
    def num_waiting(self) -> int:
        return self._waiting.qsize()

    def submit(self, question: Question) -> Future[Escalated]:
        """Its seconds begin now. Raises `QueueFullError` at once where the queue is full."""
        future: Future[Escalated] = Future()
        try:
            self._waiting.put_nowait(_Waiting(question, monotonic() + question.seconds, future))
        except queue.Full:
            raise QueueFullError from None
        return future

    def close(self) -> None:
        """Answers what waits, then ends the processes."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, started: Future[Escalated]) -> None:
        pool: WorkerPool[Question, Answer] = WorkerPool(
            Decider,
            (self._network, self._perturbation),
            num_workers=1,
            memory_limit_bytes=MEMORY_LIMIT_BYTES,
        )
        domain = self._perturbation.domain
        anything = np.broadcast_to(domain.lower, domain.num_inputs).astype(np.float32)
        first = Question(anything.reshape(domain.shape), 0, 0.0, GRACE_SECONDS)
        with closing(pool):
            _fulfil(started, partial(self._answer, pool, first))
            while (entry := self._waiting.get()) is not None:
                if not entry.future.set_running_or_notify_cancel():
                    continue  # whoever asked has given up
                left = replace(entry.question, seconds=max(entry.deadline - monotonic(), 0.0))
                _fulfil(entry.future, partial(self._answer, pool, left))

    def _answer(self, pool: WorkerPool[Question, Answer], question: Question) -> Escalated:
        (outcome,) = pool.run([question], lambda job: job.seconds + GRACE_SECONDS)
        if outcome.answer is None:
            stage = DecidedBy.in_stage(outcome.stage) or DecidedBy.INTERVAL
            return Escalated(Verdict.UNKNOWN, stage, outcome.seconds)
        found = answered(
            self._runtime,
            self._perturbation,
            self._network.num_outputs,
            _ball(question),
            outcome.answer,
            outcome.seconds,
        )
        point = found.counterexample
        shaped = None if point is None else point.astype(np.float32).reshape(question.center.shape)
        return Escalated(found.verdict, found.decided_by, found.seconds, found.margin, shaped)


def _fulfil(future: Future[ValueT], call: Callable[[], ValueT]) -> None:
    """Whatever goes wrong is told to who waits: the thread that serves all others goes on."""
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)


def _ball(question: Question) -> Ball:
    return Ball(0, 0, question.center, question.label, question.epsilon)
