"""A Dask cluster of real processes on this machine, as a user would start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from distributed import Client

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s",  # how long a dead worker is asked again
}


class Cluster:
    """A scheduler and workers of one thread, each under a nanny; its output goes to a log."""

    def __init__(self, folder: Path) -> None:
        self.workers: list[subprocess.Popen[bytes]] = []
        self.log = (folder / "log").open("wb")
        file = folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler", "--port", "0", "--scheduler-file", str(file), folders=[ROOT]
        )
        eventually(file.exists)
        self.address: str = json.loads(file.read_text())["address"]

    def start_worker(self, *folders: Path) -> subprocess.Popen[bytes]:
        """Waits until the scheduler knows it; `folders` go before certiflow's."""
        known = self.known_workers()
        options = ("--nworkers", "1", "--nthreads", "1", "--memory-limit", "0")
        worker = self._start("worker", self.address, *options, folders=[*folders, ROOT])
        self.workers.append(worker)
        eventually(lambda: bool(self.known_workers() - known))
        return worker

    def known_workers(self) -> set[str]:
        """The addresses of those that the scheduler has not lost."""
        with Client(self.address, set_as_default=False) as client:
            return set(client.nthreads())

    def num_tasks(self) -> int:
        """What the scheduler still knows of."""
        with Client(self.address, set_as_default=False) as client:
            return client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))

    def worker_pid(self) -> int:
        """Of the only worker, not of its nanny."""
        with Client(self.address, set_as_default=False) as client:
            (pid,) = client.run(os.getpid).values()
            return pid

    def end(self) -> None:
        for process in [*self.workers, self.scheduler]:
            end_tree(process)
        self.log.close()

    def _start(self, part: str, *arguments: str, folders: list[Path]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", f"distributed.cli.dask_{part}"),
                *("--host", "127.0.0.1", "--no-dashboard", *arguments),
            ],
            env={**os.environ, **SETTINGS, "PYTHONPATH": os.pathsep.join(map(str, folders))},
            stdout=self.log,
            stderr=self.log,
        )


def eventually(holds: Callable[[], bool]) -> None:
    """Waits for it, at most a minute."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """The parent first, so that a nanny cannot start its worker anew."""
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for child in children:
            if child.is_running():
                child.kill()
