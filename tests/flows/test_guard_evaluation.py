"""`certiflow guard-evaluate`: figures that hang together, logged, and told of the version."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from onnx.helper import make_node

from flows.guard_evaluation import guard_evaluation_flow
from flows.robustness import robustness_flow
from tasks import tracking
from tasks.core.errors import CertiflowError
from tasks.core.guard.drift import WINDOW
from tasks.core.guard.evaluation import Effort
from tasks.guarding.evaluation import GuardSummary
from tasks.settings import DataSettings
from tests.flow_project import flow_project, smoke
from tests.model_files import normal, saved_onnx

EPSILON = 0.02
TABLES = ("attacks", "denial", "detectors", "drift")
EFFORT = Effort(points=40, attempts=400, num_steps=5, blind=(5, 2))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def summary(project: Path) -> GuardSummary:
    with flow_project(project):
        version = robustness_flow(smoke())
        words = f"models:/certiflow-digits/{version.model_version}"
        model = tracking.downloaded_model(words)
        data = DataSettings(dataset="digits")
        return guard_evaluation_flow(words, model, data, EPSILON, EFFORT)


def test_shares_are_ordered(summary: GuardSummary) -> None:
    clean = summary.clean
    assert 0 < clean["accepted_by_intervals"] <= clean["accepted"] <= 1
    assert clean["guaranteed_service"] <= clean["accepted_by_intervals"]
    assert clean["accepted_wrong"] <= min(clean["accepted"], 1 - clean["accuracy"])
    assert summary.evasion_distance >= 2 * EPSILON  # accepted: proved within epsilon at least
    assert all(0 <= share <= 1 for share in summary.strangers.values())


def test_the_ladder_gives_back_what_an_attacker_takes_from_intervals(summary: GuardSummary) -> None:
    denial = pd.DataFrame(summary.denial)
    assert list(denial["factor"]) == [0.5, 1, 1.5, 2, 3]
    assert (denial["denied"] <= denial["denied_by_intervals"]).all()
    assert (denial["denied_by_intervals"] <= denial["points"]).all()
    assert denial["denied"].iloc[0] < denial["denied"].iloc[-1]


def test_shifts_are_seen_and_clean_traffic_is_not(summary: GuardSummary) -> None:
    drift = pd.DataFrame(summary.drift).set_index("shift")
    assert drift.loc["none", "alarms"] == 0
    assert drift.loc["brightness 50%", "alarms"] == drift.loc["brightness 50%", "streams"]
    assert drift.loc["brightness 50%", "delay"] <= 2 * WINDOW
    assert {"half of it 0", "9 is new"} & set(drift.index)


def test_nothing_within_epsilon_is_accepted_and_wrong(summary: GuardSummary) -> None:
    attacks = pd.DataFrame(summary.attacks)
    within = attacks[attacks["factor"] <= 1]
    assert (within["accepted_adversarial"] == 0).all()
    through = within[(within["attack"] == "through the intervals") & (within["factor"] == 1)]
    assert int(through["attempts"].iloc[0]) >= EFFORT.attempts
    assert set(attacks["factor"]) == {0.5, 1, 1.5, 2, 3}
    assert (attacks["accepted_adversarial"] <= attacks["points"]).all()
    farthest = attacks[attacks["factor"] == 3]
    assert farthest["mislabelled"].max() > attacks[attacks["factor"] == 0.5]["mislabelled"].max()


def test_detectors_flag_as_many_clean_inputs(summary: GuardSummary) -> None:
    rate = 1 - summary.clean["accepted_by_intervals"]
    assert len(summary.baselines) == 4
    for row in summary.baselines:
        assert row["clean_flagged"] <= rate + 1e-9
        assert row["clean_flagged"] >= rate - 0.02 or row["detector"] == "activation boxes"
        assert row["blind"] <= row["adaptive"] <= row["points"]


def test_it_is_logged_and_told(summary: GuardSummary, project: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    try:
        client = MlflowClient()
        name, number = summary.model.split("/")
        version = client.get_model_version(name, number)
        run = client.get_run(version.tags["guard/run"])
        assert run.data.metrics["guard/accepted"] == summary.clean["accepted"]
        assert run.data.metrics["guard/evaded/through_the_intervals/eps_0.02"] == 0
        assert f"Guarded at epsilon {EPSILON:g}" in version.description
        assert version.description.index("## Guard") < version.description.index("## Decisions")
        assert len(version.description) <= 5000
        files = {each.path for each in client.list_artifacts(run.info.run_id, "tables")}
        assert files == {f"tables/guard_{name}.csv" for name in TABLES}
        assert np.isclose(
            float(version.tags["guard/accepted"]), summary.clean["accepted"], atol=1e-4
        )
    finally:
        mlflow.set_tracking_uri(None)


def test_a_model_without_gradients_is_refused(summary: GuardSummary, project: Path) -> None:
    nodes = [make_node("Gemm", ["x", "w", "b"], ["y"])]
    weights = {"w": normal(64, 10), "b": normal(10)}
    file = saved_onnx(project, nodes, weights, shape=(1, 64))
    data, words = DataSettings(dataset="digits"), f"models:/{summary.model}"
    with flow_project(project), pytest.raises(CertiflowError, match="expected a Keras model"):
        guard_evaluation_flow(words, file, data, EPSILON, EFFORT)
