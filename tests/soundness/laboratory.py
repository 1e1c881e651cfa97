"""Rounds of cases in separate processes, counted; a run that was ended goes on where it was."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome, WorkerPool
from tasks.core.search.ladder import warm_up
from tests.soundness import failures
from tests.soundness.families import Job, jobs_of_round
from tests.soundness.findings import Finding
from tests.soundness.mends import MENDS

Counts = dict[str, dict[str, dict[str, int]]]  # by family, engine and status
Report = Callable[[str], None]

NUM_WORKERS = 2
MEMORY_LIMIT_BYTES = 3 * 2**30  # TensorFlow takes half of one
JOB_SECONDS = {"own": 60.0, "ladder": 4.0, "marabou": 4.0, "files": 120.0, "instances": 6.0}


@dataclass
class Progress:
    """What is known so far, kept in a file."""

    path: Path
    rounds: int = 0
    seconds: float = 0.0
    counts: Counts = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> Progress:
        """What an earlier run left there, or nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "progress.json"
        return cls(path, **json.loads(path.read_text())) if path.exists() else cls(path)

    def save(self) -> None:
        """Replaces the file at once: it is never half written."""
        fields = {name: value for name, value in vars(self).items() if name != "path"}
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(fields, indent=1))
        os.replace(beside, self.path)

    def count(self, family: str, finding: Finding) -> None:
        engines = self.counts.setdefault(family, {})
        statuses = engines.setdefault(finding.engine, {})
        statuses[finding.status] = statuses.get(finding.status, 0) + 1


class Asker:
    """A process's solver: the findings of a job, with one mend of the product taken back or none.

    Drawing a case is part of the job: what is sent are two words and a number.
    """

    def __init__(self, without: str | None) -> None:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        warm_up()
        if without is not None:
            MENDS[without]()

    def __call__(self, job: Job) -> list[Finding]:
        with tempfile.TemporaryDirectory() as folder:
            return job.findings(Path(folder))


def run_rounds(
    progress: Progress,
    *,
    more: Callable[[], bool],
    without: str | None = None,
    report: Report = lambda line: None,
) -> None:
    """Rounds as long as there is to be `more`, which is asked before each; each saved at its end.

    With a mend taken back the first wrong answer ends it.
    """
    with closing(
        WorkerPool(
            Asker, (without,), num_workers=NUM_WORKERS, memory_limit_bytes=MEMORY_LIMIT_BYTES
        )
    ) as pool:
        while more():
            started = time.monotonic()
            jobs = jobs_of_round(progress.rounds)
            for outcome in pool.run(jobs, _limit):
                for finding in _findings(outcome):
                    _note(progress, outcome.job, finding, report)
                if without is not None and progress.wrong:
                    return
            progress.rounds += 1
            progress.seconds += time.monotonic() - started
            progress.save()


def _limit(job: Job) -> float:
    """Of a family, else of the group: Marabou may overrun, and TensorFlow takes long to import."""
    return JOB_SECONDS.get(job.family, JOB_SECONDS[job.group])


def _findings(outcome: Outcome[Job, list[Finding]]) -> list[Finding]:
    """A process that was ended from outside, or died, decided nothing."""
    if outcome.answer is not None:
        return outcome.answer
    if outcome.ending is Ending.FAILED and "died" not in outcome.reason:
        raise RuntimeError(f"{outcome.job} cannot be asked: {outcome.reason}")
    engine = outcome.job.family if outcome.job.group == "files" else outcome.job.group
    return [Finding(engine, "undecided", outcome.reason)]


def _note(progress: Progress, job: Job, finding: Finding, report: Report) -> None:
    progress.count(job.family, finding)
    if finding.status == "wrong":
        place = failures.write(progress.path.parent / "failures", job, finding)
        progress.wrong.append(f"{place.name}: {finding.words}")
        report(f"WRONG {progress.wrong[-1]}")


def table(counts: Counts) -> Iterator[str]:
    """Lines: for every family and engine asked, wrong, right and undecided; and the sums."""
    yield f"{'family':15} {'engine':12} {'asked':>8} {'right':>8} {'wrong':>8} {'undecided':>9}"
    sums: dict[str, int] = {}
    for family, engines in sorted(counts.items()):
        for engine, statuses in sorted(engines.items()):
            yield _line(family, engine, statuses)
            for status, number in statuses.items():
                sums[status] = sums.get(status, 0) + number
    yield _line("all", "", sums)


def _line(family: str, engine: str, statuses: dict[str, int]) -> str:
    right, wrong, undecided = (statuses.get(s, 0) for s in ("right", "wrong", "undecided"))
    asked = right + wrong + undecided
    return f"{family:15} {engine:12} {asked:8} {right:8} {wrong:8} {undecided:9}"
