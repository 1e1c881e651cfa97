"""A hung, crashed or memory-hungry solver costs its own job and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tasks.core.errors import CertiflowError
from tasks.core.worker_pool import Ending, Outcome, run_jobs

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
            case "print":
                print("noise", flush=True)
                os.write(1, b"native noise\n")
                return 0
        return int(job) + offset

    return solve


def broken_solver() -> Callable[[int], int]:
    os._exit(7)


def outcomes(
    jobs: list[str | int], *, timeout_seconds: float = 60.0
) -> dict[str | int, Outcome[str | int, int]]:
    results = run_jobs(
        make_solver,
        (100,),
        jobs,
        num_workers=2,
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
    assert found["raise"].reason == "ValueError: no such luck"
    assert found["eat"].ending is Ending.MEMORY
    assert "memory limit of 500 MB" in found["eat"].reason
    assert "noise" not in capfd.readouterr().out


def test_hung_job_ends_at_its_limit() -> None:
    found = outcomes(["hang", 1, 2], timeout_seconds=3)
    assert found["hang"].ending is Ending.TIMEOUT
    assert 3 <= found["hang"].seconds < 10
    assert found[1].answer == 101
    assert found[2].answer == 102


def test_no_process_is_left_behind() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    iterator = run_jobs(
        make_solver,
        (0,),
        [1, "hang", "hang"],
        num_workers=2,
        timeout_seconds=60,
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
    with pytest.raises(CertiflowError, match="ended before its first job"):
        list(
            run_jobs(
                broken_solver,
                (),
                [1],
                num_workers=1,
                timeout_seconds=5,
                memory_limit_bytes=500 * MEGABYTE,
            )
        )


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from tests.core.test_worker_pool import make_solver\n"
        "from tasks.core.worker_pool import run_jobs\n"
        "if __name__ == '__main__':\n"
        "    for outcome in run_jobs(make_solver, (0,), [1, 'hang'], num_workers=1,\n"
        "                            timeout_seconds=600, memory_limit_bytes=2**30):\n"
        "        print(outcome.answer, flush=True)\n"
    )
    root = Path(__file__).parents[2]
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
