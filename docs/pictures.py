"""Makes the README's pictures from the newest finished run: `python docs/pictures.py`.

Needs a run in the project's store that holds a report page (`certiflow report`), and Chromium
(`CHROMIUM`, default `chromium`).
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
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
START_SECONDS = 90


def main() -> None:
    """Copies the figures and photographs the run's page."""
    IMAGES.mkdir(exist_ok=True)
    from mlflow import MlflowClient

    from tasks.tracking import open_store

    open_store()
    client = MlflowClient()
    experiment = client.get_experiment_by_name("certiflow")
    (run,) = client.search_runs(
        [experiment.experiment_id], "attributes.status = 'FINISHED'", max_results=1
    )
    for name in ("robustness_curve.png", "adversarial_examples.png"):
        shutil.copyfile(
            client.download_artifacts(run.info.run_id, f"figures/{name}"), IMAGES / name
        )
    report = Path(client.download_artifacts(run.info.run_id, "report.html"))
    photograph(report.as_uri(), "1000,1500", IMAGES / "report.png")
    page = f"#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}"
    photograph_ui(page, IMAGES / "mlflow_run.png")


def photograph_ui(page: str, path: Path) -> None:
    """A page of MLflow's UI."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "ui", "--port", str(port)],
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
