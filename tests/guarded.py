"""Registered versions that can be guarded, and a guard that serves them, as a user starts it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import yaml
from mlflow import MlflowClient

from tasks.core.data.datasets import Dataset
from tasks.core.guard import bundle
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.sources.catalogue import load
from tasks.tracking import GUARD_FOLDER
from tasks.tracking.scoring import describe_scoring
from tests.command import CERTIFLOW, clean_environment
from tests.local_servers import free_port

START_SECONDS = 120.0
MODEL = "certiflow-digits"


def digits(folder: Path) -> Dataset:
    """The bundled ones."""
    return load("digits", folder / "cache")


def class_means(data: Dataset, order: int = 1) -> ReluNetwork:
    """A linear classifier by the nearest class mean, right on most digits.

    With `order` -1 it gives each class the label of its opposite: 9 for 0.
    """
    inputs = data.train_inputs.reshape(len(data.train_inputs), -1).astype(np.float64)
    means = np.stack([inputs[data.train_labels == label].mean(axis=0) for label in range(10)])
    means = means[::order]
    pixels = Affine(np.eye(64), np.zeros(64))  # pixels are not negative: the ReLU passes them
    return ReluNetwork((pixels, Affine(2 * means, -(means**2).sum(axis=1))))


def register(project: Path, network: ReluNetwork, data: Dataset, name: str = MODEL) -> int:
    """A version in the project's own store, as a run registers one; the first is champion."""
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    try:
        client = MlflowClient()
        known = client.get_experiment_by_name("guard")
        place = (project / "mlartifacts").as_uri()
        experiment = known.experiment_id if known else client.create_experiment("guard", place)
        run = client.create_run(experiment)
        files = bundle.write(project / "files", network, data, (0.02,), seed=0)
        for file in [*files, describe_scoring(project / "files", 0.02)]:
            client.log_artifact(run.info.run_id, str(file), GUARD_FOLDER)
        with suppress(mlflow.MlflowException):
            client.create_registered_model(name)
        source = f"runs:/{run.info.run_id}/model"
        number = int(client.create_model_version(name, source, run.info.run_id).version)
        if number == 1:
            client.set_registered_model_alias(name, "champion", "1")
        return number
    finally:
        mlflow.set_tracking_uri(None)


def move_champion(project: Path, number: int, name: str = MODEL) -> None:
    """As a promotion does."""
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    MlflowClient().set_registered_model_alias(name, "champion", str(number))
    mlflow.set_tracking_uri(None)


class Guard:
    """A running guard."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url
        self.client = httpx.Client(base_url=url, timeout=60)

    def post(self, path: str, content: Any, **headers: str) -> httpx.Response:
        return self.client.post(path, json=content, headers=headers)

    def predict(self, inputs: np.ndarray, **headers: str) -> dict[str, Any]:
        """The answer to a request that is not refused."""
        response = self.post("/predict", {"inputs": inputs.tolist()}, **headers)
        assert response.status_code == 200, response.text
        return response.json()

    def metric(self, line: str) -> float:
        """The value in the line of `/metrics` that begins so; 0 where there is none."""
        text = self.client.get("/metrics").text
        found = [each for each in text.splitlines() if each.startswith(line)]
        return sum(float(each.rpartition(" ")[2]) for each in found)

    def readiness(self) -> dict[str, Any]:
        return self.client.get("/v2/health/ready").json()


@contextmanager
def guarding(project: Path, settings: Mapping[str, Any], **environment: str) -> Iterator[Guard]:
    """`certiflow guard` in the project's folder, answering, for the time of the block."""
    port = free_port()
    conf = project / f"guard-{port}.yaml"
    conf.write_text(yaml.safe_dump({"port": port, "follow_seconds": 0.3, **settings}))
    with subprocess.Popen(
        [*CERTIFLOW, "guard", "--conf", str(conf)],
        cwd=project,
        env=clean_environment(project / "prefect", **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        guard = Guard(process, f"http://127.0.0.1:{port}")
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(guard):
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline, "the guard does not answer"
                time.sleep(0.1)
            yield guard
        finally:
            guard.client.close()
            process.kill()


def _answers(guard: Guard) -> bool:
    with suppress(httpx.HTTPError):
        return guard.client.get("/v2/health/live").is_success
    return False


def until(holds: Any, what: str, seconds: float = 60.0) -> None:
    """Waits until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
