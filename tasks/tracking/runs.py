"""One MLflow run: what is written to it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import yaml
from mlflow import MlflowClient
from mlflow.data.numpy_dataset import from_numpy
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict

from tasks import console
from tasks.core.data.datasets import Dataset
from tasks.settings import ModelSettings, Settings, decimal
from tasks.tracking.descriptions import shortened
from tasks.tracking.store import open_store

if TYPE_CHECKING:
    import keras


FLOW_RUN_TAG = "prefect.flow_run_id"
WARNING_PREFIX = "warning."  # of tags
PARENT_TAG = "mlflow.parentRunId"
COMMAND_TAG, LIBRARIES_TAG = "command", "libraries"  # what made a run
INVOCATION_TAG = "invocation"  # of one `certiflow` process


class RunRef(BaseModel):
    """An MLflow run, its name and the local folder that holds the same files.

    `url` is the run's page, or where it lies below the UI's address, wherever that is served.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    name: str
    folder: Path
    url: str


class Run:
    """Logging to one run; usable from any process and thread."""

    def __init__(self, ref: RunRef) -> None:
        self.ref = ref
        self._client = MlflowClient()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Scalars, in one batch."""
        now = int(time.time() * 1000)
        metrics = [Metric(key, float(value), now, step) for key, value in values.items()]
        self._client.log_batch(self.ref.run_id, metrics=metrics)

    def per_epsilon(self, name: str, values: Mapping[float, float], *, curve: bool = False) -> None:
        """A scalar `name/eps_…` per radius; with `curve` also `name` with step = 1000 epsilon."""
        now = int(time.time() * 1000)
        metrics = [
            Metric(f"{name}/eps_{decimal(epsilon)}", float(value), now, 0)
            for epsilon, value in values.items()
        ]
        if curve:
            family = name.split("/", maxsplit=1)[0]
            for epsilon, value in values.items():
                metrics.append(Metric(name, float(value), now, round(1000 * epsilon)))
                metrics.append(Metric(f"{family}/epsilon", epsilon, now, round(1000 * epsilon)))
        self._client.log_batch(self.ref.run_id, metrics=metrics)

    def tags(self, values: Mapping[str, Any]) -> None:
        """Tags, in one batch."""
        tags = [RunTag(key, str(value)) for key, value in values.items()]
        self._client.log_batch(self.ref.run_id, tags=tags)

    def alert(self, topic: str, text: str) -> None:
        """Something that whoever reads the run must know: on the terminal, and as a tag."""
        console.warn(text)
        self.tags({f"{WARNING_PREFIX}{topic}": text})

    def alerts(self) -> list[str]:
        """The texts of all alerts so far."""
        tags = self._client.get_run(self.ref.run_id).data.tags
        return [text for key, text in sorted(tags.items()) if key.startswith(WARNING_PREFIX)]

    def settings(self, settings: Settings | ModelSettings) -> None:
        """The settings as params, and as the file that repeats the run."""
        params = [Param(key, str(value)) for key, value in settings.flat().items()]
        self._client.log_batch(self.ref.run_id, params=params)
        path = self.ref.folder / "config.yaml"
        path.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
        self.files("", path)

    def rename(self, old: str, new: str) -> None:
        """Replaces a part of the run's name, its folder's included."""
        name = self.ref.name.replace(old, new)
        folder = self.ref.folder.rename(self.ref.folder.with_name(name))
        self.ref = self.ref.model_copy(update={"name": name, "folder": folder})
        self.tags({"mlflow.runName": name})

    def describe(self, markdown: str) -> None:
        """The description that the run's page shows."""
        self.tags({"mlflow.note.content": markdown})

    def files(self, folder: str, *paths: Path) -> None:
        """Local files as artifacts under `folder` ('' for the root)."""
        for path in paths:
            self._client.log_artifact(self.ref.run_id, str(path), folder or None)

    def folder(self, name: str) -> None:
        """A folder of the run's, if there is one, with all that it holds: faster than by file."""
        path = self.ref.folder / name
        if path.is_dir():
            self._client.log_artifacts(self.ref.run_id, str(path), name)

    def dataset(self, data: Dataset) -> None:
        """The dataset as an MLflow input: the test set's arrays with the content's digest.

        In the block of `tracked_run`: MLflow takes the thread's active run.
        """
        source = from_numpy(
            data.test_inputs,
            targets=data.test_labels,
            name=data.name,
            digest=data.sha256[:16],
        )
        mlflow.log_input(source, context="train and test")

    def model(self, model: keras.Sequential, example: Any) -> str:
        """The Keras model with its signature and an input example; returns its MLflow id."""
        import mlflow.tensorflow
        from mlflow.models import infer_signature

        logits = np.asarray(model(example, training=False))
        info = mlflow.tensorflow.log_model(
            model,
            name="model",
            signature=infer_signature(example, logits),
            input_example=example,
            pip_requirements=[f"{name}=={version(name)}" for name in ("tensorflow", "numpy")],
        )
        return str(info.model_id)

    def model_file(self, path: Path, example: Any) -> str:
        """The model in a Keras or ONNX file, as `model` logs one; returns its MLflow id.

        The signature of an ONNX model says its inputs: its outputs, such as a map by label, may be
        nothing that MLflow has a word for.
        """
        if path.suffix == ".keras":
            import keras

            loaded = keras.models.load_model(path, compile=False, safe_mode=True)
            return self.model(loaded, example)
        import mlflow.onnx
        import onnx
        from mlflow.models import infer_signature

        info = mlflow.onnx.log_model(
            onnx.load(path),
            name="model",
            signature=infer_signature(example),
            input_example=example,
            pip_requirements=[f"{name}=={version(name)}" for name in ("onnxruntime", "numpy")],
        )
        return str(info.model_id)

    def register(self, model_id: str, name: str, tags: Mapping[str, Any], description: str) -> str:
        """A new version of the registered model `name` with its key numbers as tags."""
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        registered = self._client.create_model_version(
            name,
            source=f"models:/{model_id}",
            run_id=self.ref.run_id,
            model_id=model_id,
            tags={key: str(value) for key, value in tags.items()},
            description=shortened(description),
        )
        return str(registered.version)

    def finish(self, status: str) -> None:
        """Ends the run as FAILED or KILLED."""
        self._client.set_terminated(self.ref.run_id, status)


def log_text(run_id: str, text: str, name: str) -> None:
    """Logs a text on a run that is over, as a file of the name given."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_text(text, encoding="utf-8")
        log_file(run_id, file)


def log_file(run_id: str, path: Path) -> None:
    """Logs a file on a run that may be over, under its own name."""
    open_store()
    MlflowClient().log_artifact(run_id, str(path))


def mark_killed(tag: str, value: str) -> list[str]:
    """Marks the runs with this tag KILLED that are still said to be running.

    For a process that died without a word. Returns the Prefect flow runs' ids.
    """
    open_store()
    client = MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(
        experiments,
        f"tags.`{tag}` = '{value}' and attributes.status = 'RUNNING'",
        ViewType.ACTIVE_ONLY,
    )
    for run in runs:
        client.set_tag(run.info.run_id, "failure", "the process was killed")
        client.set_terminated(run.info.run_id, "KILLED")
    return [run.data.tags[FLOW_RUN_TAG] for run in runs]
