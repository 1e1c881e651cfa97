"""A guard as users start it: its answers, its protocols, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tasks.core.data.datasets import Dataset
from tasks.core.guard.flagged import FlaggedStore, digest_of
from tasks.core.networks.network import ReluNetwork
from tests import guarded
from tests.browser import render
from tests.guarded import MODEL, Guard
from tests.oracle import least_margin

EPSILON = 0.02
SETTINGS = {
    "model": f"models:/{MODEL}@champion",
    "epsilon": EPSILON,
    "budget_ms": 20_000,
    "most_bytes": 2**20,
    "most_rows": 100,
    "request_seconds": 1,
    "client_header": "x-client",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guard")


@pytest.fixture(scope="module")
def data(project: Path) -> Dataset:
    return guarded.digits(project)


@pytest.fixture(scope="module")
def network(data: Dataset) -> ReluNetwork:
    return guarded.class_means(data)


@pytest.fixture(scope="module")
def guard(project: Path, data: Dataset, network: ReluNetwork) -> Iterator[Guard]:
    guarded.register(project, network, data)
    with guarded.guarding(project, SETTINGS) as guard:
        yield guard


def test_what_is_accepted_is_true_and_the_rest_is_broken(
    guard: Guard, data: Dataset, network: ReluNetwork, project: Path
) -> None:
    """With a budget that suffices every answer is the exact one; broken ones are kept, and how."""
    inputs, decisions = data.test_inputs[:60], set()
    found = guard.predict(inputs)
    assert (found["model"], found["version"], found["epsilon"]) == (MODEL, 1, EPSILON)
    for point, answer in zip(inputs, found["answers"], strict=True):
        box = data.perturbation.box(point[None], EPSILON)
        truth = least_margin(network, box, answer["label"])
        assert answer["label"] == int(network(point[None]).argmax())
        assert answer["class"] == data.class_names[answer["label"]]
        assert (answer["decision"] == "accepted") == (truth > 0)
        assert (answer["certified_radius"] >= EPSILON) == (truth > 0)
        assert answer["digest"] == digest_of(point)
        decisions.add(answer["decision"])
    assert decisions == {"accepted", "flagged"}
    flagged = [each for each in found["answers"] if each["decision"] == "flagged"]
    guarded.until(
        lambda: guard.metric("certiflow_guard_stored_total") >= len(flagged), "nothing is stored"
    )
    store = FlaggedStore(str(project / "guard.db"))
    for answer in flagged:
        kept = store.find(answer["digest"])
        assert kept is not None
        assert digest_of(kept[0]) == answer["digest"]
        assert kept[1:] == (answer["label"], EPSILON, f"{MODEL}/1")
    store.close()
    shown = guard.client.get("/live").json()["flagged"]
    for each in shown:
        other = np.array(each["other"]).reshape(1, -1)
        assert np.abs(other - np.array(each["image"])).max() <= EPSILON + 1e-3


def test_the_open_inference_protocol(guard: Guard, data: Dataset) -> None:
    """https://github.com/kserve/open-inference-protocol: metadata, readiness, inference."""
    for path in (f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/versions/1"):
        metadata = guard.client.get(path).json()
        assert metadata["name"] == MODEL
        assert metadata["versions"] == ["1"]
        (tensor,) = metadata["inputs"]
        assert tensor == {"name": "inputs", "datatype": "FP32", "shape": [-1, 8, 8]}
        assert guard.client.get(f"{path}/ready").json() == {"name": MODEL, "ready": True}
        points = data.test_inputs[:2]
        request = {
            "id": "mine",
            "inputs": [
                {
                    "name": "inputs",
                    "datatype": "FP32",
                    "shape": [2, 8, 8],
                    "data": points.ravel().tolist(),
                }
            ],
        }
        answer = guard.post(f"{path}/infer", request).json()
        assert (answer["model_name"], answer["model_version"]) == (MODEL, "1")
        assert answer["id"] == "mine"
        outputs = {each["name"]: each for each in answer["outputs"]}
        assert [each["name"] for each in metadata["outputs"]] == list(outputs)
        for tensor in outputs.values():
            assert tensor["shape"] == [2] == [len(tensor["data"])]
        native = guard.predict(points)["answers"]
        assert outputs["label"]["data"] == [each["label"] for each in native]
        assert outputs["decision"]["data"] == [each["decision"] for each in native]
    for path in ("/v2/models/other/infer", f"/v2/models/{MODEL}/versions/2/infer"):
        missing = guard.post(path, request)
        assert missing.status_code == 404
        assert f"expected {MODEL}/1" in missing.json()["error"]
    assert guard.client.get("/v2").json()["name"] == "certiflow"


def test_mlflow_s_protocol(guard: Guard, data: Dataset) -> None:
    points = data.test_inputs[:2].tolist()
    flat = data.test_inputs[:2].reshape(2, -1).tolist()
    native = guard.predict(data.test_inputs[:2])["answers"]
    for body in (
        {"instances": points},
        {"inputs": points},
        {"inputs": {"image": points}},
        {"dataframe_split": {"data": flat}},
        {"dataframe_split": {"columns": list(range(64)), "data": flat}},
    ):
        rows = guard.post("/invocations", body).json()["predictions"]
        assert [each["label"] for each in rows] == [each["label"] for each in native]
        assert set(rows[0]) == set(native[0]) - {"digest"}
    refused = guard.post("/invocations", {"frame": points})
    assert refused.status_code == 422
    assert refused.json()["error_code"] == "BAD_REQUEST"
    assert "dataframe_split" in refused.json()["message"]
    for path in ("/ping", "/health"):
        assert guard.client.get(path).text == "\n"
    assert guard.client.get("/version").text.count(".") == 2


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([[0.5] * 63], r"shape \(1, 63\): expected images, \(n, 8, 8\)"),
        ([0.5] * 64, r"shape \(64,\)"),
        ([], "expected images"),
        ([[0.5] * 63 + [1.5]], "pixel 7, 7 is 1.5: expected 0 to 1"),
        ([[0.5] * 64, [-0.1] * 64], "image 1: pixel 0, 0 is -0.1"),
        ([["a"] * 64], "no array of numbers"),
        ([[0.5], [0.5, 0.5]], "no array of numbers"),
        ([[None] * 64], "pixel 0, 0 is nan: expected a finite number"),
        ({"a": 1}, "no array of numbers"),
    ],
)
def test_a_broken_rule_is_named(guard: Guard, inputs: object, said: str) -> None:
    response = guard.post("/predict", {"inputs": inputs})
    assert response.status_code == 422
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (problem["title"], problem["status"]) == ("A rule is broken", 422)
    assert re.search(said, problem["detail"]), problem
    assert "\n" not in problem["detail"]


def test_what_cannot_be_read_or_is_too_large_is_refused(guard: Guard) -> None:
    def status(content: object) -> tuple[int, str]:
        response = guard.client.post("/predict", content=content)
        return response.status_code, response.json()["detail"]

    assert status(b"{")[0] == 400
    assert status(b"\xff\xfe")[0] == 400
    assert status(b"[1]")[0] == 422
    assert "larger than 1048576 bytes" in status(b" " * (2**20 + 1))[1]
    assert status(b" " * 2**19 for _ in range(4))[0] == 413  # chunks, whose sum nobody has told
    too_many = guard.post("/predict", {"inputs": [[0.5] * 64] * 101})
    assert too_many.status_code == 413
    assert "101 inputs: expected at most 100" in too_many.json()["detail"]
    assert guard.client.post("/nowhere").status_code == 404


def test_metrics_count_what_was_answered(guard: Guard, data: Dataset) -> None:
    counted = 'certiflow_guard_answers_total{decided_by="interval",decision="accepted"'
    before, count = guard.metric(counted), guard.metric("certiflow_guard_seconds_count")
    answers = guard.predict(data.test_inputs[:20])["answers"]
    accepted = [each for each in answers if each["decided_by"] == "interval"]
    assert guard.metric(counted) - before == len(accepted) > 0
    assert guard.metric("certiflow_guard_seconds_count") - count == 1


def test_pages_need_nothing_from_elsewhere(guard: Guard, tmp_path: Path) -> None:
    for path in ("/", "/docs"):
        page = guard.client.get(path).text
        assert "http://" not in page
        assert "https://" not in page
        assert "src=" not in page
    documented = guard.client.get("/openapi.json").json()["paths"]
    assert {"/predict", "/invocations", "/v2/models/{name}/infer", "/metrics"} <= set(documented)
    live = guard.client.get("/live").text
    page = guard.client.get("/").text.replace('fetch("live")', f"new Response({live!r})")
    (tmp_path / "page.html").write_text(page)
    for width in (360, 1200):
        shown = render(tmp_path / "page.html", width, tmp_path)
        assert shown.content_width <= width
        assert shown.console == []


def test_who_is_flagged_too_often_raises_an_alarm(guard: Guard, data: Dataset) -> None:
    """A picture between two digits, sent again and again, as by who looks for a way."""
    labels = guard.predict(data.test_inputs[:2])["answers"]
    assert labels[0]["label"] != labels[1]["label"]
    shares = np.linspace(0, 1, 80, dtype=np.float32)[:, None, None]
    way = (1 - shares) * data.test_inputs[0] + shares * data.test_inputs[1]
    flagged = [each["decision"] == "flagged" for each in guard.predict(way)["answers"]]
    assert any(flagged)  # no way from one label to another without
    point = way[flagged.index(True)][None]
    before = guard.metric('certiflow_guard_alarms_total{cause="client"}')
    for _ in range(100):
        guard.predict(point, **{"x-client": "attacker"})
    assert guard.metric('certiflow_guard_alarms_total{cause="client"}') == before + 1
    assert any("attacker" in each for each in guard.client.get("/live").json()["alarms"])
