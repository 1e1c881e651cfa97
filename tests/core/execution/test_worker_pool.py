"""A hung, crashed or memory-hungry solver costs its own job and nothing else."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import psutil
import pytest

from tasks.core import reporting
from tasks.core.errors import CertiflowError
from tasks.core.execution import worker
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import EARLY_DEATHS, Outcome, run_jobs

MEGABYTE = 2**20


def make_solver(offset: int) -> Callable[[str | int], int]:
    def solve(job: str | int) -> int:
        match job:
            case "hang":
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
                time.sleep(600)
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os._exit(3)
            case "raise":
                raise ValueError("no such luck")
            case "eat":
                hoard = [bytearray(50 * MEGABYTE) for _ in range(40)]
                time.sleep(600)
                return len(hoard)
            case "nap":
                time.sleep(0.5)
                return 1
            case "print":
                print("noise", flush=True)
                os.write(1, b"native noise\n")
                return 0
        return int(job) + offset

    return solve


class Preparing:
    """A solver that loads something before each job: it takes as long as `load` seconds."""

    def __init__(self, load: float) -> None:
        self.load = load

    def prepare(self, job: str) -> None:
        if job == "cannot load":
            raise ValueError("no such file")
        time.sleep(self.load)

    def __call__(self, job: str) -> str:
        reporting.entered("first")
        reporting.entered("second")
        if job == "hang":
            time.sleep(600)
        return job


def broken_solver() -> Callable[[int], int]:
    os._exit(7)


def outcomes(
    jobs: Sequence[str | int],
    *,
    num_workers: int = 2,
    timeout_seconds: Callable[[str | int], float] = lambda job: 60.0,
) -> dict[str | int, Outcome[str | int, int]]:
    results = run_jobs(
        make_solver,
        (100,),
        jobs,
        num_workers=num_workers,
        timeout_seconds=timeout_seconds,
        memory_limit_bytes=500 * MEGABYTE,
    )
    return {outcome.job: outcome for outcome in results}


def test_bad_jobs_cost_only_themselves(capfd: pytest.CaptureFixture[str]) -> None:
    jobs: list[str | int] = ["crash", 1, "exit", 2, "raise", 3, "eat", 4, "print", 5]
    found = outcomes(jobs)
    assert set(found) == set(jobs)
    for number in range(1, 6):
        assert (found[number].ending, found[number].answer) == (Ending.DONE, number + 100)
    assert found["crash"].ending is Ending.FAILED
    assert "SIGSEGV" in found["crash"].reason
    assert "exit code 3" in found["exit"].reason
    assert "died twice" in found["crash"].reason
    assert found["raise"].ending is Ending.FAILED
    assert found["raise"].reason == "ValueError: no such luck"
    assert found["eat"].ending is Ending.MEMORY
    assert "memory limit of 500 MB" in found["eat"].reason
    assert "noise" not in capfd.readouterr().out


def test_hung_job_ends_at_its_limit() -> None:
    found = outcomes(["hang", 1, 2], timeout_seconds=lambda job: 3.0)
    assert found["hang"].ending is Ending.TIMEOUT
    assert 3 <= found["hang"].seconds < 10
    assert found[1].answer == 101
    assert found[2].answer == 102


def test_every_job_has_its_own_limit() -> None:
    limits: dict[str | int, float] = {"hang": 0.5, "nap": 60.0}
    found = outcomes(["hang", "nap"], timeout_seconds=limits.__getitem__)
    assert found["hang"].ending is Ending.TIMEOUT
    assert found["hang"].reason == "time limit of 0.5 s"
    assert 0.5 <= found["hang"].seconds < 5
    assert found["nap"].answer == 1


def fragile_solver(folder: Path) -> Callable[[str], str]:
    """Notes every call; the job's words say what its first and its second try do."""
    calls = itertools.count()

    def solve(job: str) -> str:
        note = folder / job
        tries = len(note.read_text()) if note.exists() else 0
        note.write_text("x" * (tries + 1))
        call = next(calls)
        match job.split()[tries]:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "late":
                time.sleep(1)
                os.kill(os.getpid(), signal.SIGKILL)
            case "eat":
                hoard = bytearray(600 * MEGABYTE)
                time.sleep(600)
                return str(len(hoard))
            case "nap":
                time.sleep(1.5)
            case "hang":
                time.sleep(600)
            case "raise":
                raise KeyError("lost")
        return f"call {call}"

    return solve


def fragile_outcome(
    folder: Path, job: str, *, timeout_seconds: float = 60.0
) -> tuple[Outcome[str, str], int]:
    """The outcome of one job after two healthy ones, and how often it was tried."""
    *_, outcome = run_jobs(
        fragile_solver,
        (folder,),
        ["ok first", "ok second", job],
        num_workers=1,
        timeout_seconds=lambda job: timeout_seconds,
        memory_limit_bytes=500 * MEGABYTE,
    )
    assert outcome.job == job
    return outcome, len((folder / job).read_text())


@pytest.mark.parametrize("death", ["die", "eat", "late"])
def test_job_whose_process_died_is_tried_again_in_a_fresh_one(tmp_path: Path, death: str) -> None:
    outcome, tries = fragile_outcome(tmp_path, f"{death} ok")
    assert tries == 2
    assert death != "late" or 1 <= outcome.seconds < 3
    assert (outcome.ending, outcome.answer, outcome.reason) == (Ending.DONE, "call 0", "")


@pytest.mark.parametrize(
    ("job", "tries", "ending", "reason"),
    [
        ("die die", 2, Ending.FAILED, "died twice (signal SIGKILL, then signal SIGKILL)"),
        ("die eat", 2, Ending.MEMORY, "died twice (signal SIGKILL, then memory limit of 500 MB)"),
        ("die raise", 2, Ending.FAILED, "KeyError: 'lost', after a first process died"),
        ("raise ok", 1, Ending.FAILED, "KeyError: 'lost'"),
    ],
)
def test_only_a_death_is_tried_again_and_only_once(
    tmp_path: Path, job: str, tries: int, ending: Ending, reason: str
) -> None:
    outcome, tried = fragile_outcome(tmp_path, job)
    assert (tried, outcome.ending) == (tries, ending)
    assert reason in outcome.reason
    assert outcome.answer is None


def test_timeout_is_not_tried_again(tmp_path: Path) -> None:
    outcome, tries = fragile_outcome(tmp_path, "hang ok", timeout_seconds=0.5)
    assert (tries, outcome.ending) == (1, Ending.TIMEOUT)


def test_both_tries_share_one_limit(tmp_path: Path) -> None:
    outcome, tries = fragile_outcome(tmp_path, "late nap", timeout_seconds=2.0)
    assert (tries, outcome.ending) == (2, Ending.TIMEOUT)
    assert 2 <= outcome.seconds < 2.9
    assert outcome.reason == "time limit of 2 s, after a first process died (signal SIGKILL)"


def test_jobs_are_handed_out_in_the_order_given() -> None:
    jobs = [5, 3, 9, 1, 7, 2]
    assert list(outcomes(jobs, num_workers=1)) == jobs


def test_process_works_on_while_the_caller_looks_at_an_outcome() -> None:
    jobs: list[str | int] = ["print", "nap"]
    results = run_jobs(
        make_solver,
        (0,),
        jobs,
        num_workers=1,
        timeout_seconds=lambda job: 60.0,
        memory_limit_bytes=500 * MEGABYTE,
    )
    next(results)
    time.sleep(2.5)
    started = time.monotonic()
    nap = next(results)
    waited = time.monotonic() - started
    assert 0.5 <= nap.seconds < 2.5  # the job's own time, not the caller's
    assert waited < nap.seconds  # it was done before it was asked for


def test_short_jobs_flow_without_delay() -> None:
    jobs: list[str | int] = list(range(500))
    results = run_jobs(
        make_solver,
        (0,),
        jobs,
        num_workers=1,
        timeout_seconds=lambda job: 60.0,
        memory_limit_bytes=500 * MEGABYTE,
    )
    next(results)
    started = time.monotonic()
    assert sum(1 for _ in results) == 499
    assert time.monotonic() - started < 15  # a poll's wait each would take 25 s


def thread_counts() -> Callable[[int], list[str]]:
    from scipy import linalg  # loads its own BLAS
    from threadpoolctl import threadpool_info

    def solve(job: int) -> list[str]:
        assert linalg.inv([[1.0]]) == 1
        pools = [f"{pool['filepath']}: {pool['num_threads']}" for pool in threadpool_info()]
        return [os.environ["NUMBA_NUM_THREADS"], *pools]

    return solve


@pytest.mark.parametrize(("jobs", "share"), [([0], "5"), ([0, 1], "2"), ([0, 1, 2, 3], "1")])
def test_workers_share_the_cores_and_the_parent_keeps_its_own_threads(
    jobs: list[int], share: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search has threads of its own; libraries have one."""
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(5))
    outcome, *_ = run_jobs(
        thread_counts,
        (),
        jobs,
        num_workers=4,
        timeout_seconds=lambda job: 60.0,
        memory_limit_bytes=500 * MEGABYTE,
    )
    assert outcome.answer is not None, outcome.reason
    numba_threads, *pools = outcome.answer
    assert numba_threads == share
    assert pools
    assert all(pool.endswith(": 1") for pool in pools), pools
    assert os.environ["NUMBA_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in os.environ


def prepared(jobs: Sequence[str], load: float) -> dict[str, Outcome[str, str]]:
    results = run_jobs(
        Preparing,
        (load,),
        jobs,
        num_workers=1,
        timeout_seconds=lambda job: 0.5,
        memory_limit_bytes=500 * MEGABYTE,
    )
    return {outcome.job: outcome for outcome in results}


def test_preparing_is_not_counted() -> None:
    found = prepared(["one", "cannot load", "hang"], load=1.0)
    assert found["one"].answer == "one"
    assert found["one"].seconds < 0.5
    assert found["cannot load"].ending is Ending.FAILED
    assert found["cannot load"].reason == "ValueError: no such file"
    assert found["hang"].ending is Ending.TIMEOUT
    assert 0.5 <= found["hang"].seconds < 1.5


def test_preparing_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PREPARE_SECONDS", 1.0)
    (outcome,) = prepared(["one"], load=600.0).values()
    assert (outcome.ending, outcome.stage) == (Ending.FAILED, "")
    assert outcome.reason == "the model was not loaded within 1 s"


def test_outcomes_tell_the_last_stage() -> None:
    found = prepared(["one", "hang"], load=0.0)
    assert {outcome.stage for outcome in found.values()} == {"second"}


def test_no_process_is_left_behind() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    iterator = run_jobs(
        make_solver,
        (0,),
        [1, "hang", "hang"],
        num_workers=2,
        timeout_seconds=lambda job: 60.0,
        memory_limit_bytes=500 * MEGABYTE,
    )
    assert next(iterator).job == 1
    iterator.close()  # type: ignore[attr-defined]
    left = {
        child.pid
        for child in psutil.Process().children(recursive=True)
        if "resource_tracker" not in " ".join(child.cmdline())
    }
    assert left <= before


def test_solver_that_cannot_start_is_an_error_not_a_hang() -> None:
    with pytest.raises(CertiflowError, match=r"in a row .* \(the last by exit code 7\)"):
        list(
            run_jobs(
                broken_solver,
                (),
                [1],
                num_workers=1,
                timeout_seconds=lambda job: 5.0,
                memory_limit_bytes=500 * MEGABYTE,
            )
        )


def stillborn_solver(folder: Path, stillborn: Collection[int]) -> Callable[[str], str]:
    """Of its processes, counted from 0, these die before their first job."""
    born = folder / "born"
    count = len(born.read_text()) if born.exists() else 0
    born.write_text("x" * (count + 1))
    if count in stillborn:
        os.kill(os.getpid(), signal.SIGKILL)
    return fragile_solver(folder)


@pytest.mark.parametrize("stillborn", [{0}, set(range(EARLY_DEATHS - 1)), {1}])
def test_processes_that_die_before_their_job_are_replaced(
    tmp_path: Path, stillborn: set[int]
) -> None:
    """Those that are born for a second try too, which goes to the next."""
    (outcome,) = run_jobs(
        stillborn_solver,
        (tmp_path, stillborn),
        ["die ok"],
        num_workers=1,
        timeout_seconds=lambda job: 60.0,
        memory_limit_bytes=500 * MEGABYTE,
    )
    assert (outcome.ending, outcome.retried) == (Ending.DONE, True)


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from tests.core.execution.test_worker_pool import make_solver\n"
        "from tasks.core.execution.worker_pool import run_jobs\n"
        "if __name__ == '__main__':\n"
        "    for outcome in run_jobs(make_solver, (0,), [1, 'hang'], num_workers=1,\n"
        "                            timeout_seconds=lambda job: 600.0,\n"
        "                            memory_limit_bytes=2**30):\n"
        "        print(outcome.answer, flush=True)\n"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"1\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children
        parent.kill()
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert len(gone) == len(children)
