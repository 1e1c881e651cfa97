"""Keras models with activations other than ReLU are what Keras computes."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

from tasks.core.readers.keras_activations import NAMES
from tasks.core.readers.keras_network import relu_network

IMAGE = (3, 4, 2)


def sequential(*body: layers.Layer, shape: tuple[int, ...] = (5,)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *body, layers.Flatten(), layers.Dense(3)])


def gated() -> keras.Model:
    source = keras.Input((5,))
    both = [layers.Dense(4)(source), layers.Dense(4, activation="sigmoid")(source)]
    joined = layers.Multiply()([*both, layers.Dense(1, activation="tanh")(source)])
    return keras.Model(source, layers.Dense(3)(joined))


MODELS: dict[str, Callable[[], keras.Model]] = {
    **{
        name: lambda name=name: sequential(  # type: ignore[misc]
            layers.Dense(6, activation=name), layers.Activation(name)
        )
        for name in NAMES
        if name not in {"relu", "linear"}
    },
    "elu layer": lambda: sequential(layers.ELU(0.3), layers.ELU()),
    "prelu": lambda: sequential(layers.PReLU(shared_axes=[1, 2]), shape=IMAGE),
    "softmax layers": lambda: sequential(layers.Softmax(), layers.Softmax(axis=1), shape=(3, 4)),
    "activation layers": lambda: sequential(layers.Dense(4, activation=layers.Softmax())),
    "gated": gated,
    "upsampling": lambda: sequential(layers.UpSampling2D((2, 3)), shape=IMAGE),
    **{
        f"transposed {padding} {kernel} {strides}": lambda a=padding, b=kernel, c=strides: (  # type: ignore[misc]
            sequential(layers.Conv2DTranspose(3, b, strides=c, padding=a), shape=IMAGE)
        )
        for padding in ("same", "valid")
        for kernel, strides in (((3, 3), 1), ((4, 3), (2, 2)), ((2, 3), (3, 1)), ((1, 2), 3))
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_same_function_as_keras(name: str) -> None:
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape) * 0.4)
    inputs = np.random.default_rng(1).normal(size=(20, *model.input_shape[1:])).astype(np.float32)
    expected = np.asarray(model(inputs, training=False))
    np.testing.assert_allclose(relu_network(model)(inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ending", ["sigmoid", "softmax", "tanh", "relu"])
def test_outputs_are_the_models_own_where_that_is_asked(ending: str) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation=ending)])
    inputs = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    found = relu_network(model, whole=True)(inputs)
    np.testing.assert_allclose(found, np.asarray(model(inputs)), atol=1e-5)
