"""The scheduled flow on a data set that changes: what is new, what is done, what is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray

from flows.retraining import mark_failure, retrain_flow
from tasks import tracking
from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.data import load_checked
from tasks.presentation.records import RetrainSummary
from tasks.settings import Settings
from tasks.tracking import RegisteredModel
from tests.flow_project import flow_project, smoke

MODEL = "certiflow-meters"


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[Path]:
    with flow_project(tmp_path_factory.mktemp("project")) as folder:
        yield folder


def write(images: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """The data set `meters`, of which the last fifth is for testing."""
    cut = len(labels) * 4 // 5
    np.savez(
        "meters.npz",
        train_images=images[:cut],
        train_labels=labels[:cut],
        test_images=images[cut:],
        test_labels=labels[cut:],
    )
    load_checked.cache_clear()  # a served run is a process of its own


def settings(*overrides: str) -> Settings:
    return smoke("data.dataset=meters.npz", "training.epochs=10", *overrides)


@pytest.fixture(scope="module")
def first(project: Path, digits: Dataset) -> RetrainSummary:
    write(digits.train_inputs, digits.train_labels)
    return retrain_flow(settings())


# The tests of this file follow one story: each goes on where the one before ended.


def test_the_first_run_makes_the_champion(first: RetrainSummary) -> None:
    assert first.check.champion is None
    assert first.decision is not None
    assert first.decision.decision == "promoted"
    assert RegisteredModel(MODEL).aliases() == {"champion": 1}


def test_nothing_new_is_nothing_to_do(first: RetrainSummary) -> None:
    again = retrain_flow(settings("verification.workers=2", "tracking.output=elsewhere"))
    assert again.outcome.startswith("nothing to do: version 1 was trained on these data")
    assert (again.summary, again.decision, again.page) == (None, None, None)
    assert not again.check.changed
    assert len(RegisteredModel(MODEL).versions()) == 1


def test_other_settings_are_new(first: RetrainSummary) -> None:
    other = retrain_flow(settings("training.epochs=1"))
    assert other.decision is not None
    assert other.decision.decision == "refused"
    assert RegisteredModel(MODEL).aliases() == {"champion": 1, "challenger": 2}
    assert retrain_flow(settings("training.epochs=1")).check.judged == 2


def test_the_run_says_what_was_decided_and_holds_the_page(first: RetrainSummary) -> None:
    refused = MlflowClient().get_model_version(MODEL, "2")
    run = MlflowClient().get_run(refused.run_id)
    assert run.data.tags["promotion.decision"] == "refused"
    assert run.data.tags["data.check"] == "meters: the data are those of champion 1"
    assert run.data.metrics["data/drift_brightness"] == 0
    names = {entry.path for entry in MlflowClient().list_artifacts(run.info.run_id)}
    assert "report.html" in names


def test_force_trains_again(first: RetrainSummary) -> None:
    forced = retrain_flow(settings(), force=True)
    assert forced.check.judged == 1
    assert forced.decision is not None
    assert (forced.decision.version, forced.decision.decision) == (3, "promoted")
    # the same data, settings and seed give the same network
    assert forced.decision.numbers["certified_p_value"] == 1


def test_drifted_data_are_reported_and_both_models_judged_on_them(
    first: RetrainSummary, digits: Dataset
) -> None:
    write(digits.train_inputs[::2] * np.float32(0.6), digits.train_labels[::2])
    found = retrain_flow(settings("training.epochs=14"))
    assert found.check.changed
    assert found.check.drift is not None
    assert found.check.drift.word == "major"
    assert found.check.drift.brightness > 0.25
    assert found.decision is not None
    champion = RegisteredModel(MODEL).version(3)
    # the old champion was evaluated anew, on the darker images
    assert found.decision.numbers["clean_accuracy_champion"] != pytest.approx(
        float(champion.tags["clean_accuracy"]), abs=1e-4
    )
    assert found.decision.numbers["test_images"] == len(digits.train_labels[::2]) - (
        len(digits.train_labels[::2]) * 4 // 5
    )


def test_images_of_another_shape_are_refused_before_training(
    first: RetrainSummary, digits: Dataset
) -> None:
    write(digits.train_inputs[:, :6], digits.train_labels)
    count = len(RegisteredModel(MODEL).versions())
    with pytest.raises(CertiflowError, match=r"inputs of shape \(6, 8\).*give the new data a name"):
        retrain_flow(settings())
    assert len(RegisteredModel(MODEL).versions()) == count


def test_the_hook_marks_a_run_whose_process_was_killed(first: RetrainSummary) -> None:
    from uuid import uuid4

    from prefect.client.schemas.objects import FlowRun
    from prefect.states import Crashed

    flow_run = FlowRun(id=uuid4(), flow_id=uuid4(), name="retrain meters")
    client = MlflowClient()
    run = client.create_run(
        client.get_experiment_by_name("certiflow").experiment_id,
        tags={tracking.FLOW_RUN_TAG: str(flow_run.id)},
    )
    mark_failure(retrain_flow, flow_run, Crashed(message="SIGKILL"))
    marked = client.get_run(run.info.run_id)
    assert marked.info.status == "KILLED"
    assert marked.data.tags["failure"] == "the process was killed"
