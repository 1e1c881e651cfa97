"""`python -m tests.soundness`: asks every engine what is known exactly, for so many seconds."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.soundness.laboratory import Progress, run_rounds, table
from tests.soundness.mends import MENDS


def main() -> int:
    """0 when nothing is wrong or, with a mend taken back, when that is noticed; else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.soundness", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="that a run takes, about")
    parser.add_argument("--out", type=Path, default=Path("soundness"), help="progress, failures")
    parser.add_argument("--without", choices=MENDS, help="take this mend back, and notice it")
    settings = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # where a Keras failure is written
    if settings.without:
        with tempfile.TemporaryDirectory() as folder:
            return _without(Path(folder), settings.without, settings.seconds)
    return _run(settings.out, settings.seconds)


def _run(folder: Path, seconds: float) -> int:
    progress = Progress.of(folder)
    if progress.rounds:
        print(f"goes on after {progress.rounds} rounds in {progress.seconds:.0f} s")
    deadline = time.monotonic() + seconds
    run_rounds(progress, more=lambda: time.monotonic() < deadline, report=print)
    print(*table(progress.counts), sep="\n")
    asked = sum(sum(s.values()) for engines in progress.counts.values() for s in engines.values())
    print(
        f"{asked} questions in {progress.seconds:.0f} s ({asked / progress.seconds:.0f} a second), "
        f"{len(progress.wrong)} wrong"
    )
    for line in progress.wrong:
        print(f"WRONG {line}")
    return 1 if progress.wrong else 0


def _without(folder: Path, name: str, seconds: float) -> int:
    progress, started = Progress.of(folder), time.monotonic()
    run_rounds(
        progress,
        more=lambda: time.monotonic() < started + seconds,
        without=name,
        report=print,
    )
    found = "noticed" if progress.wrong else "NOT NOTICED"
    print(f"without {name}: {found} after {time.monotonic() - started:.0f} s")
    return 0 if progress.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
