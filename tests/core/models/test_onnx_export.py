"""A Keras classifier in ONNX is the same function, of the same numbers, or refused by its layer."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.models.onnx_export import exported
from tasks.core.readers.keras_network import relu_network
from tasks.core.readers.onnx_network import read_onnx
from tasks.core.training import architectures

FEW = {"Gemm", "Relu", "Flatten", "Reshape", "Transpose", "Conv", "MaxPool", "AveragePool"}
NORMALISING = {"Sub", "BatchNormalization"}
MOMENTS = np.array([3e4, -2.0, 0.5, 0.0, 1e6]), np.array([4e8, 1.0, 0.25, 1.0, 1e12])


def with_random_numbers(model: keras.Model) -> keras.Model:
    """Every number that training moves drawn anew, so that none is 0 or 1."""
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            continue
        for weight in layer.weights:
            scale = 1 / np.sqrt(max(np.prod(weight.shape[:-1]), 1))
            values = generator.normal(scale=scale, size=weight.shape)
            weight.assign(abs(values) + 0.1 if "variance" in weight.path else values)
    return model


def of_layers(*inner: layers.Layer, shape: tuple[int, ...] = (6, 5, 3)) -> keras.Model:
    model = keras.Sequential([keras.Input(shape), *inner, layers.Flatten(), layers.Dense(3)])
    return with_random_numbers(model)


def built(architecture: architectures.Architecture, shape: tuple[int, ...]) -> keras.Model:
    return with_random_numbers(architectures.build(architecture, shape, 4, (9, 7), seed=1))


def of_table() -> keras.Model:
    model = architectures.build(
        "dense", (5,), 3, (8, 6), 1, normalisation=MOMENTS, batch_normalisation=True
    )
    return with_random_numbers(model)


def table_points(count: int) -> FloatArray:
    return np.random.default_rng(1).normal(MOMENTS[0], np.sqrt(MOMENTS[1]), size=(count, 5))


MODELS = {
    "dense": lambda: built("dense", (7, 6)),
    "dense in colour": lambda: built("dense", (7, 6, 3)),
    "dense of rows": lambda: built("dense", (5,)),
    "cnn_small": lambda: built("cnn_small", (9, 8)),
    "cnn_small in colour": lambda: built("cnn_small", (9, 8, 3)),
    "cnn_medium": lambda: built("cnn_medium", (8, 7)),
    "table": of_table,
    "strides and dilations": lambda: of_layers(
        layers.Conv2D(4, 3, (2, 1), activation="relu"),
        layers.Conv2D(4, 2, dilation_rate=(1, 2), groups=2, padding="same", use_bias=False),
        layers.ReLU(),
        layers.DepthwiseConv2D((2, 1), depth_multiplier=2, activation=layers.ReLU()),
    ),
    "pooling": lambda: of_layers(
        layers.MaxPooling2D(2, padding="same"),
        layers.Conv2D(4, 2),
        layers.Activation("relu"),
        layers.AveragePooling2D(2, 1, padding="same"),
    ),
    "normalised between": lambda: of_layers(
        layers.Conv2D(4, 2),
        layers.BatchNormalization(scale=False),
        layers.ReLU(),
        layers.Flatten(),
        layers.BatchNormalization(center=False),
        layers.Dropout(0.5),
    ),
    "normalised image": lambda: of_layers(
        layers.Conv2D(2, 2), layers.Normalization(mean=[1, 2], variance=[4, 5]), layers.Conv2D(2, 2)
    ),
    "moved": lambda: of_layers(
        layers.Permute((2, 3, 1)), layers.Conv2D(4, 2), layers.Reshape((20, -1)), shape=(3, 6, 5)
    ),
    "of convolutions alone": lambda: with_random_numbers(
        keras.Sequential(
            [
                keras.Input((6, 5, 3)),
                layers.Conv2D(4, (3, 5), activation="relu"),
                layers.Conv2D(3, (4, 1)),
                layers.Flatten(),
            ]
        )
    ),
    "softmax": lambda: with_random_numbers(
        keras.Sequential([keras.Input((4,)), layers.Dense(5, "relu"), layers.Dense(3, "softmax")])
    ),
    "sigmoid": lambda: with_random_numbers(
        keras.Sequential([keras.Input((4,)), layers.Dense(5, "relu"), layers.Dense(1, "sigmoid")])
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_file_is_the_model(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    path = tmp_path / "model.onnx"
    path.write_bytes(exported(model).SerializeToString())
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert {node.op_type for node in file.graph.node} <= FEW | (
        NORMALISING if "table" in name or "normalised" in name else set()
    )

    shape = model.input_shape[1:]
    points = (
        table_points(200) if name == "table" else np.random.default_rng(2).random((200, *shape))
    )
    points = points.astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input": points})
    outputs = np.asarray(model(points))
    ours, read = relu_network(model), read_onnx(path).network
    expected = ours(points.reshape(200, -1).astype(np.float64))
    scale = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 1e-3 * scale  # it depends on its input
    np.testing.assert_allclose(logits, expected, rtol=0, atol=3e-5 * scale)
    if name == "sigmoid":
        np.testing.assert_array_equal(logits.argmax(axis=1), (outputs[:, 0] > 0.5))
    else:
        np.testing.assert_array_equal(logits.argmax(axis=1), outputs.argmax(axis=1))
    if name not in {"softmax", "sigmoid"}:
        np.testing.assert_allclose(logits, outputs, rtol=0, atol=3e-5 * scale)
    found = read(points.reshape(200, -1).astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("name", ["dense", "cnn_small"])
def test_the_numbers_are_those_of_the_model(name: str) -> None:
    """As a multiset: nothing is computed; zeros may be added."""
    model = MODELS[name]()
    written = [onnx.numpy_helper.to_array(each) for each in exported(model).graph.initializer]
    numbers = np.concatenate([each.ravel() for each in written if each.dtype == np.float32])
    weights = np.concatenate([np.asarray(each).ravel() for each in model.weights])
    own, count = np.unique(weights[weights != 0], return_counts=True)
    found, times = np.unique(numbers[numbers != 0], return_counts=True)
    np.testing.assert_array_equal(found, own)
    np.testing.assert_array_equal(times, count)


def test_images_of_one_channel_are_only_reshaped() -> None:
    kinds = [node.op_type for node in exported(MODELS["cnn_small"]()).graph.node]
    assert kinds == ["Reshape", "Conv", "Relu", "Conv", "Relu", "Flatten"] + [
        "Gemm",
        "Relu",
    ] * 2 + ["Gemm"]
    in_colour = [node.op_type for node in exported(MODELS["cnn_small in colour"]()).graph.node]
    assert in_colour == ["Transpose", *kinds[1:]]


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (layers.Rescaling(0.5), r"\(Rescaling\) cannot be exported"),
        (layers.LeakyReLU(), r"\(LeakyReLU\) cannot be exported"),
        (layers.ReLU(max_value=6), r"\(ReLU with a threshold, a slope"),
        (layers.Conv2D(2, 2, activation=layers.ReLU(negative_slope=0.1)), r"\(ReLU with"),
        (layers.Conv2D(2, 2, activation=layers.ReLU(dtype="float16")), r"\(ReLU in float16\)"),
        (layers.Conv2D(2, 2, activation="gelu"), r"\(gelu\) cannot be exported"),
        (layers.Conv2D(2, 2, dtype="float16"), r"\(Conv2D in float16\)"),
        (layers.Dense(4), r"\(Dense\) cannot be exported"),  # of every pixel
        (layers.GlobalAveragePooling2D(keepdims=True), r"\(GlobalAveragePooling2D\)"),
        (layers.BatchNormalization(axis=1), r"\(BatchNormalization along axis 1"),
        (
            layers.Normalization(mean=0.0, variance=1.0, invert=True, axis=None),
            r"\(Normalization\)",
        ),
        (layers.Normalization(mean=0.0, variance=0.0, axis=None), r"\(Normalization\) has the var"),
    ],
)
def test_layers_that_are_not_exported_are_named(layer: layers.Layer, named: str) -> None:
    with pytest.raises(CertiflowError, match=rf"layer 1 '{layer.name}' {named}"):
        exported(of_layers(layer))


def test_a_permuted_image_is_refused() -> None:
    model = of_layers(layers.Permute((2, 1, 3)), layers.Conv2D(2, 2, name="c"))
    with pytest.raises(CertiflowError, match="layer 2 'c' takes an image whose axes were permuted"):
        exported(model)


def test_weights_that_are_no_numbers_are_refused() -> None:
    model = of_layers(layers.Conv2D(2, 2, name="c"))
    model.layers[0].bias.assign([np.nan, 0])
    with pytest.raises(CertiflowError, match=r"layer 1 'c' \(Conv2D\) has a weight that is NaN"):
        exported(model)


@pytest.mark.parametrize(
    ("last", "named"),
    [
        ([layers.Dense(3), layers.Reshape((3, 1))], r"shape \(3, 1\) that no Dense"),
        ([layers.Conv2D(2, 2), layers.Flatten()], r"shape \(40,\) that no Dense"),
        ([layers.Flatten(), layers.Dense(3, "relu")], "ends with a ReLU"),
    ],
)
def test_ends_without_logits_are_refused(last: list[layers.Layer], named: str) -> None:
    first = [] if isinstance(last[0], layers.Conv2D | layers.Flatten) else [layers.Flatten()]
    with pytest.raises(CertiflowError, match=named):
        exported(keras.Sequential([keras.Input((6, 5, 3)), *first, *last]))
