"""The loop of every question, with one that knows nothing of networks: numbers to be doubled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.core.errors import CertiflowError, ContradictionError
from tasks.core.execution import asking
from tasks.core.execution.asking import Again, Resources, answers
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome
from tasks.core.verdicts import DecidedBy, Verdict
from tests.core.execution.test_worker_pool import MEGABYTE, fragile_solver, make_solver

ONE = Resources(num_workers=1, memory_limit_bytes=500 * MEGABYTE)
OFFSET = 100


@dataclass(frozen=True)
class ToyJob:
    """What `make_solver`'s solver is given: numbers are answered, words misbehave."""

    task: str | int
    again: bool = False


@dataclass(frozen=True)
class ToyResult:
    ending: Ending
    answer: float | None
    reason: str = ""
    recalled: bool = False


def make_toy_solver(offset: int) -> Callable[[ToyJob], int]:
    solve = make_solver(offset)
    return lambda job: solve(job.task)


def make_fragile_solver(folder: Path) -> Callable[[ToyJob], str]:
    solve = fragile_solver(folder)
    return lambda job: solve(str(job.task))


@dataclass(eq=False)
class ToyQuestion:
    """`contradicted` jobs cannot be judged; `again` ones cannot be recalled; `dropped` not kept."""

    limit: float = 60.0
    contradicted: Sequence[str | int] = ()
    again: Sequence[str | int] = ()
    dropped: Sequence[str | int] = ()
    asked: list[ToyJob] = field(default_factory=list)

    def key(self, job: ToyJob) -> VerdictKey:
        return VerdictKey("toy", str(job.task), "")

    def solver(self) -> tuple[Callable[..., Callable[[ToyJob], int]], tuple[Any, ...]]:
        return make_toy_solver, (OFFSET,)

    def seconds(self, job: ToyJob) -> float:
        return self.limit

    def judged(self, outcome: Outcome[ToyJob, int]) -> ToyResult:
        self.asked.append(outcome.job)
        if outcome.job.task in self.contradicted:
            raise ContradictionError(f"{outcome.job.task} cannot be")
        return ToyResult(outcome.ending, outcome.answer, outcome.reason)

    def stored(self, result: ToyResult) -> StoredVerdict | None:
        if result.answer is not None and result.answer - OFFSET in self.dropped:
            return None
        return StoredVerdict(
            Verdict.UNKNOWN, DecidedBy.CLEAN, 0.0, margin=result.answer, reason=result.reason
        )

    def recalled(self, job: ToyJob, known: StoredVerdict) -> ToyResult | Again[ToyJob]:
        if job.task in self.again:
            return Again(replace(job, again=True))
        return ToyResult(Ending.DONE, known.margin, known.reason, recalled=True)


@dataclass(eq=False)
class FragileQuestion(ToyQuestion):
    """Of which `fragile_solver` is asked."""

    folder: Path = Path()

    def solver(self) -> tuple[Callable[..., Callable[[ToyJob], Any]], tuple[Any, ...]]:
        return make_fragile_solver, (self.folder,)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VerdictStore]:
    with VerdictStore(tmp_path / "verdicts.db") as opened:
        yield opened


def ask(
    *tasks: str | int,
    store: VerdictStore | None = None,
    question: ToyQuestion | None = None,
    resources: Resources = ONE,
    fresh: bool = False,
) -> list[tuple[ToyJob, ToyResult]]:
    jobs = [ToyJob(task) for task in tasks]
    question = question or ToyQuestion()
    return list(answers(question, jobs, resources, store=store, fresh=fresh))


def known(store: VerdictStore, task: str | int) -> StoredVerdict | None:
    return store.get(ToyQuestion().key(ToyJob(task)))


def test_jobs_are_solved_in_the_order_given_with_or_without_a_store(store: VerdictStore) -> None:
    for each in (None, store):
        found = ask(3, 1, 2, store=each)
        assert [(job.task, result.answer) for job, result in found] == [
            (3, 103),
            (1, 101),
            (2, 102),
        ]


def test_a_result_is_stored_before_it_is_yielded(store: VerdictStore) -> None:
    question = ToyQuestion()
    jobs = [ToyJob(task) for task in (1, 2)]
    with closing(answers(question, jobs, ONE, store=store)) as found:
        job, _ = next(found)
        assert job.task == 1
        row = known(store, 1)
        assert row is not None
        assert row.margin == 101
        assert known(store, 2) is None


def test_stored_results_come_first_and_are_not_solved_again(store: VerdictStore) -> None:
    ask(2, store=store)
    question = ToyQuestion()
    found = ask(1, 2, 3, store=store, question=question)
    assert [job.task for job, _ in found] == [2, 1, 3]
    assert [result.recalled for _, result in found] == [True, False, False]
    assert [result.answer for _, result in found] == [102, 101, 103]
    assert [job.task for job in question.asked] == [1, 3]


def test_what_cannot_be_recalled_is_solved_as_the_job_that_the_question_makes_of_it(
    store: VerdictStore,
) -> None:
    ask(1, 2, store=store)
    question = ToyQuestion(again=[1])
    store.put(question.key(ToyJob(1)), StoredVerdict(Verdict.UNKNOWN, DecidedBy.CLEAN, 0.0))
    found = ask(1, 2, store=store, question=question)
    assert found == [
        (ToyJob(2), ToyResult(Ending.DONE, 102, recalled=True)),
        (ToyJob(1, again=True), ToyResult(Ending.DONE, 101)),
    ]
    row = known(store, 1)
    assert row is not None
    assert row.margin == 101


def test_fresh_recalls_nothing_and_stores_anew(store: VerdictStore) -> None:
    key = ToyQuestion().key(ToyJob(1))
    store.put(key, StoredVerdict(Verdict.UNKNOWN, DecidedBy.CLEAN, 0.0, margin=7.0))
    assert ask(1, store=store)[0][1].answer == 7
    ((_, result),) = ask(1, store=store, fresh=True)
    assert (result.answer, result.recalled) == (101, False)
    row = known(store, 1)
    assert row is not None
    assert row.margin == 101


def test_time_limits_are_kept_with_a_grace_and_are_results_worth_keeping(
    store: VerdictStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "GRACE_SECONDS", 0.5)
    (hung, done) = ask("hang", 1, store=store, question=ToyQuestion(limit=1.0))
    assert (hung[0].task, hung[1].ending) == ("hang", Ending.TIMEOUT)
    assert hung[1].reason == "time limit of 1.5 s"
    assert done[1].answer == 101
    assert known(store, "hang") is not None


def test_crashes_memory_and_exceptions_cost_one_job_and_are_not_stored(
    store: VerdictStore,
) -> None:
    tasks: list[str | int] = ["crash", "eat", "raise", 1]
    found = {job.task: result for job, result in ask(*tasks, store=store)}
    assert "died twice" in found["crash"].reason
    assert "SIGSEGV" in found["crash"].reason
    assert found["eat"].ending is Ending.MEMORY
    assert found["raise"].reason == "ValueError: no such luck"
    assert found[1].answer == 101
    assert [known(store, task) is None for task in tasks] == [True, True, True, False]


def test_a_time_limit_that_a_crash_ate_into_is_not_stored(
    store: VerdictStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try dies after a second, the second would take longer than what is left."""
    monkeypatch.setattr(asking, "GRACE_SECONDS", 0.5)
    question = FragileQuestion(limit=1.5, folder=tmp_path)
    ((job, result),) = ask("late nap", store=store, question=question)
    assert result.ending is Ending.TIMEOUT
    assert "after a first process died" in result.reason
    assert known(store, job.task) is None


def test_a_contradiction_ends_the_work_and_is_not_stored(store: VerdictStore) -> None:
    before = set(psutil.Process().children())
    with pytest.raises(ContradictionError, match="2 cannot be"):
        ask(1, 2, "nap", store=store, question=ToyQuestion(contradicted=[2]))
    assert known(store, 1) is not None
    assert known(store, 2) is None
    assert set(psutil.Process().children()) <= before


def test_a_question_may_keep_a_result_to_itself(store: VerdictStore) -> None:
    assert len(ask(1, 2, store=store, question=ToyQuestion(dropped=[1]))) == 2
    assert known(store, 1) is None
    assert known(store, 2) is not None


def test_what_is_all_known_needs_no_cluster(store: VerdictStore) -> None:
    ask(1, store=store)
    nowhere = replace(ONE, cluster="tcp://127.0.0.1:1")
    assert ask(1, store=store, resources=nowhere)[0][1].recalled
    with pytest.raises(CertiflowError, match="'nonsense' is not the address of a Dask scheduler"):
        ask(2, store=store, resources=replace(ONE, cluster="nonsense"))
