"""The `certiflow` command in a process of its own, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from flows.processes.guardian import INVOCATION
from tasks.core.data.download import MIRROR_VARIABLE

ROOT = Path(__file__).parents[1]
CERTIFLOW = [sys.executable, "-m", "flows.command.cli"]
SECONDS = 300


def clean_environment(prefect_home: Path, **more: str) -> dict[str, str]:
    """This process's, without a mirror and servers, and Prefect's files in their own folder."""
    unset = {MIRROR_VARIABLE, "MLFLOW_TRACKING_URI", "PREFECT_API_URL", INVOCATION}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    own = {"PREFECT_HOME": str(prefect_home), "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return kept | own | more


def with_settings(folder: Path) -> Path:
    """A project's folder that has `conf/`."""
    (folder / "conf").symlink_to(ROOT / "conf")
    return folder


def certiflow(
    project: Path, environment: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command in `project` to its end."""
    return subprocess.run(
        [*CERTIFLOW, *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that says why the command could not do its job."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line
