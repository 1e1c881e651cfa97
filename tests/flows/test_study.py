"""A study: a parent run with a child for each configuration, compared in one table and figure."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from flows.configuration import load_study
from flows.study import study_flow
from tasks.core.errors import CertiflowError
from tasks.presentation.records import StudySummary
from tests.flow_project import CONF, flow_project

SMOKE = """\
title: two defences
configurations: [smoke.yaml, certified.yaml, broken.yaml]
"""


def written(folder: Path, study: str = SMOKE) -> Path:
    """A study with its configurations beside it; the last of them cannot be trained."""
    smoke = (CONF / "smoke.yaml").read_text()
    defended = smoke.replace("epochs: 3", "epochs: 8\n  defence: ibp\n  epsilon: 0.05")
    (folder / "smoke.yaml").write_text(smoke)
    (folder / "certified.yaml").write_text(defended)
    (folder / "broken.yaml").write_text(smoke.replace("epochs: 3", "learning_rate: 1.0e+38"))
    path = folder / "study.yaml"
    path.write_text(study)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[StudySummary]:
    folder = tmp_path_factory.mktemp("study")
    with flow_project(folder):
        yield study_flow(load_study(written(folder), []))


def test_children_hang_below_the_parent(study: StudySummary) -> None:
    client = MlflowClient()
    assert set(study.runs) == {"smoke", "certified"}
    for run_id in study.runs.values():
        child = client.get_run(run_id)
        assert child.data.tags["mlflow.parentRunId"] == study.run_id
        assert child.info.status == "FINISHED"
    parent = client.get_run(study.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["study"] == "two defences"
    assert client.get_run(study.runs["certified"]).data.tags["defence"] == "ibp"


def test_a_configuration_that_fails_leaves_the_others(study: StudySummary) -> None:
    assert set(study.failed) == {"broken"}
    tags = MlflowClient().get_run(study.run_id).data.tags
    assert "lower training.learning_rate" in study.failed["broken"]
    assert "broken failed" in tags["warning.configuration_3"]
    assert "**broken failed**" in tags["mlflow.note.content"]
    for name in study.runs:
        assert f"| {name} |" in tags["mlflow.note.content"]
    assert "n = 5" in tags["mlflow.note.content"]


def test_table_and_figure_hold_them_all(study: StudySummary) -> None:
    table = pd.read_csv(Path(study.folder) / "tables/comparison.csv")
    assert set(table["run_id"]) == set(study.runs.values())
    assert set(table["architecture"]) == {"dense-16", "dense-16 ibp-0.05"}
    assert (table["epsilon"] == 0.05).all()
    names = {entry.path for entry in MlflowClient().list_artifacts(study.run_id, "figures")}
    assert names == {"figures/curves.png", "figures/radii.png"}
    for name in names:
        assert (Path(study.folder) / name).read_bytes().startswith(b"\x89PNG")


def test_cost_of_the_training_is_the_sum_of_its_epochs(study: StudySummary) -> None:
    client = MlflowClient()
    for run_id in study.runs.values():
        epochs = client.get_metric_history(run_id, "train/epoch_seconds")
        total = client.get_run(run_id).data.metrics["train/seconds"]
        assert total == pytest.approx(sum(point.value for point in epochs))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: x", "not a study: expected 'title"),
        ("configurations: [smoke.yaml]", "not a study"),
        ("title: x\nconfigurations: [nope.yaml]", "nope.yaml: no such settings file"),
        ("title: x\nconfigurations: [smoke.yaml, smoke.yaml]", "two have the same name"),
        ("title: x\nconfigurations: [smoke.yaml, other.yaml]", "data.dataset differs .*other: mni"),
        ("title: x\nconfigurations: [smoke.yaml, far.yaml]", "reference radius .* far: 0.07"),
    ],
)
def test_what_is_no_study_is_said_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    smoke = (tmp_path / "smoke.yaml").read_text()
    (tmp_path / "other.yaml").write_text(smoke.replace("dataset: digits", "dataset: mnist"))
    (tmp_path / "far.yaml").write_text(smoke + "  epsilon: 0.07\n")
    with pytest.raises(CertiflowError, match=said) as raised:
        load_study(path, [])
    assert "\n" not in str(raised.value)


def test_studies_that_come_with_the_project_can_be_read(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CONF, tmp_path / "conf"))
    studies = sorted(folder.glob("*_study.yaml"))
    assert studies
    for path in studies:
        assert load_study(path, []).any_settings.reference_epsilon == 0.1
