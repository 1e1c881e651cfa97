"""The `certiflow` command in a process of its own, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows.command.cli import app
from flows.processes import environment as libraries
from flows.processes import guardian, prefect_server
from flows.processes.guardian import INVOCATION
from tasks.core.data.download import MIRROR_VARIABLE
from tasks.core.errors import CertiflowError

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


def invoked(patch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """The command in this process, which starts no server and no guardian: what it looks at first.

    Its switches for a whole process stay as they are.
    """

    def started() -> None:
        raise AssertionError("something was started")

    patch.setattr(libraries, "hush", lambda: None)
    patch.setattr(prefect_server, "start", started)
    patch.setattr(guardian, "start", started)
    return CliRunner().invoke(app, arguments, prog_name="certiflow")


def refusal(patch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What the command says of arguments that it cannot serve, before anything is started."""
    result = invoked(patch, *arguments)
    assert isinstance(result.exception, CertiflowError), result.exception
    assert result.stdout == ""
    assert "\n" not in str(result.exception)
    return str(result.exception)


def misuse(patch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What the command says of wrong usage."""
    result = invoked(patch, *arguments)
    assert result.exit_code == 2, result.exception
    return result.stderr
