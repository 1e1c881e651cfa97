"""The one loop of every question: what is known already, what is solved and where, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from tasks.core.execution.cluster import run_on_cluster
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker import AnswerT, Ending, JobT
from tasks.core.execution.worker_pool import Outcome, run_jobs

GRACE_SECONDS = 2.0  # for a solver's last step beyond its limit, before its process is ended

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


# What is said of many jobs at once: of each its result, or the job as it is to be solved. A job of
# which nothing is said is not solved.
First = Callable[[Sequence[JobT]], Iterator[tuple[JobT, ResultT | Again[JobT]]]]


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
    first: First[JobT, ResultT] | None = None,
) -> Generator[tuple[JobT, ResultT], None, None]:
    """Every job with its result: first those that `store` knows, then the others as they come.

    Jobs are handed out in the order given, or in that of `first`, which says what it can of them in
    this process. A result is stored before it is yielded, unless a crash or the memory limit ended
    it or took of its time. `fresh` recalls nothing. The caller should not dwell on a result, and
    should close the iteration, so that an error elsewhere ends the work as well.

    Raises:
        CertiflowError: the store cannot be used; as `run_jobs` and `run_on_cluster` do.
        ContradictionError: from `question.judged`; that result is not stored.
    """
    left = list(jobs)
    keys = {} if store is None else {job: question.key(job) for job in left}

    def recall(asked: Sequence[JobT]) -> Iterator[tuple[JobT, ResultT | Again[JobT]]]:
        for job in asked:
            known = None if store is None or fresh else store.get(keys[job])
            yield job, Again(job) if known is None else question.recalled(job, known)

    def keep(job: JobT, result: ResultT) -> None:
        row = None if store is None else question.stored(result)
        if store is not None and row is not None:
            store.put(keys[job], row)

    for look, is_new in ((recall, False), (first or all_again, True)):
        asked, left = left, []
        for job, found in look(asked):
            if isinstance(found, Again):
                left.append(found.job)
                if store is not None:
                    keys[found.job] = keys[job]
            else:
                if is_new:
                    keep(job, found)
                yield job, found
    with closing(outcomes(question, left, resources)) as ended:
        for outcome in ended:
            result = question.judged(outcome)
            if _would_come_again(outcome):
                keep(outcome.job, result)
            yield outcome.job, result


def _would_come_again(outcome: Outcome[Any, Any]) -> bool:
    """Whether the job would end so once more: not by chance, nor short of time after a crash."""
    is_late = outcome.ending is Ending.TIMEOUT and not outcome.retried
    return is_late or outcome.ending is Ending.DONE


def all_again(jobs: Sequence[JobT]) -> Iterator[tuple[JobT, Again[JobT]]]:
    """Says nothing of any job."""
    return ((job, Again(job)) for job in jobs)


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
