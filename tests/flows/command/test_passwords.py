"""A password in a URI opens the servers, and is nowhere afterwards."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.basic_auth import PASSWORD, guarded
from tests.command import certiflow, clean_environment, error_of, with_settings
from tests.local_servers import mlflow_server, prefect_server

RUN = ["run", "--conf", "conf/smoke.yaml"]
NOBODY = f"alice:{PASSWORD}@127.0.0.1:9"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> dict[str, str]:
    return clean_environment(tmp_path_factory.mktemp("prefect"), PREFECT_API_URL=prefect_api)


@dataclass(frozen=True)
class Finished:
    """What two commands said, and the folder that holds all they and the servers wrote."""

    run: subprocess.CompletedProcess[str]
    report: subprocess.CompletedProcess[str]
    folder: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """A smoke run and its report, with both servers behind proxies that ask for the password."""
    folder = tmp_path_factory.mktemp("folder")
    for name in ("project", "mlflow"):
        (folder / name).mkdir()
    project = with_settings(folder / "project")
    with (
        mlflow_server(folder / "mlflow") as mlflow_port,
        prefect_server(folder / "prefect") as prefect_port,
        guarded(mlflow_port) as mlflow,
        guarded(prefect_port) as prefect,
    ):
        urls = {
            "MLFLOW_TRACKING_URI": f"http://{mlflow}",
            "PREFECT_API_URL": f"http://{prefect}/api",
        }
        shared = clean_environment(folder / "client", **urls)
        run = certiflow(project, shared, *RUN, "--json", "out.json")
        yield Finished(run, certiflow(project, shared, "report", "1"), folder)


def test_password_opens_both_servers(finished: Finished) -> None:
    assert finished.run.returncode == 0, finished.run.stderr
    assert finished.report.returncode == 0, finished.report.stderr
    with sqlite3.connect(finished.folder / "prefect/prefect.db") as store:
        states = store.execute("select state_type from flow_run").fetchall()
        tasks = store.execute("select count(*) from task_run").fetchone()[0]
    assert states == [("COMPLETED",)]
    assert tasks > 5  # they are reported over a websocket


def test_password_is_nowhere(finished: Finished) -> None:
    said = "".join(each.stdout + each.stderr for each in (finished.run, finished.report))
    assert PASSWORD not in said
    url = json.loads((finished.folder / "project/out.json").read_text())["url"]
    assert url.startswith("http://127.0.0.1:")
    assert url in finished.run.stdout
    written = [path for path in finished.folder.rglob("*") if path.is_file()]
    assert {"server.db", "prefect.db", "report.html", "config.yaml"} <= {p.name for p in written}
    holding = [str(path) for path in written if PASSWORD.encode() in path.read_bytes()]
    assert holding == []


@pytest.mark.parametrize(
    ("name", "value", "arguments"),
    [
        ("MLFLOW_TRACKING_URI", f"http://{NOBODY}/", ["compare"]),
        ("MLFLOW_TRACKING_URI", f"http://{NOBODY}", ["ui"]),
        ("MLFLOW_TRACKING_URI", f"nonsense://{NOBODY}", ["compare"]),
        ("MLFLOW_TRACKING_URI", f"nonsense://{NOBODY}", ["ui"]),
        ("PREFECT_API_URL", f"http://{NOBODY}/api", RUN),
        ("CERTIFLOW_DATASET_MIRROR", f"ftp://{NOBODY}", ["reproduce", "reluplex"]),
        ("CERTIFLOW_DATASET_MIRROR", f"http://{NOBODY}", ["reproduce", "reluplex"]),
        ("NOTHING", "", [*RUN, "--set", f"verification.cluster=tcp://{NOBODY}"]),
        ("NOTHING", "", [*RUN, "--set", f"data.dataset=http://{NOBODY}/x.npz"]),
        ("NOTHING", "", [*RUN, "--set", f"data.dataset=http://{NOBODY}/x"]),
        ("NOTHING", "", [*RUN, "--set", f"seed=http://{NOBODY}/x"]),
        ("NOTHING", "", [*RUN, "--set", f"http://{NOBODY}"]),
        ("NOTHING", "", [*RUN, "--json", f"http://{NOBODY}/x"]),
        ("NOTHING", "", ["verify", "--model", f"http://{NOBODY}/m", "--property", "p.vnnlib"]),
        (
            *("NOTHING", ""),
            ["verify", "--model", f"http://{NOBODY}/m", "--data", "digits", "--epsilon", "0.1"],
        ),
    ],
)
def test_errors_are_one_line_without_the_password(
    tmp_path: Path, environment: dict[str, str], name: str, value: str, arguments: list[str]
) -> None:
    # a closed proxy: the public mirrors must not be asked by a test
    closed = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1", name: value}
    result = certiflow(with_settings(tmp_path), environment | closed, *arguments)
    assert error_of(result)
    assert PASSWORD not in result.stdout + result.stderr
    for path in tmp_path.iterdir():
        assert path.name == "conf" or path.is_dir() or PASSWORD.encode() not in path.read_bytes()
