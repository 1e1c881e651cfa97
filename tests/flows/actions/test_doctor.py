"""`certiflow doctor`: what blocks a model, with the exit code that scripts ask for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx.helper import make_node

from tests.command import invoked, refusal
from tests.model_files import normal, saved_onnx


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """64 inputs, ten classes, a softmax."""
    monkeypatch.chdir(tmp_path)
    nodes = [make_node("MatMul", ["x", "w"], ["z"]), make_node("Softmax", ["z"], ["y"])]
    return saved_onnx(tmp_path, nodes, {"w": normal(64, 10)}, shape=("n", 64))


def test_a_model_that_can_be_verified(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["doctor", model.name, "--data", "digits", "--json", "out.json"]
    result = invoked(monkeypatch, *arguments)
    assert result.exit_code == 0, result.output
    for words in ("MatMul", "640", "softmax, taken off", "can be verified"):
        assert words in result.stdout
    found = json.loads(Path("out.json").read_text())
    assert found["verifiable"] is True
    assert found["ending"] == "softmax"
    assert found["layers"] == [{"number": 1, "name": "z", "kind": "MatMul", "obstacle": ""}]


def test_a_layer_that_blocks(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_onnx(model.parent, [make_node("Hardmax", ["x"], ["y"])])
    result = invoked(monkeypatch, "doctor", model.name, "--json", "out.json")
    assert result.exit_code == 1
    assert "blocks: Hardmax cannot be verified" in result.stdout
    assert result.stdout.rstrip().endswith("cannot be verified")
    assert json.loads(Path("out.json").read_text())["verifiable"] is False


def test_data_that_do_not_fit(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.zeros((20, 4, 4), np.float32)
    labels = np.arange(20) % 10
    parts = {"images": images, "labels": labels}
    np.savez(
        "own.npz",
        **{f"{split}_{name}": part for split in ("train", "test") for name, part in parts.items()},
    )
    result = invoked(monkeypatch, "doctor", model.name, "--data", "own.npz")
    assert result.exit_code == 1
    assert "blocks: the model has 64 inputs and 10 outputs: own needs 16 and 10" in result.stdout


def test_what_is_no_model_is_one_line(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model.rename("model.h5")
    assert "convert it by python -c" in refusal(monkeypatch, "doctor", "model.h5")
    assert "no such file" in refusal(monkeypatch, "doctor", "absent.keras")
    Path("model.h5").rename(model)
    assert "nonsense" in refusal(monkeypatch, "doctor", model.name, "--data", "nonsense")
