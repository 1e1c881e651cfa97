"""A version's guard files as MLflow loads and serves them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, scoring_server

from tasks.core.data.datasets import Dataset
from tests import guarded
from tests.oracle import least_margin

EPSILON = 0.02  # where none is asked for: that of `guarded.register`


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return guarded.digits(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Iterator[PyFuncModel]:
    """Of the version's run, as docs/guard.md has it."""
    project = tmp_path_factory.mktemp("scoring")
    number = guarded.register(project, guarded.class_means(data), data)
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    version = MlflowClient().get_model_version(guarded.MODEL, str(number))
    yield mlflow.pyfunc.load_model(f"runs:/{version.run_id}/guard")
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("epsilon", [None, 0.05])
def test_what_is_accepted_is_true(model: PyFuncModel, data: Dataset, epsilon: float | None) -> None:
    inputs, network = data.test_inputs[:60], guarded.class_means(data)
    rows = model.predict(inputs, params=None if epsilon is None else {"epsilon": epsilon})
    epsilon = epsilon or EPSILON
    assert rows["label"].tolist() == network(inputs).argmax(axis=1).tolist()
    assert rows["class"].tolist() == [data.class_names[label] for label in rows["label"]]
    accepted = (rows["decision"] == "accepted").to_numpy()
    assert (accepted == (rows["certified_radius"] >= epsilon)).all()
    assert set(rows["decided_by"][accepted]) == {"interval"}
    for point, label, margin in zip(
        inputs[accepted], rows["label"][accepted], rows["margin"][accepted], strict=True
    ):
        box = data.perturbation.box(point[None], epsilon)
        assert 0 < margin <= least_margin(network, box, label)
    assert 0 < accepted.sum() < 60


@pytest.mark.parametrize("epsilon", [0.0, -0.1, 1.5, float("nan")])
def test_no_proof_without_a_ball(model: PyFuncModel, data: Dataset, epsilon: float) -> None:
    with pytest.raises(MlflowException, match="expected above 0, at most 1"):
        model.predict(data.test_inputs[:1], params={"epsilon": epsilon})


def test_mlflow_s_own_server_serves_it(model: PyFuncModel, data: Dataset) -> None:
    points = data.test_inputs[:5]
    expected = model.predict(points, params={"epsilon": 0.01}).to_dict("records")
    flat = points.reshape(5, -1).tolist()
    for body in (
        {"inputs": points.tolist()},
        {"instances": points.tolist()},
        {"dataframe_split": {"data": flat}},
    ):
        found = served(model, body | {"params": {"epsilon": 0.01}})
        assert found.json() == {"predictions": expected}
    broken = served(model, {"inputs": [[1.5] * 64]})
    assert broken.status_code == 400
    assert "pixel 0, 0 is 1.5: expected 0 to 1" in broken.json()["message"]


def served(model: PyFuncModel, body: dict[str, Any]) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=scoring_server.init(model))
        async with httpx.AsyncClient(transport=transport, base_url="http://mlflow") as client:
            return await client.post("/invocations", json=body)

    return asyncio.run(ask())
