"""Everything that is written to MLflow; the only module that imports it."""

from __future__ import annotations

import atexit
import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import yaml
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.data.numpy_dataset import from_numpy
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import SQLAlchemyError

from tasks.core.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.settings import ModelSettings, Settings, TrackingSettings, decimal

if TYPE_CHECKING:
    import keras

LOCAL_STORE = "sqlite:///mlflow.db"
LOCAL_ARTIFACTS = Path("mlartifacts")
MODEL_SUFFIXES = (".keras", ".onnx")
LOCAL_UI = "http://127.0.0.1:5000"  # where `make ui` serves the local store
STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError)  # gone, unreachable, or the disk is full


class RunRef(BaseModel):
    """An MLflow run, its name and the local folder that holds the same files."""

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

    def dataset(self, data: Dataset) -> None:
        """The dataset as an MLflow input: the test set's arrays with the content's digest."""
        source = from_numpy(
            data.test_images,
            targets=data.test_labels,
            name=data.name,
            digest=data.sha256[:16],
        )
        entity = DatasetInput(
            source._to_mlflow_entity(), tags=[InputTag("mlflow.data.context", "train and test")]
        )
        self._client.log_inputs(self.ref.run_id, datasets=[entity])

    def model(self, model: keras.Sequential, example: Any) -> str:
        """The Keras model with its signature and an input example; returns its MLflow id."""
        from importlib.metadata import version

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

    def register(self, model_id: str, name: str, tags: Mapping[str, Any], description: str) -> str:
        """A new version of the registered model `name` with its key numbers as tags."""
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = self._client.create_model_version(
            name,
            source=f"models:/{model_id}",
            run_id=self.ref.run_id,
            model_id=model_id,
            tags={key: str(value) for key, value in tags.items()},
            description=description,
        )
        return str(version.version)

    def finish(self, status: str) -> None:
        """Ends the run as FAILED or KILLED."""
        self._client.set_terminated(self.ref.run_id, status)


def downloaded_model(uri: str) -> Path:
    """The model file behind `models:/name@alias`, `models:/name/3` or `runs:/…`, in a copy.

    The copy is removed when this process ends. Raises `CertiflowError` when the store does not
    answer, has no such model, or holds no single Keras or ONNX file under it.
    """
    open_store()
    folder = Path(tempfile.mkdtemp(prefix="certiflow-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except Exception as error:  # unknown URI, gone files and dead servers share no class
        raise CertiflowError(
            f"{uri}: MLflow at {mlflow.get_tracking_uri()} cannot give this model "
            f"({_first_line(error)}); give models:/name@alias or models:/name/version"
        ) from error
    files = [found] if found.is_file() else sorted(found.rglob("*"))
    models = [path for path in files if path.suffix in MODEL_SUFFIXES]
    if len(models) != 1:
        names = ", ".join(path.name for path in models) or "none"
        raise CertiflowError(
            f"{uri}: expected one {' or '.join(MODEL_SUFFIXES)} file, found {names}"
        )
    return models[0]


def mark_killed(invocation: str) -> list[str]:
    """Marks the runs of one `certiflow` process KILLED that are still said to be running.

    Returns their Prefect flow runs' ids.
    """
    open_store()
    client = MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(
        experiments,
        f"tags.invocation = '{invocation}' and attributes.status = 'RUNNING'",
        ViewType.ACTIVE_ONLY,
    )
    for run in runs:
        client.set_tag(run.info.run_id, "failure", "the process was killed")
        client.set_terminated(run.info.run_id, "KILLED")
    return [run.data.tags["prefect.flow_run_id"] for run in runs]


@contextmanager
def tracked_run(slug: str, settings: TrackingSettings, tags: Mapping[str, Any]) -> Iterator[Run]:
    """A run over the block: FINISHED after it, FAILED or KILLED when it raises.

    What was logged before a failure stays. Opens the store first, so that one that cannot be
    reached fails before any work is done.

    Raises:
        CertiflowError: the store does not answer, or the output folder cannot be written.
    """
    run = _start(slug, settings, tags)
    try:
        # Logging a model needs the run to be this thread's active one.
        with mlflow.start_run(run_id=run.ref.run_id):
            yield run
    except BaseException as error:
        with suppress(*STORE_ERRORS):  # a store that is gone must not hide the failure
            run.tags({"failure": " ".join(str(error).split())[:500] or type(error).__name__})
            run.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        if isinstance(error, STORE_ERRORS):
            raise CertiflowError(
                f"{_first_line(error)}; what was done so far is in {run.ref.folder}"
            ) from error
        raise


def _start(slug: str, settings: TrackingSettings, tags: Mapping[str, Any]) -> Run:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
    name = f"{slug}-{stamp}"
    folder = settings.output.absolute() / name
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise CertiflowError(
            f"{folder}: {error.strerror}: make it writable, free some space, or choose another "
            "folder with tracking.output"
        ) from error
    open_store()
    uri = mlflow.get_tracking_uri()
    try:
        client = MlflowClient()
        experiment = _experiment_id(client, settings.experiment)
        origin = {"mlflow.user": getpass.getuser(), "mlflow.source.name": "certiflow run"}
        run = client.create_run(
            experiment,
            run_name=name,
            tags=origin | {key: str(value) for key, value in tags.items()},
        )
    except MlflowException as error:
        raise CertiflowError(
            f"MLflow at {uri} does not answer ({_first_line(error)}): start it, or unset "
            "MLFLOW_TRACKING_URI to use the project's own store"
        ) from error
    host = uri if uri.startswith("http") else LOCAL_UI
    run_id = run.info.run_id
    url = f"{host}/#/experiments/{experiment}/runs/{run_id}"
    return Run(RunRef(run_id=run_id, name=name, folder=folder, url=url))


def open_store() -> None:
    """Points MLflow at the project's own store, unless told otherwise, and initialises it once.

    Two processes that initialise one SQLite store at the same time would break it.
    """
    if not mlflow.is_tracking_uri_set():  # type: ignore[no-untyped-call]
        mlflow.set_tracking_uri(LOCAL_STORE)
    uri = mlflow.get_tracking_uri()
    if not uri.startswith("sqlite:///"):
        return
    database = Path(uri.removeprefix("sqlite:///"))
    try:
        with FileLock(database.with_name(f".{database.name}.lock"), timeout=120):
            MlflowClient().search_experiments(max_results=1)
    except OSError as error:
        raise CertiflowError(
            f"{database}: {error.strerror or error}: make the folder writable or set "
            "MLFLOW_TRACKING_URI"
        ) from error
    except (MlflowException, SQLAlchemyError) as error:
        raise CertiflowError(
            f"{database} cannot be used as MLflow's store ({_first_line(error)}): free some space, "
            "or move it away"
        ) from error


def serve_ui(port: int) -> None:
    """Replaces this process by MLflow's server on loopback over the store in use."""
    open_store()
    if mlflow.get_tracking_uri().startswith("http"):
        raise CertiflowError(
            f"MLFLOW_TRACKING_URI is a server: open {mlflow.get_tracking_uri()}, or unset it to "
            "see the project's own store"
        )
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise CertiflowError(f"port {port} is in use: choose another one, make ui PORT=5001")
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", mlflow.get_tracking_uri(), "--workers", "1"),
        *("--artifacts-destination", LOCAL_ARTIFACTS.absolute().as_uri()),
    ]
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    print(f"MLflow's UI on http://127.0.0.1:{port} in some seconds; Ctrl-C ends it", flush=True)
    os.execv(sys.executable, command)


def _experiment_id(client: MlflowClient, name: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    local = mlflow.get_tracking_uri() == LOCAL_STORE
    location = LOCAL_ARTIFACTS.absolute().as_uri() if local else None
    try:
        # The UI then opens on training runs rather than on its pages for language models.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(name, artifact_location=location, tags=kind))
    except MlflowException as error:
        known = client.get_experiment_by_name(name)  # another process was faster
        if known is None:
            raise error
        return str(known.experiment_id)


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


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
