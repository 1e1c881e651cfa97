"""The commands about versions as a user meets them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.command import (
    certiflow,
    clean_environment,
    error_of,
    misuse,
    refusal,
    started,
    with_settings,
)
from tests.devices import device, is_device
from tests.flow_project import flow_project

SMOKE = ["--conf", "conf/smoke.yaml"]
# Every point to the solver, one at a time: long enough to be killed in its midst.
SLOW = [*SMOKE, "--set", "verification.engine=marabou", "--set", "verification.samples=16"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> dict[str, str]:
    home = tmp_path_factory.mktemp("prefect")
    return clean_environment(home, COLUMNS="80", PREFECT_API_URL=prefect_api)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_settings(tmp_path_factory.mktemp("project"))


def stored(project: Path) -> dict[str, str]:
    """When each verdict was stored, by its property."""
    if not (project / "verdicts.db").exists():
        return {}
    with (
        suppress(sqlite3.OperationalError),  # no table yet
        sqlite3.connect(project / "verdicts.db") as connection,
    ):
        return dict(connection.execute("SELECT property || network, created FROM verdicts"))
    return {}


# The tests of this file follow one story: each goes on where the one before ended.


def test_an_empty_project_has_nothing_to_compare(
    project: Path, environment: dict[str, str]
) -> None:
    error = error_of(certiflow(project, environment, "compare"))
    assert "experiment certiflow: there is none" in error
    assert "make run-flow" in error
    error = error_of(certiflow(project, environment, "rollback", "--reason", "x"))
    assert "none yet" in error


def test_killed_in_the_middle_of_verification_the_next_run_goes_on(
    project: Path, environment: dict[str, str]
) -> None:
    with started(project, environment, "retrain", *SLOW) as process:
        while len(stored(project)) < 5:
            assert process.poll() is None, process.communicate(0)
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = stored(project)
    assert 5 <= len(before) < 32
    result = certiflow(project, environment, "retrain", *SLOW, "--json", "retrained.json")
    assert result.returncode == 0, result.stderr
    after = stored(project)
    assert {key: after[key] for key in before} == before  # none was computed again
    assert len(after) > len(before)
    retrained = json.loads((project / "retrained.json").read_text())
    assert retrained["decision"]["decision"] == "promoted"
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("certiflow").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED", "KILLED"]


def test_compare_prints_and_writes_the_table(project: Path, environment: dict[str, str]) -> None:
    result = certiflow(project, environment, "compare", "--json", "c.json", "--csv", "c.csv")
    assert result.returncode == 0, result.stderr
    assert "1 champion" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    (compared,) = json.loads((project / "c.json").read_text())
    (row,) = compared["rows"]
    table = pd.read_csv(project / "c.csv")
    assert table["clean_accuracy"].tolist() == [row["measures"]["clean_accuracy"]]
    assert (compared["dataset"], compared["champion"], compared["epsilon"]) == ("digits", 1, 0.05)


def test_report_says_where_the_page_is(project: Path, environment: dict[str, str]) -> None:
    result = certiflow(project, environment, "report", "certiflow-digits@champion")
    assert result.returncode == 0, result.stderr
    page = project / result.stdout.split()[1]
    assert page.name == "report.html"
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    "options",
    [["compare", "--csv"], ["compare", "--json"], ["report", "1", "--output"]],
)
def test_files_of_options_may_be_devices_pipes_and_links(
    options: list[str], project: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    node, link, pipe = device(tmp_path, "null"), tmp_path / "link", tmp_path / "pipe"
    link.symlink_to("target")
    os.mkfifo(pipe)
    for path in (node, link):
        result = certiflow(project, environment, *options, str(path))
        assert result.returncode == 0, result.stderr
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        assert certiflow(project, environment, *options, str(pipe)).returncode == 0
        received = reader.communicate()[0]
    assert is_device(node)
    assert pipe.is_fifo()
    assert link.is_symlink()
    for text in (received, (tmp_path / "target").read_text()):
        assert "digits" in text
    assert {path.name for path in tmp_path.iterdir()} == {"null", "link", "target", "pipe"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promote", "--version", "1", "--force"], "--reason"),
        (["promote", "--version", "1", "--reason", "why"], "--force"),
        (["rollback"], "--reason"),
        (["report"], "RUN"),
        (["ui", "--port", "65536"], "--port"),
        (["serve", "--port", "0"], "--port"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said in misuse(monkeypatch, *arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["retrain", *SMOKE, "--set", "data.dataset=gone.npz"], "gone.npz: no such file"),
        (["retrain", *SMOKE, "--set", "data.dataset=cifar"], "data.dataset is 'cifar'"),
        (["report", "1", "--output", "/proc/x.html"], "--output /proc/x.html"),
    ],
)
def test_what_a_user_can_cause_is_one_line(
    arguments: list[str], said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with flow_project(project):
        assert said in refusal(monkeypatch, *arguments)


def test_a_schedule_that_is_none_is_one_line(project: Path, environment: dict[str, str]) -> None:
    result = certiflow(project, environment, "serve", *SMOKE, "--cron", "every night")
    assert "--cron is 'every night'" in error_of(result)


def test_a_store_of_another_schema_is_named_with_the_remedy(
    project: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    shutil.copy(project / "mlflow.db", tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'cfd24bdc0731'")
    error = error_of(certiflow(tmp_path, environment, "compare"))
    assert "written by another version of MLflow" in error
    assert "mlflow db upgrade sqlite:///mlflow.db" in error
