"""A Keras model is read as the function it computes, or refused by the name of what differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tasks.core.errors import CertiflowError
from tasks.core.readers.keras_network import relu_network


def sequential(*inner: layers.Layer, shape: tuple[int, ...] = (4,)) -> keras.Model:
    """A model whose hidden layers have biases and statistics other than zero and one."""
    model = keras.Sequential([keras.Input(shape), *inner, layers.Flatten(), layers.Dense(3)])
    generator = np.random.default_rng(0)
    for weight in model.weights:
        values = generator.normal(size=weight.shape)
        weight.assign(abs(values) if "variance" in weight.path else values)
    return model


def functional(join: Callable[[Any], Any]) -> keras.Model:
    """A model that ends with the logits of what is done to its input."""
    source = keras.Input((4,))
    return keras.Model(source, layers.Dense(3)(join(source)))


def assert_reads(model: keras.Model) -> None:
    points = np.random.default_rng(1).normal(size=(50, *model.input_shape[1:])) * 5
    expected = np.asarray(model(points.astype(np.float32), training=False))
    network = relu_network(model)
    np.testing.assert_allclose(network(points.astype(np.float32)), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "activation",
    [
        layers.ReLU(),
        layers.ReLU(max_value=6),
        layers.ReLU(negative_slope=0.1),
        layers.ReLU(max_value=0.7, negative_slope=0.3),
        layers.LeakyReLU(),
        layers.LeakyReLU(negative_slope=0.7),
    ],
    ids=str,
)
def test_rectifiers_are_read_as_layers_and_as_activations(
    activation: layers.Layer, tmp_path: Path
) -> None:
    assert_reads(sequential(layers.Dense(5), activation))
    model = sequential(layers.Dense(5, activation=activation))
    assert_reads(model)
    model.save(tmp_path / "model.keras")
    assert_reads(keras.models.load_model(tmp_path / "model.keras"))


def test_settings_for_training_change_nothing() -> None:
    assert_reads(
        sequential(
            layers.Dense(5, "relu", activity_regularizer="l2", kernel_constraint="non_neg"),
            layers.BatchNormalization(momentum=0.5, synchronized=True, trainable=False),
            layers.Dropout(0.5),
            layers.SpatialDropout1D(0.5),
            shape=(3, 4),
        )
    )
    assert_reads(sequential(layers.BatchNormalization(axis=1), shape=(3, 4)))


def test_low_rank_updates_are_part_of_the_kernel() -> None:
    model = sequential(layers.Dense(5, "relu"))
    model.layers[0].enable_lora(2)
    model.layers[0].lora_kernel_b.assign(np.ones((2, 5)))
    assert_reads(model)


def test_a_layer_called_twice_is_two_maps() -> None:
    shared = layers.Dense(4, "relu", bias_initializer="ones")
    assert_reads(functional(lambda source: layers.Add()([shared(source), shared(shared(source))])))


@pytest.mark.parametrize("kind", ["int32", "bool", "float16", "float64"])
def test_inputs_that_keras_casts_are_refused(kind: str) -> None:
    model = keras.Sequential([keras.Input((4,), dtype=kind, name="pixels"), layers.Dense(3)])
    with pytest.raises(CertiflowError, match=f"input 'pixels' is {kind}, .* expected float32"):
        relu_network(model)


def test_sparse_inputs_are_refused() -> None:
    model = keras.Sequential([keras.Input((4,), sparse=True, name="words"), layers.Dense(3)])
    with pytest.raises(CertiflowError, match="input 'words' is sparse"):
        relu_network(model)


def relu(x: Any) -> Any:
    return keras.ops.relu6(x)


class Dense(layers.Dense):
    """It bears the name of Keras's layer, and computes the negative."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return -super().call(inputs, training=training)


class Rectifier(layers.ReLU):
    def call(self, inputs: Any) -> Any:
        return -super().call(inputs)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (layers.Dense(4, activation=relu), r"\(relu\) cannot be verified"),
        (layers.Dense(4, activation="mish"), r"\(mish\) cannot be verified"),
        (layers.Dense(4, activation=Rectifier()), r"\(Rectifier of .*test_keras_network\)"),
        (layers.Dense(4, activation=layers.ReLU(dtype="float16")), r"\(ReLU in float16\)"),
        (layers.Activation(relu), r"\(relu\) cannot be verified"),
        (layers.ReLU(threshold=0.5), r"\(ReLU with threshold = 0\.5\)"),
        (layers.GaussianNoise(0.1), r"\(GaussianNoise\)"),
        (layers.Dropout(0.5, dtype="float16"), r"\(Dropout in float16\)"),
        (Dense(4), r"\(Dense of .*test_keras_network\)"),
        (layers.Masking(), r"\(Masking\)"),
        (keras.Sequential([keras.Input((3, 4)), layers.Dense(2)]), r"\(Sequential\)"),
        (layers.Flatten(data_format="channels_first"), r"\(Flatten\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
def test_layers_of_another_function_are_named(layer: layers.Layer, named: str) -> None:
    with pytest.raises(CertiflowError, match=rf"layer 1 '{layer.name}' {named}"):
        relu_network(sequential(layer, shape=(3, 4)))


@pytest.mark.parametrize(
    ("join", "named"),
    [
        (
            lambda source: layers.BatchNormalization(name="norm")(source, training=True),
            r"layer 2 'norm' \(BatchNormalization\) is called with training = True",
        ),
        (
            lambda source: layers.Dropout(0.5, name="drop")(source, training=True),
            r"layer 2 'drop' \(Dropout\) is called with training = True",
        ),
        (
            lambda source: layers.Dense(2)(layers.Softmax(name="soft")(source, source)),
            r"layer 2 'soft' \(Softmax\) is called with argument 2",
        ),
        (
            lambda source: layers.Dense(2)(layers.Softmax(name="soft")(source, mask=source)),
            r"layer 2 'soft' \(Softmax\) is called with mask",
        ),
        (lambda source: keras.ops.add(source, 1.0), r"'add.*' \(Add\) cannot be verified"),
        (keras.activations.relu, r"\(ReLU\) cannot be verified"),
    ],
)
def test_calls_of_another_function_are_named(join: Callable[[Any], Any], named: str) -> None:
    with pytest.raises(CertiflowError, match=named):
        relu_network(functional(join))


def test_calls_for_inference_are_read() -> None:
    assert_reads(functional(lambda source: layers.BatchNormalization()(source, training=False)))


class Opposite(keras.Model):
    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return -super().call(inputs, training=training, mask=mask)


def test_models_with_code_of_their_own_are_refused() -> None:
    source = keras.Input((4,))
    with pytest.raises(CertiflowError, match="is a Opposite: only a "):
        relu_network(Opposite(source, layers.Dense(3)(source)))


@pytest.mark.parametrize(
    "ending",
    [
        [layers.Dense(3), layers.ReLU(max_value=6)],
        [layers.Dense(3, activation=layers.ReLU())],
        [layers.Dense(3), layers.Activation("relu")],
    ],
)
def test_rectified_ends_are_refused(ending: list[layers.Layer]) -> None:
    with pytest.raises(CertiflowError, match="ends with a ReLU"):
        relu_network(keras.Sequential([keras.Input((4,)), *ending]))
