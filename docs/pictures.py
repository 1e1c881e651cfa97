"""Makes the pictures of README and docs: `python docs/pictures.py [run|study]`, both by default.

`run`: of the newest finished run in the project's store, which must hold a report page (`certiflow
report`); needs Chromium (`CHROMIUM`, default `chromium`). `study`: of the newest finished study.
The figures of critical radii are those of two runs of `certiflow radius`, and the exact curve is
that of a run of `conf/mnist_exact.yaml`, copied by hand.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

IMAGES = Path(__file__).parent / "images"
START_SECONDS = 90


def main() -> None:
    """Copies the figures and photographs the run's page."""
    IMAGES.mkdir(exist_ok=True)
    from mlflow import MlflowClient

    from tasks.tracking import open_store

    open_store()
    client = MlflowClient()
    for what in sys.argv[1:] or ("run", "study"):
        {"run": pictures_of_run, "study": pictures_of_study}[what](client)


def pictures_of_run(client: MlflowClient) -> None:
    """Curve, examples, report and MLflow's page of the newest run that is no study."""
    run = newest(client, "tags.study IS NULL")
    copy_figures(client, run, ("robustness_curve.png", "adversarial_examples.png"))
    report = Path(client.download_artifacts(run.info.run_id, "report.html"))
    photograph(report.as_uri(), "1150,1500", IMAGES / "report.png")
    page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    photograph_ui(f"{page}?workflowType=machine_learning", IMAGES / "mlflow_run.png")


def pictures_of_study(client: MlflowClient) -> None:
    """Curves of the newest study."""
    copy_figures(client, newest(client, "tags.study IS NOT NULL"), ("curves.png",))


def newest(client: MlflowClient, condition: str) -> Run:
    """The newest finished run for which it holds."""
    experiment = client.get_experiment_by_name("certiflow")
    finished = f"attributes.status = 'FINISHED' AND {condition}"
    runs = experiment and client.search_runs([experiment.experiment_id], finished, max_results=1)
    if not runs:
        sys.exit(f"no finished run with {condition}: make one first (make run-flow, or a study)")
    return runs[0]


def copy_figures(client: MlflowClient, run: Run, names: Sequence[str]) -> None:
    """Into the folder of images."""
    for name in names:
        found = client.download_artifacts(run.info.run_id, f"figures/{name}")
        shutil.copyfile(found, IMAGES / name)


def photograph_ui(page: str, path: Path) -> None:
    """A page of MLflow's UI."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "flows.command.cli", "ui", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        photograph(f"http://127.0.0.1:{port}/{page}", "1600,1250", path)
    finally:
        server.terminate()
        server.wait()


def photograph(url: str, size: str, path: Path) -> None:
    """A page in headless Chromium."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                os.environ.get("CHROMIUM", "chromium"),
                *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update"),
                *("--disable-sync", "--virtual-time-budget=15000", f"--window-size={size}"),
                *("--hide-scrollbars", f"--user-data-dir={profile}", f"--screenshot={path}", url),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )


def wait_for(url: str) -> None:
    """Until the URL answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


if __name__ == "__main__":
    main()
