"""Solvers in a module that is imported at once, for processes that must be able to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable


def assassin() -> Callable[[str], int]:
    """Answers with its process's id, or kills the process that started it."""

    def solve(job: str) -> int:
        if job == "kill":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        return os.getpid()

    return solve
