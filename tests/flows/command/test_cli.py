"""The command as a user meets it: exit codes, one clear line, and nothing left behind."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from tasks import console
from tasks.core.errors import CertiflowError
from tests.command import (
    CERTIFLOW,
    certiflow,
    clean_environment,
    error_of,
    interpreted,
    invoked,
    refusal,
    with_settings,
)

SLOW = ["--set", "training.epochs=100000"]  # long enough to be interrupted


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return clean_environment(tmp_path_factory.mktemp("prefect"))


@pytest.fixture
def served(environment: dict[str, str], prefect_api: str) -> dict[str, str]:
    """With the session's Prefect server, for what is not about the command's own."""
    return environment | {"PREFECT_API_URL": prefect_api}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return with_settings(tmp_path)


def smoke(*arguments: str) -> list[str]:
    return ["run", "--conf", "conf/smoke.yaml", *arguments]


def test_run_tells_what_it_found_and_where_to_look(
    project: Path, environment: dict[str, str]
) -> None:
    result = interpreted(project, environment, *smoke("--json", "out.json"))
    assert result.returncode == 0, result.stderr
    summary = json.loads((project / "out.json").read_text())
    assert summary["clean_accuracy"] > 0.5
    for text in ("digits dense-16", "under FGSM", "falsified", "make ui", summary["run_name"]):
        assert text in result.stdout
    assert "version 1, the first: champion" in result.stdout
    assert summary["figure"].endswith("robustness_curve.png")
    stages = ["start", "download", "train", "fgsm", "pgd", "masking", "bounds"]
    stages += ["verify", "witness", "radius", "guard", "report"]
    lines = result.stderr.strip().splitlines()
    # nothing else: the libraries are quiet (a slow stage says how far it is on a line of its own)
    assert list(dict.fromkeys(line.split()[0] for line in lines)) == stages


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--conf", "nowhere.yaml"], "nowhere.yaml: no such settings file"),
        (smoke("--set", "verification.sample=3"), "did you mean 'samples'"),
        (smoke("--set", "attack.epsilons=[-1]"), "attack.epsilons.0 is -1"),
        (smoke("--set", "tracking.output=/proc/nowhere"), "tracking.output"),
        (smoke("--set", "tracking.output=conf/smoke.yaml"), "tracking.output"),
        (smoke("--set", "data.dataset=gone.npz"), "gone.npz: no such file"),
        (smoke("--set", "verification.samples=361"), "verification.samples is 361: expected at"),
        (smoke("--set", "radius.samples=361"), "radius.samples is 361: expected at most 360"),
        (smoke("--set", "verification.cluster=h:1"), "verification.cluster is 'h:1'"),
        (smoke("--set", "radius.cluster=tcp://127.0.0.1:1"), "answers at tcp://127.0.0.1:1 within"),
        (smoke("--json", "/proc/x.json"), "--json /proc/x.json"),
        (["study", "gone.yaml"], "gone.yaml: no such settings file"),
        (["study", "conf/smoke.yaml"], "conf/smoke.yaml: not a study"),
    ],
)
def test_what_a_user_can_cause_is_one_line_before_anything_starts(
    arguments: list[str], said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert said in refusal(monkeypatch, *arguments)
    assert not (project / "mlflow.db").exists()
    assert not list(project.glob("runs/*"))


def test_data_that_cannot_be_had_and_settings_that_are_wrong_are_one_line(
    project: Path, served: dict[str, str]
) -> None:
    # a closed proxy: the public mirrors must not be asked by a test
    closed = served | {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    closed |= {"NO_PROXY": "127.0.0.1"}
    result = certiflow(project, closed, *smoke("--set", "data.dataset=mnist"))
    assert "mnist cannot be had: no source gave train-images" in error_of(result)
    result = certiflow(project, closed, "run", "--conf", "nowhere.yaml")
    assert "nowhere.yaml: no such settings file" in error_of(result)


def test_wrong_usage_is_exit_code_2(project: Path, environment: dict[str, str]) -> None:
    result = certiflow(project, environment, "run", "--nonsense")
    assert result.returncode == 2
    assert "--nonsense" in result.stderr
    assert "Traceback" not in result.stderr


def test_version_and_short_help(monkeypatch: pytest.MonkeyPatch) -> None:
    said = invoked(monkeypatch, "--version")
    assert (said.exit_code, said.stdout) == (0, f"certiflow {version('certiflow')}\n")
    for arguments in (["-h"], ["radius", "-h"]):
        said = invoked(monkeypatch, *arguments)
        assert said.exit_code == 0
        assert "Usage: certiflow" in said.stdout
        assert "--help" in said.stdout


def test_a_failed_attempt_leaves_no_progress_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80, highlight=False)
    monkeypatch.setattr(console, "console", terminal)
    with pytest.raises(CertiflowError), console.stage("download", None):
        raise CertiflowError("no answer")
    shown = screen.getvalue()
    assert shown.rindex("\x1b[2K") > shown.rindex("download")  # the line is erased
    with console.stage("download", 1) as progress:
        progress.advance(note="whole")
    assert "\x1b[2K" not in screen.getvalue().rpartition("whole")[2]


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "PREFECT_API_URL"])
def test_server_that_does_not_answer(name: str, project: Path, served: dict[str, str]) -> None:
    result = certiflow(project, served | {name: "http://127.0.0.1:9"}, *smoke())
    assert result.returncode == 1
    assert "does not answer" in result.stderr.splitlines()[-1]
    assert name in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def invocation(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """All processes of a running command, wherever they have moved to."""
    found = psutil.Process(process.pid).children(recursive=True)
    assert len(found) >= 2  # at least the guardian and the Prefect server
    return found


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell's background job ignores Ctrl-C, and so would all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def running(
    interruptible: None, project: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A flow in the middle of its training, in a process group of its own."""
    with subprocess.Popen(
        [*CERTIFLOW, *smoke(*SLOW)],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not in_training(project) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.2)
        yield process
        process.kill()


def in_training(project: Path) -> bool:
    """An epoch is over: before, TensorFlow traces its functions and may swallow an interrupt."""
    query = "select count(*) from metrics where key = 'train/loss'"
    with (
        suppress(sqlite3.OperationalError),  # no store yet, or no tables
        closing(sqlite3.connect(f"file:{project}/mlflow.db?mode=ro", uri=True)) as store,
    ):
        return bool(store.execute(query).fetchone()[0])
    return False


@pytest.mark.parametrize(
    ("number", "group"),
    [
        pytest.param(signal.SIGINT, True, id="Ctrl-C"),  # a terminal sends it to the group
        pytest.param(signal.SIGTERM, False, id="kill"),
        pytest.param(signal.SIGKILL, True, id="kill -9"),
    ],
)
def test_ended_from_outside(
    number: signal.Signals,
    group: bool,
    running: subprocess.Popen[bytes],
    project: Path,
    environment: dict[str, str],
) -> None:
    """Every child ends, both runs are marked, and a reader of its output sees the end."""
    children = invocation(running)
    if group:
        os.killpg(running.pid, number)
    else:
        running.send_signal(number)
    output = running.communicate(timeout=120)[0].decode()  # a server left behind holds it open
    assert "Traceback" not in output
    assert running.wait(60) == (-9 if number is signal.SIGKILL else 130), output
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    with sqlite3.connect(project / "mlflow.db") as store:
        assert store.execute("select status from runs").fetchall() == [("KILLED",)]
    with sqlite3.connect(Path(environment["PREFECT_HOME"]) / "prefect.db") as server:
        query = "select state_type from flow_run order by created desc limit 1"
        assert server.execute(query).fetchall() == [("CRASHED",)]
