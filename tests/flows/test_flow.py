"""The whole flow on real digits: what MLflow and Prefect hold afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import mlflow.tensorflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
)

from flows.configuration import load_settings
from flows.robustness import robustness_flow
from tasks.core.errors import CertiflowError
from tasks.core.models import loading
from tasks.core.sources.download import MIRROR_VARIABLE
from tasks.core.training.checkpoints import Checkpoint
from tasks.presentation.records import Summary
from tests.flow_project import flow_project, smoke
from tests.local_servers import mlflow_server


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[Path]:
    with flow_project(tmp_path_factory.mktemp("project")) as folder:
        yield folder


@pytest.fixture(scope="module")
def models_read() -> list[Path]:
    """The Keras files that the run of `summary` has read."""
    return []


@pytest.fixture(scope="module")
def summary(project: Path, models_read: list[Path]) -> Summary:
    read = loading._LOADERS[".keras"]

    def counted(path: Path, whole: bool) -> loading.LoadedModel:
        models_read.append(path)
        return read(path, whole)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(loading._LOADERS, ".keras", counted)
        return robustness_flow(smoke())


@pytest.fixture(scope="module")
def run(summary: Summary) -> Run:
    return MlflowClient().get_run(summary.run_id)


def artifacts(run_id: str) -> set[str]:
    client, found, folders = MlflowClient(), set(), [""]
    while folders:
        for entry in client.list_artifacts(run_id, folders.pop()):
            (folders.append if entry.is_dir else found.add)(entry.path)
    return found


def test_run_is_finished_and_named(summary: Summary, run: Run) -> None:
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("digits-dense-16-")
    assert MlflowClient().get_experiment(run.info.experiment_id).name == "certiflow"


def test_stages_share_one_model(summary: Summary, models_read: list[Path]) -> None:
    assert len(models_read) == 1


def test_scalars_for_every_radius(summary: Summary, run: Run) -> None:
    metrics = run.data.metrics
    for eps in ("0", "0.05", "0.1"):
        chain = [
            metrics[f"bounds/certified_accuracy/eps_{eps}"],
            metrics[f"pgd/robust_accuracy/eps_{eps}"],
            metrics[f"fgsm/robust_accuracy/eps_{eps}"],
            metrics["clean_accuracy"],
        ]
        assert chain == sorted(chain)
    assert metrics["fgsm/robust_accuracy/eps_0"] == metrics["clean_accuracy"]
    for eps in ("0.01", "0.05"):
        verdicts = ("robust", "falsified", "unknown", "timeout", "error")
        counts = [metrics[f"verification/{verdict}/eps_{eps}"] for verdict in verdicts]
        assert sum(counts) == 5
        assert metrics[f"verification/error/eps_{eps}"] == 0
        certified = metrics[f"verification/certified_accuracy/eps_{eps}"]
        assert certified == counts[0] / 5
        deployed = metrics[f"verification/certified_deployed_accuracy/eps_{eps}"]
        assert certified / 2 < deployed <= certified  # margins on the digits are far from rounding
        assert metrics[f"verification/witnessed_only/eps_{eps}"] <= counts[2]
    assert metrics["train/seconds"] > 0
    assert metrics["verification/seconds"] > 0


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("fgsm/robust_accuracy", [0, 50, 100]),
        ("fgsm/epsilon", [0, 50, 100]),
        ("verification/certified_accuracy", [10, 50]),
        ("train/loss", [1, 2, 3]),
    ],
)
def test_curves_have_integer_steps(summary: Summary, name: str, steps: list[int]) -> None:
    history = MlflowClient().get_metric_history(summary.run_id, name)
    assert sorted(point.step for point in history) == steps
    if name == "fgsm/epsilon":
        assert sorted(point.value for point in history) == [0, 0.05, 0.1]


def test_params_tags_and_input(summary: Summary, run: Run) -> None:
    assert run.data.params["training.hidden"] == "[16]"
    assert run.data.params["verification.engine"] == "ladder"
    tags = run.data.tags
    assert tags["dataset"] == tags["dataset.requested"] == "digits"
    assert tags["seed"] == "0"
    for name in ("dataset.sha256", "git.commit", "prefect.flow_run_id", "model.sha256"):
        assert tags[name]
    assert "| epsilon | FGSM | PGD | certified |" in tags["mlflow.note.content"]
    (entry,) = run.inputs.dataset_inputs
    assert entry.dataset.name == "digits"
    assert tags["dataset.sha256"].startswith(entry.dataset.digest)
    assert {tag.key: tag.value for tag in entry.tags} == {"mlflow.data.context": "train and test"}
    assert "tensorflow 2." in tags["libraries"]


def test_descriptions_lead_to_the_run_at_whatever_port(summary: Summary, run: Run) -> None:
    version = MlflowClient().get_model_version("certiflow-digits", summary.model_version)
    page = f"/#/experiments/{run.info.experiment_id}/runs/{summary.run_id}"
    place = f"{page}?workflowType=machine_learning"
    assert summary.url == place
    for text in (run.data.tags["mlflow.note.content"], version.description):
        assert f"MLflow run: {summary.run_name} (make ui, then {place}" in text
        assert "http" not in text
        assert "5 sampled points" in text
        assert re.search(r"\d% \[\d+-\d+%\]", text)


def test_artifacts(summary: Summary, project: Path) -> None:
    names = artifacts(summary.run_id)
    assert {
        "config.yaml",
        "data_card.md",
        "tables/epsilon_grid.csv",
        "tables/verification.csv",
        "figures/robustness_curve.png",
        "figures/adversarial_examples.png",
    } <= names
    folder = Path(summary.folder)
    assert Path(summary.figure).read_bytes().startswith(b"\x89PNG")
    assert load_settings(folder / "config.yaml")[0] == smoke()
    table = pd.read_csv(folder / "tables/verification.csv")
    columns = ["sample_index", "label", "epsilon", "verdict", "decided_by", "target", "seconds"]
    assert list(table.columns[:7]) == columns
    assert len(table) == 10
    broken = table[(table["verdict"] == "falsified") & (table["decided_by"] != "clean")]
    for row in broken.itertuples():
        name = f"counterexamples/sample_{row.sample_index}_eps_{row.epsilon}.npz"
        assert name in names
        with np.load(folder / name, allow_pickle=False) as found:
            assert found["image"].dtype == np.float32
            assert found["predicted"] == row.target
    grid = pd.read_csv(folder / "tables/epsilon_grid.csv")
    assert {"epsilon", "clean_accuracy", "fgsm_accuracy"} <= set(grid.columns)


def test_logged_model_predicts_like_the_trained_one(summary: Summary, run: Run) -> None:
    version = MlflowClient().get_model_version("certiflow-digits", summary.model_version)
    assert version.run_id == summary.run_id
    assert float(version.tags["clean_accuracy"]) == round(summary.clean_accuracy, 4)
    assert "fgsm/robust_accuracy/eps_0.1" in version.tags
    assert "verification/certified_accuracy/eps_0.05" in version.tags
    uri = f"models:/certiflow-digits/{summary.model_version}"
    info = mlflow.models.get_model_info(uri)
    assert info.signature is not None
    assert info.saved_input_example_info is not None
    from tasks.core.sources import catalogue

    digits = catalogue.load("digits", Path("unused"))
    logits = mlflow.pyfunc.load_model(uri).predict(digits.test_inputs)
    accuracy = (np.asarray(logits).argmax(axis=1) == digits.test_labels).mean()
    assert accuracy == pytest.approx(summary.clean_accuracy)


def test_prefect_holds_the_story(summary: Summary, run: Run) -> None:
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(run.data.tags["prefect.flow_run_id"])
        only = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
        keys = ["certiflow-report", "certiflow-epsilon-grid", "certiflow-mlflow-run"]
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=keys)),
            flow_run_filter=only,
        )
        task_runs = client.read_task_runs(flow_run_filter=only)
    assert flow_run.name == "digits dense-16"
    assert flow_run.state is not None
    assert flow_run.state.is_completed()
    assert {artifact.key for artifact in found} == set(keys)
    assert any(summary.run_id in str(artifact.data) for artifact in found)
    names = {task_run.name.split()[0].split("-")[0] for task_run in task_runs}
    assert {"download", "train", "fgsm", "pgd", "masking", "bounds", "verify", "report"} <= names


def last_run() -> Run:
    (latest,) = mlflow.search_runs(
        experiment_names=["certiflow"], max_results=1, output_format="list"
    )
    return latest


@pytest.mark.parametrize(
    ("overrides", "said", "kept"),
    [
        (["verification.samples=361"], "expected at most 360", "config.yaml"),
        (["training.learning_rate=1e38"], "lower training.learning_rate", "config.yaml"),
    ],
)
def test_failure_marks_the_run_and_keeps_what_was_done(
    overrides: list[str], said: str, kept: str
) -> None:
    with pytest.raises(CertiflowError, match=said):
        robustness_flow(smoke(*overrides))
    failed = last_run()
    assert failed.info.status == "FAILED"
    assert said in failed.data.tags["failure"]
    assert kept in artifacts(failed.info.run_id)


def test_failure_in_the_middle_keeps_model_and_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise CertiflowError("the solver is gone")

    monkeypatch.setattr("tasks.core.verification.local_robustness.verify", fail)
    with pytest.raises(CertiflowError, match="the solver is gone"):
        robustness_flow(smoke())
    failed = last_run()
    assert failed.info.status == "FAILED"
    assert "fgsm/robust_accuracy/eps_0.1" in failed.data.metrics
    assert "figures/adversarial_examples.png" in artifacts(failed.info.run_id)


def test_interruption_marks_the_run_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.core.verification.local_robustness.verify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        robustness_flow(smoke())
    assert last_run().info.status == "KILLED"


def test_fallback_is_loud_and_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, tmp_path.as_uri())
    monkeypatch.setattr("tasks.core.sources.catalogue.SOURCES", without_mirrors())
    monkeypatch.setattr("tasks.core.sources.download.SOURCES", without_mirrors())
    settings = smoke("data.dataset=mnist", "data.fallback=digits", f"data.cache={tmp_path}/cache")
    summary = robustness_flow(settings)
    assert (summary.dataset, summary.dataset_requested) == ("digits", "mnist")
    tags = last_run().data.tags
    assert (tags["dataset"], tags["dataset.requested"]) == ("digits", "mnist")
    assert tags["mlflow.runName"].startswith("digits-dense-16")
    assert Path(summary.folder).name == tags["mlflow.runName"] == summary.run_name


def without_mirrors() -> dict[str, Any]:
    from dataclasses import replace

    from tasks.core.sources.catalogue import SOURCES

    mnist = SOURCES["mnist"]
    files = tuple(replace(file, addresses=()) for file in mnist.files)
    return SOURCES | {"mnist": replace(mnist, files=files)}  # type: ignore[type-var]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with mlflow_server(tmp_path) as port:
        yield f"http://127.0.0.1:{port}"


def test_everything_is_accepted_by_a_server(server: str, project: Path) -> None:
    mlflow.set_tracking_uri(server)
    try:
        summary = robustness_flow(smoke())
        run = MlflowClient().get_run(summary.run_id)
        version = MlflowClient().get_model_version("certiflow-digits", summary.model_version)
        assert summary.url.startswith(server)
        assert f"[{summary.run_name}]({summary.url})" in run.data.tags["mlflow.note.content"]
        assert run.info.status == "FINISHED"
        assert "figures/robustness_curve.png" in artifacts(summary.run_id)
        assert version.run_id == summary.run_id
    finally:
        mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")


def test_interrupted_training_goes_on_in_the_next_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed after its second epoch, resumed, and in the end the network of one that was not."""
    settings = smoke("seed=11")
    save = Checkpoint.save

    def save_and_die(state: Checkpoint, path: Path) -> None:
        save(state, path)
        if len(state.history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            robustness_flow(settings)
    (left,) = Path("checkpoints").glob("*.npz")
    capsys.readouterr()
    resumed = robustness_flow(settings)
    assert f"goes on from {left}" in capsys.readouterr().err
    assert not left.exists()
    whole = robustness_flow(settings, fresh=True)
    models = (
        mlflow.tensorflow.load_model(f"models:/certiflow-digits/{each.model_version}")
        for each in (resumed, whole)
    )
    for first, second in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(first, second)
    history = MlflowClient().get_metric_history(resumed.run_id, "train/loss")
    assert sorted(point.step for point in history) == [1, 2, 3]
