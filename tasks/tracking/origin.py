"""What made a run: the command, the commit, and the libraries' versions."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tasks.core.uris import without_passwords

LIBRARIES = (
    "keras",
    "maraboupy",
    "mlflow",
    "numpy",
    "prefect",
    "scipy",
    "tensorflow",
)


def command_line() -> str:
    """The command of this process as a shell takes it; '' where it is none of certiflow's."""
    program = Path(sys.argv[0])
    if program.name not in {"certiflow", "cli.py"}:  # a worker of Prefect's, or a notebook
        return ""
    return without_passwords(shlex.join(["certiflow", *sys.argv[1:]]))


def library_versions() -> str:
    """Of Python and of the libraries that numbers and verdicts come from."""
    found = {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
    return ", ".join(f"{name} {number}" for name, number in found.items())


def git_commit() -> str:
    """The project's commit, with `-dirty` when files differ from it; 'unknown' without git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
