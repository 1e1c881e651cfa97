"""The float64 network is the Keras model's function, and refuses what it cannot express."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

from tasks.core import architectures
from tasks.core.errors import CertiflowError
from tasks.core.keras_network import relu_network
from tasks.core.network import Affine, ReluNetwork
from tests.networks import hand_computed, random_network

MODELS: dict[str, Callable[[], keras.Sequential]] = {
    "dense": lambda: architectures.build("dense", (8, 8), 10, (16, 12)),
    "cnn_small": lambda: architectures.build("cnn_small", (8, 8), 10, (20,)),
    "no hidden layer": lambda: architectures.build("dense", (8, 8), 10, ()),
    "separate activations, valid padding, dropout": lambda: keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(3, (3, 2), strides=(2, 1), padding="valid", use_bias=False),
            layers.ReLU(),
            layers.Dense(4),  # over the channels alone
            layers.Activation("relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(5),
            layers.Dense(3),
        ]
    ),
    "odd sizes, same padding": lambda: keras.Sequential(
        [
            keras.Input((7, 5, 2)),
            layers.Conv2D(4, (4, 3), strides=3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_same_function_as_keras(name: str) -> None:
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    for weight in model.weights:  # biases start at zero, which would hide them
        weight.assign(np.random.default_rng(0).normal(size=weight.shape) * 0.3)
    images = np.random.default_rng(1).random((9, *model.input_shape[1:]), dtype=np.float32)
    expected = np.asarray(model(images, training=False))
    np.testing.assert_allclose(relu_network(model)(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (layers.Dense(4, activation="gelu"), "gelu"),
        (layers.MaxPooling2D(), "MaxPooling2D"),
        (layers.Conv2D(2, 2, dilation_rate=2), "Conv2D"),
        (layers.ReLU(max_value=6), "ReLU"),
        (layers.Softmax(), "Softmax"),
    ],
)
def test_unsupported_layer_is_named(layer: layers.Layer, named: str) -> None:
    model = keras.Sequential([keras.Input((8, 8, 1)), layer, layers.Flatten(), layers.Dense(3)])
    with pytest.raises(CertiflowError, match=rf"layer 1 .*{named}.*choose another architecture"):
        relu_network(model)


def test_models_without_logits_are_refused() -> None:
    with pytest.raises(CertiflowError, match="ends with a ReLU"):
        relu_network(keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu")]))
    with pytest.raises(CertiflowError, match="no layer with weights"):
        relu_network(keras.Sequential([keras.Input((4,)), layers.Flatten()]))


def test_nan_weights_are_refused() -> None:
    with pytest.raises(CertiflowError, match="NaN"):
        ReluNetwork((Affine(np.array([[np.nan]]), np.zeros(1)),))


def test_gradient_matches_finite_differences() -> None:
    network = random_network(np.random.default_rng(0), (5, 8, 6, 3))
    points = np.random.default_rng(1).random((4, 5))
    direction = np.array([[1.0, -1.0, 0.5]])
    step = 1e-6
    expected = np.stack(
        [
            (network(points + step * axis) - network(points - step * axis)) @ direction[0]
            for axis in np.eye(5)
        ],
        axis=1,
    ) / (2 * step)
    gradient = network.gradient(points, np.repeat(direction, 4, axis=0))
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_digest_tells_networks_apart() -> None:
    network = hand_computed()
    first = Affine(network.layers[0].weight.copy(), network.layers[0].bias.copy())
    assert ReluNetwork((first, network.layers[1])).sha256 == network.sha256
    first.weight[0, 0] = np.nextafter(first.weight[0, 0], 2)
    assert ReluNetwork((first, network.layers[1])).sha256 != network.sha256
