"""The one loop without processes, for tests of what is asked and not of who solves it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from tasks.core.execution.asking import Question, Resources
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome


def outcomes_here(
    question: Question[Any, Any, Any], jobs: Sequence[Any], resources: Resources
) -> Generator[Outcome[Any, Any], None, None]:
    """`asking.outcomes` in this process; no limit is enforced."""
    make_solver, arguments = question.solver()
    solver = make_solver(*arguments)
    for job in jobs:
        yield Outcome(job, Ending.DONE, solver(job), "", 0.0)
