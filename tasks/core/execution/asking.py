"""The one loop of every question: what is known already, what is solved and where, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from tasks.core.execution.cluster import run_on_cluster
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker_pool import AnswerT, Ending, JobT, Outcome, run_jobs

GRACE_SECONDS = 2.0  # for a solver's last step beyond its limit, before its process is ended
WORTH_KEEPING = (Ending.DONE, Ending.TIMEOUT)  # the same would come of it again

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Resources:
    """Where jobs are solved.

    In `num_workers` processes of this machine or, when `cluster` is the address of a Dask
    scheduler, in one for every thread of its workers; each process within so many bytes.
    """

    num_workers: int
    memory_limit_bytes: int
    cluster: str | None = None


@dataclass(frozen=True, eq=False)
class Again(Generic[JobT]):
    """What is stored does not do: `job` is to be solved, which may carry what was stored."""

    job: JobT


class Question(Protocol[JobT, AnswerT, ResultT]):
    """What is asked of every job. Results come from `judged` or `recalled`, in this process."""

    def key(self, job: JobT, /) -> VerdictKey:
        """All that its result depends on."""

    def solver(self) -> tuple[Callable[..., Callable[[JobT], AnswerT]], tuple[Any, ...]]:
        """What makes a solver in another process, importable by name, and its arguments."""

    def seconds(self, job: JobT, /) -> float:
        """The wall-clock limit that the solver keeps by itself."""

    def judged(self, outcome: Outcome[JobT, AnswerT], /) -> ResultT:
        """The result; raises `ContradictionError` where the answer cannot be true."""

    def stored(self, result: ResultT, /) -> StoredVerdict | None:
        """The result for the store; None if it is not worth keeping."""

    def recalled(self, job: JobT, known: StoredVerdict, /) -> ResultT | Again[JobT]:
        """The result that is stored, replayed as far as it must be, or the job to be solved."""


def answers(
    question: Question[JobT, AnswerT, ResultT],
    jobs: Iterable[JobT],
    resources: Resources,
    *,
    store: VerdictStore | None = None,
    fresh: bool = False,
) -> Generator[tuple[JobT, ResultT], None, None]:
    """Every job with its result: first those that `store` knows, then the others as they come.

    Jobs are handed out in the order given. A result is stored before it is yielded, unless its
    process crashed or broke the memory limit. `fresh` recalls nothing. The caller should not dwell
    on a result, and should close the iteration, so that an error elsewhere ends the work as well.

    Raises:
        CertiflowError: the store cannot be used; as `run_jobs` and `run_on_cluster` do.
        ContradictionError: from `question.judged`; that result is not stored.
    """
    keys: dict[JobT, VerdictKey] = {}
    waiting: list[JobT] = []
    for job in jobs:
        found: ResultT | Again[JobT] = Again(job)
        if store is not None:
            key = question.key(job)
            known = None if fresh else store.get(key)
            if known is not None:
                found = question.recalled(job, known)
            if isinstance(found, Again):
                keys[found.job] = key
        if isinstance(found, Again):
            waiting.append(found.job)
        else:
            yield job, found
    with closing(outcomes(question, waiting, resources)) as ended:
        for outcome in ended:
            result = question.judged(outcome)
            if store is not None and outcome.ending in WORTH_KEEPING:
                row = question.stored(result)
                if row is not None:
                    store.put(keys[outcome.job], row)
            yield outcome.job, result


def outcomes(
    question: Question[JobT, AnswerT, ResultT], jobs: Sequence[JobT], resources: Resources
) -> Generator[Outcome[JobT, AnswerT], None, None]:
    """What comes of the jobs, from this machine's processes or those of the cluster."""
    make_solver, arguments = question.solver()

    def timeout_seconds(job: JobT) -> float:
        return question.seconds(job) + GRACE_SECONDS

    if resources.cluster is not None:
        return run_on_cluster(
            resources.cluster,
            make_solver,
            arguments,
            jobs,
            timeout_seconds=timeout_seconds,
            memory_limit_bytes=resources.memory_limit_bytes,
        )
    return run_jobs(
        make_solver,
        arguments,
        jobs,
        num_workers=resources.num_workers,
        timeout_seconds=timeout_seconds,
        memory_limit_bytes=resources.memory_limit_bytes,
    )
