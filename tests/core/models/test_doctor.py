"""What is said of a model's file is what its whole reading finds, by layer, and sooner."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers
from onnx.helper import make_node

from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.models.doctor import examine
from tasks.core.models.loading import load
from tests.command import ROOT
from tests.core.readers.test_onnx_endings import SCIKIT_LEARN, torch_model
from tests.model_files import NNET_LINES, normal, saved_nnet, saved_onnx

DENSE = layers.Dense


def sequential(*inner: layers.Layer, shape: tuple[int | None, ...] = (4,)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *inner])


def functional(join: Callable[[Any], Any]) -> keras.Model:
    source = keras.Input((4,))
    return keras.Model(source, join(source))


def two_inputs() -> keras.Model:
    first, second = keras.Input((4,)), keras.Input((4,))
    return keras.Model([first, second], DENSE(2)(layers.Add()([first, second])))


READ: dict[str, Callable[[], keras.Model]] = {
    "plain": lambda: sequential(DENSE(5, "relu"), DENSE(3)),
    "normalised": lambda: sequential(
        layers.Normalization(mean=[1, 2, 3, 4], variance=[1, 2, 3, 4]), DENSE(5, "relu"), DENSE(3)
    ),
    "batch normalised": lambda: sequential(
        DENSE(5), layers.BatchNormalization(), layers.LeakyReLU(), layers.Dropout(0.5), DENSE(3)
    ),
    "softmax": lambda: sequential(DENSE(5, activation=layers.ReLU()), DENSE(3, "softmax")),
    "softmax layer": lambda: sequential(DENSE(3), layers.Softmax()),
    "sigmoid": lambda: sequential(DENSE(5, "relu"), DENSE(1, "sigmoid")),
    "sigmoid by name": lambda: sequential(DENSE(1), layers.Activation("sigmoid")),
    "colour": lambda: sequential(
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        DENSE(3),
        shape=(6, 6, 3),
    ),
    "channels first": lambda: sequential(
        layers.Permute((2, 3, 1)), layers.Flatten(), DENSE(3), shape=(3, 6, 6)
    ),
    "curved": lambda: sequential(
        DENSE(5, "tanh"),
        layers.ELU(),
        DENSE(6, "swish"),
        layers.Softmax(),
        layers.PReLU(),
        DENSE(4, "hard_swish"),
        DENSE(3, "gelu"),
        DENSE(3),
    ),
    "images grown": lambda: sequential(
        layers.Conv2DTranspose(2, 3, strides=2, activation="softplus"),
        layers.UpSampling2D(2),
        layers.Flatten(),
        DENSE(3),
        shape=(2, 3, 1),
    ),
    "gated": lambda: functional(
        lambda x: DENSE(3)(layers.Multiply()([DENSE(4)(x), DENSE(4, "sigmoid")(x)]))
    ),
    "residual": lambda: functional(lambda x: DENSE(3)(layers.Add()([x, DENSE(4, "relu")(x)]))),
}

REFUSED: dict[str, tuple[Callable[[], keras.Model], int, str]] = {
    "mish": (lambda: sequential(DENSE(5, "mish"), DENSE(3)), 1, "activation mish .* use relu"),
    "noise": (lambda: sequential(layers.GaussianNoise(0.1), DENSE(3)), 1, "GaussianNoise cannot"),
    "half precision": (lambda: sequential(DENSE(4, dtype="float16"), DENSE(3)), 1, "in float16"),
    "threshold": (
        lambda: sequential(DENSE(4), layers.ReLU(threshold=0.5), DENSE(3)),
        2,
        "threshold = 0.5",
    ),
    "operation": (lambda: functional(lambda x: DENSE(3)(keras.ops.add(x, 1.0))), 2, "Add cannot"),
    "within": (
        lambda: sequential(keras.Sequential([keras.Input((4,)), DENSE(3)]), DENSE(3)),
        1,
        "Sequential cannot be verified",
    ),
    "rectified": (lambda: sequential(DENSE(5), DENSE(3, "relu")), 0, "ends with a ReLU"),
    "several decisions": (
        lambda: sequential(DENSE(3, "sigmoid")),
        0,
        "a sigmoid of 3 outputs, a decision for each",
    ),
    "always 1": (lambda: sequential(DENSE(1, "softmax")), 0, "softmax of one output"),
    "any length": (
        lambda: sequential(DENSE(3), shape=(None, 4)),
        0,
        "the input's shape is .*give it a fixed one",
    ),
    "whole numbers": (
        lambda: keras.Sequential([keras.Input((4,), dtype="int32"), DENSE(3)]),
        0,
        "the input is int32",
    ),
    "two inputs": (two_inputs, 0, "the model has 2 inputs"),
    "nothing": (lambda: sequential(layers.Flatten()), 0, "no layer with weights"),
}


@pytest.mark.parametrize("name", READ)
def test_keras_models_that_can_be_read(name: str, tmp_path: Path) -> None:
    model, path = READ[name](), tmp_path / "m.keras"
    model.save(path)
    found, loaded = examine(path), load(path)
    assert found.is_verifiable
    assert found.input_shape == model.input_shape[1:] == loaded.input_shape
    assert found.outputs in {loaded.network.num_outputs, None}
    assert found.ending == loaded.ending
    assert found.parameters == model.count_params()
    shown = {"normalised": "Normalization", "colour": "Rescaling"}
    assert found.normalisation == shown.get(name, "")
    assert [layer.name for layer in found.layers] == [
        layer.name for layer in model.layers if not isinstance(layer, layers.InputLayer)
    ]


@pytest.mark.parametrize("name", REFUSED)
def test_what_blocks_is_what_reading_refuses(name: str, tmp_path: Path) -> None:
    build, number, words = REFUSED[name]
    path = tmp_path / "m.keras"
    build().save(path)
    found = examine(path)
    assert not found.is_verifiable
    said = " ".join(found.blocks) if number == 0 else ""
    for layer in found.layers:
        assert bool(layer.obstacle) == (layer.number == number)
        said += layer.obstacle
    with pytest.raises(CertiflowError) as refusal:
        load(path)
    for layer in found.layers:
        assert not layer.obstacle or f"'{layer.name}'" in str(refusal.value)
    assert re.search(words, said)


def test_all_that_blocks_is_said_at_once(tmp_path: Path) -> None:
    sequential(DENSE(5, "mish"), DENSE(5, "softsign"), DENSE(3, "relu")).save(tmp_path / "m.keras")
    found = examine(tmp_path / "m.keras")
    assert [layer.number for layer in found.layers if layer.obstacle] == [1, 2]
    assert len(found.blocks) == 1


@pytest.mark.parametrize("name", SCIKIT_LEARN)
def test_onnx_models_of_scikit_learn(name: str, tmp_path: Path) -> None:
    write, ending = SCIKIT_LEARN[name]
    found = examine(write(tmp_path))
    assert found.is_verifiable
    assert (found.ending, found.normalisation, found.input_shape) == (ending, "Scaler", (4,))
    assert found.outputs == (2 if name in {"binary", "logistic regression"} else 3)


def test_onnx_models_of_pytorch(tmp_path: Path) -> None:
    found = examine(torch_model(tmp_path, "Softmax", 3))
    assert found.is_verifiable
    assert found.normalisation == "Sub, Div, Mul"
    assert found.parameters == 3 * 4 + 6 * 4 + 6 + 3 * 6 + 3


def test_every_node_that_blocks_is_named(tmp_path: Path) -> None:
    nodes = [
        make_node("Round", ["x"], ["a"], name="first"),
        make_node("Relu", ["a"], ["b"]),
        make_node("Mish", ["b"], ["y"], name="last"),
    ]
    found = examine(saved_onnx(tmp_path, nodes))
    blocked = {layer.name: layer.obstacle for layer in found.layers if layer.obstacle}
    assert blocked.keys() == {"first", "last"}
    assert blocked["first"].startswith("Round cannot be verified")


def test_what_only_the_whole_graph_tells_is_said_too(tmp_path: Path) -> None:
    nodes = [make_node("Pow", ["a", "x"], ["y"], name="power")]
    found = examine(saved_onnx(tmp_path, nodes, {"a": normal(4)}))
    assert not found.is_verifiable
    assert found.blocks[0].startswith("node 1 'power' (Pow): input 2 depends on the network's in")


def test_nnet_files(tmp_path: Path) -> None:
    found = examine(saved_nnet(tmp_path, NNET_LINES))
    assert found.is_verifiable
    assert (found.input_shape, found.outputs, found.parameters) == ((2,), 1, 13)


def test_a_dataset_that_does_not_fit_blocks(digits: Dataset, tmp_path: Path) -> None:
    sequential(DENSE(10), shape=(64,)).save(tmp_path / "m.keras")
    found = examine(tmp_path / "m.keras")
    assert found.against("digits", digits.extent) == found
    other = replace(digits.extent, num_outputs=9)
    assert "needs 64 and 9" in found.against("digits", other).blocks[0]


def test_files_that_are_no_models_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(b"no archive")
    for name, words in (
        ("m.keras", "no archive of Keras 3"),
        ("m.h5", "convert it by python"),
        ("absent.onnx", "no such file"),
    ):
        with pytest.raises(CertiflowError, match=words):
            examine(tmp_path / name)


def test_needs_neither_keras_nor_a_runtime(tmp_path: Path) -> None:
    READ["normalised"]().save(tmp_path / "m.keras")
    graph = torch_model(tmp_path, "Softmax", 3)
    code = (
        "import sys; from pathlib import Path; from tasks.core.models.doctor import examine\n"
        "print(*[examine(Path(each)).is_verifiable for each in sys.argv[1:]])\n"
        "print(*{'tensorflow', 'keras', 'onnxruntime', 'prefect'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.keras", graph],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "True True\n\n"
