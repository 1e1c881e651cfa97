"""Models that predict a number, the whole way: patients of scikit-learn's, models of the user's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from flows.actions.looking import look_at_settings
from flows.evaluation import evaluation_flow
from flows.promotion import promote_flow
from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.models.loading import load
from tasks.core.sources.own_data import load_own
from tasks.presentation import comparison, page
from tasks.presentation.records import Summary
from tasks.settings import Settings
from tasks.tracking import downloaded_model
from tests.command import certiflow, clean_environment
from tests.flow_project import flow_project, smoke
from tests.patients import TOLERANCE, save_regressor, write_patients

MODEL = "certiflow-patients"
CLASSES = ("balanced_accuracy", "recall", "auc")


def settings() -> Settings:
    return smoke(
        "data.dataset=patients.yaml",
        "attack.epsilons=[0,0.02,0.1]",
        "verification.epsilons=[0.02,0.1]",
        "verification.samples=12",
    )


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[Path]:
    with flow_project(tmp_path_factory.mktemp("project")) as folder:
        write_patients(folder)
        yield folder


@pytest.fixture(scope="module")
def data(project: Path) -> Dataset:
    return load_own(project / "patients.yaml")


@pytest.fixture(scope="module")
def predictions(data: Dataset) -> np.ndarray:
    """What scikit-learn itself predicts of the test rows by the model of version 1."""
    scaler, model = save_regressor(data, Path("first.onnx"), hidden=8)
    return np.asarray(model.predict(scaler.transform(data.test_inputs[:, :-1])))


@pytest.fixture(scope="module")
def summaries(data: Dataset, predictions: np.ndarray) -> dict[str, Summary]:
    """Version 1 is a perceptron of scikit-learn's, 2 says the mean of all targets."""
    mean = float(data.train_inputs[:, -1].mean())
    bias = keras.initializers.Constant(mean)
    constant = keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer=bias)
    keras.Sequential([keras.Input((10,)), constant]).save("mean.keras")
    files = {"1": "first.onnx", "2": "mean.keras"}
    return {
        version: evaluation_flow(settings(), Path(file), Path(file).stem)
        for version, file in files.items()
    }


def metrics(summary: Summary) -> dict[str, float]:
    return dict(MlflowClient().get_run(summary.run_id).data.metrics)


def test_accuracy_is_the_share_within_the_tolerance(
    summaries: dict[str, Summary], data: Dataset, predictions: np.ndarray
) -> None:
    errors = predictions - data.test_inputs[:, -1]
    summary, found = summaries["1"], metrics(summaries["1"])
    accuracy = (np.abs(errors) < TOLERANCE).mean()
    assert 0.5 < accuracy < 1
    assert summary.clean_accuracy == found["clean_accuracy"] == accuracy
    assert (summary.tolerance, summary.positive) == (TOLERANCE, None)
    assert found["mean_absolute_error"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    assert found["root_mean_squared_error"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-4)
    assert not [name for name in found if any(word in name for word in CLASSES)]
    assert summary.warnings == []


@pytest.mark.parametrize("version", ["1", "2"])
def test_certified_is_at_most_robust_is_at_most_clean(
    version: str, summaries: dict[str, Summary]
) -> None:
    found = metrics(summaries[version])
    for epsilon in ("0.02", "0.1"):
        chain = [
            found[f"bounds/certified_accuracy/eps_{epsilon}"],
            found[f"pgd/robust_accuracy/eps_{epsilon}"],
            found[f"fgsm/robust_accuracy/eps_{epsilon}"],
            found["clean_accuracy"],
        ]
        assert chain == sorted(chain)
    assert found["verification/certified_deployed_accuracy/eps_0.02"] > 0


def test_a_model_that_says_one_number_is_held_against_the_targets(
    summaries: dict[str, Summary], data: Dataset
) -> None:
    """It cannot be moved, and is as robust as it is right."""
    constant = summaries["2"]
    errors = data.train_inputs[:, -1].mean() - data.test_inputs[:, -1]
    assert constant.clean_accuracy == (np.abs(errors) < TOLERANCE).mean() < 0.9
    for row in constant.epsilon_grid:
        assert row["certified_accuracy"] == constant.clean_accuracy


def test_counterexamples_move_the_prediction_out_of_the_tolerance(
    summaries: dict[str, Summary], data: Dataset
) -> None:
    model = load(Path("first.onnx"))
    files = [
        path
        for path in (Path(summaries["1"].folder) / "counterexamples").glob("*_eps_0.1.npz")
        if "misclassified" not in path.name
    ]
    assert files
    for path in files:
        with np.load(path) as found:
            point, place = found["image"], int(found["sample_index"])
            words, changes = found["classes"].tolist(), found["changes"].tolist()
        target = data.test_inputs[place, -1]
        assert point[-1] == target
        excess = float(model.runtime.logits(point[None, :-1])[0, 0]) - target
        assert abs(excess) >= TOLERANCE
        assert words == [f"within {TOLERANCE}", "too high" if excess > 0 else "too low"]
        assert not [change for change in changes if change.startswith(("age", "sex", "progress"))]
        assert (
            data.perturbation.distance(data.test_inputs[place], point[None].astype(float)) < 0.10001
        )


def test_versions_are_compared_judged_and_shown(
    summaries: dict[str, Summary], tmp_path: Path
) -> None:
    (compared,) = comparison.compare(comparison.collect([], "certiflow"))
    rows = {row.version: row for row in compared.rows}
    assert rows[1].measures["clean_accuracy"] == summaries["1"].clean_accuracy
    assert "clean_accuracy" in rows[2].differences
    decision = promote_flow("2")
    assert (decision.against, decision.decision) == (1, "refused")  # it is right less often
    assert "never predicted" not in decision.reason
    text = page.write(comparison.collect(["1"], ""), path=tmp_path / "p.html").path.read_text()
    assert "too high at ε 0." in text or "too low at ε 0." in text
    card = (Path(summaries["1"].folder) / "data_card.md").read_text()
    assert "Target: progress, 25 to 346. Right: within 80 of it." in card


def test_the_registered_model_is_the_users_own(summaries: dict[str, Summary]) -> None:
    registered = downloaded_model(f"models:/{MODEL}/1")
    row = np.float32([[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]])
    found, own = (load(path).runtime.logits(row) for path in (registered, Path("first.onnx")))
    assert found.shape == (1, 1)
    np.testing.assert_array_equal(found, own)


def test_predict_says_how_far_each_prediction_holds(
    predictions: np.ndarray, project: Path, tmp_path: Path
) -> None:
    frame = pd.read_csv("patients.csv").drop(columns="progress").head(4)
    frame.to_csv("new.csv", index=False)
    asked = ["predict", "first.onnx", "new.csv", "--data", "patients.yaml", "--workers", "1"]
    result = certiflow(project, clean_environment(tmp_path, COLUMNS="80"), *asked)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("4 rows: predictions from ")
    rows = pd.read_csv("predicted.csv")
    model = load(Path("first.onnx"))
    own = model.runtime.logits(frame.to_numpy(np.float32))[:, 0]
    np.testing.assert_allclose(rows["prediction"], own, rtol=1e-6)
    names = ["prediction", "certified_radius", "moved_radius", "moved_by"]
    assert rows.columns.tolist()[-4:] == names
    assert (rows["certified_radius"] > 0).all()
    broken = rows[rows["moved_radius"].notna()]
    assert len(broken)
    assert (broken["certified_radius"] < broken["moved_radius"]).all()
    for row, number in zip(broken.to_dict("records"), broken["prediction"], strict=True):
        moved = {name: row[name] for name in frame.columns}
        for change in row["moved_by"].split("; "):
            name, _, _, value = change.rsplit(" ", 3)
            moved[name] = float(value.replace(",", ""))
        answer = model.runtime.logits(np.float32([list(moved.values())]))[0, 0]
        assert abs(answer - number) >= TOLERANCE - 0.01  # the file's numbers are rounded


def test_no_classifier_is_trained_on_numbers(data: Dataset) -> None:
    with pytest.raises(CertiflowError, match="the target is a number, and certiflow trains class"):
        look_at_settings(settings())
