"""`python -m tests.fuzz --seconds 300`: each reader in a process of its own, for so many seconds.

Files that are neither read nor refused are kept in `fuzz/`. A reader that takes longer than 10 s
ends the process with its stack; what needs more than 2 GB of memory besides the imports fails.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.trying import Trial

MOST_SECONDS, IMPORT_SECONDS, MOST_BYTES = 10, 60, 2 * 2**30


def main() -> int:
    """0 when all readers read or refused everything in a line."""
    from tests.fuzz.readers import READERS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", action="store_true", help="in this process")
    parser.add_argument("readers", nargs="*", default=[], metavar="reader", help=", ".join(READERS))
    asked = parser.parse_args()
    readers = asked.readers or list(READERS)
    if asked.alone:
        return max(_alone(name, asked.seconds, asked.seed) for name in readers)
    options = ["--alone", "--seconds", str(asked.seconds), "--seed", str(asked.seed)]
    command = [sys.executable, "-m", "tests.fuzz", *options]
    return max(abs(subprocess.run([*command, name], check=False).returncode) for name in readers)


def _alone(name: str, seconds: float, seed: int) -> int:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(name, Path(folder), seed, Path("fuzz"))
        faulthandler.dump_traceback_later(IMPORT_SECONDS, exit=True)
        trial.attempt()  # whatever is imported, is now
        used = _bytes_in_use()
        resource.setrlimit(resource.RLIMIT_DATA, (used + MOST_BYTES, resource.RLIM_INFINITY))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
            trial.attempt()
        faulthandler.cancel_dump_traceback_later()
    greatest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{name}: {trial.read} files read, {trial.refused} refused in a line, slowest "
        f"{trial.slowest:.1f} s, {greatest:.1f} GB; {len(trial.wrong)} kinds of wrong"
    )
    for kind, example in trial.wrong.items():
        print(f"WRONG {kind}\n{example}")
    return 1 if trial.wrong else 0


def _bytes_in_use() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
    return pages * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
