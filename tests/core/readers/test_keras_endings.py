"""A softmax or a sigmoid at the end of a Keras model: its logits decide what the model decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tasks.core.bounds.float32_error import point_error
from tasks.core.errors import CertiflowError
from tasks.core.models.loading import load
from tasks.core.readers.keras_endings import deciding, logits_of
from tasks.core.readers.keras_network import relu_network

ENDINGS: dict[str, tuple[list[layers.Layer], str]] = {
    "softmax activation": ([layers.Dense(3, "softmax")], "softmax"),
    "softmax layer as activation": ([layers.Dense(3, activation=layers.Softmax())], "softmax"),
    "softmax layer": ([layers.Dense(3), layers.Softmax()], "softmax"),
    "softmax by name": ([layers.Dense(3), layers.Activation("softmax")], "softmax"),
    "log softmax": ([layers.Dense(3, "log_softmax")], "log_softmax"),
    "sigmoid activation": ([layers.Dense(1, "sigmoid")], "sigmoid"),
    "sigmoid by name": ([layers.Dense(1), layers.Activation("sigmoid")], "sigmoid"),
    "logits": ([layers.Dense(3)], "logits"),
}


def ended(name: str) -> keras.Model:
    ending = [type(layer).from_config(layer.get_config()) for layer in ENDINGS[name][0]]
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, "relu"), *ending])
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.normal(size=weight.shape))
    return model


def decisions(outputs: Any) -> np.ndarray:
    """What a user of the model decides by its outputs."""
    values = np.asarray(outputs)
    return (values[:, 0] > 0.5).astype(int) if values.shape[1] == 1 else values.argmax(axis=1)


@pytest.mark.parametrize("name", ENDINGS)
def test_the_logits_decide_as_the_model(name: str, tmp_path: Path) -> None:
    model = ended(name)
    model.save(tmp_path / "model.keras")
    loaded = load(tmp_path / "model.keras")
    assert loaded.ending == logits_of(model)[1] == ENDINGS[name][1]
    points = np.random.default_rng(1).normal(size=(500, 4)).astype(np.float32)
    logits, expected = loaded.runtime.logits(points), decisions(model(points))
    assert len(set(expected)) > 1
    np.testing.assert_array_equal(logits.argmax(axis=1), expected)
    np.testing.assert_array_equal(loaded.network(points).argmax(axis=1), expected)
    np.testing.assert_allclose(loaded.network(points), logits, rtol=1e-5, atol=1e-5)


def test_probabilities_are_those_of_the_logits() -> None:
    points = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    for name in ("softmax activation", "softmax layer", "log softmax", "sigmoid activation"):
        model = ended(name)
        logits = np.asarray(deciding(model)(points), dtype=np.float64)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        outputs = np.asarray(model(points))
        given = np.exp(outputs) if name == "log softmax" else outputs
        np.testing.assert_allclose(shares[:, -given.shape[1] :], given, rtol=1e-4, atol=1e-6)


def test_a_model_with_logits_is_left_as_it_is() -> None:
    model = ended("logits")
    assert deciding(model) is model


def one_logit(ending: layers.Layer) -> keras.Model:
    """Its logit is its input."""
    source = keras.Input((1,))
    dense = layers.Dense(1, kernel_initializer="ones")
    return keras.Model(source, ending(dense(source)))


@pytest.mark.parametrize("logit", [0.0, 1e-9, 2.0**-26, -(2.0**-26), 2.0**-130])
def test_a_sigmoid_of_one_half_decides_for_label_0(logit: float) -> None:
    """In float32 it is 1/2 at small positive logits too: the model's own decision counts."""
    model = one_logit(layers.Activation("sigmoid"))
    point = np.array([[logit]], dtype=np.float32)
    assert np.asarray(model(point))[0, 0] <= 0.5
    zero, other = np.asarray(deciding(model)(point))[0]
    assert zero == 0.0
    assert other < 0
    network = relu_network(model)
    # no proof that the deployed model is on either side
    assert point_error(network, point.astype(np.float64))[0, 1] > abs(logit)


def test_logits_too_near_for_a_float32_softmax_are_no_deployed_proof() -> None:
    """By 2^-26 apart they give equal probabilities, where the order of the classes decides."""
    source = keras.Input((2,))
    model = keras.Model(source, layers.Dense(2, "softmax", kernel_initializer="identity")(source))
    point = np.array([[0.0, 2.0**-26]], dtype=np.float32)
    shares = np.asarray(model(point))[0]
    assert shares[0] == shares[1]
    network = relu_network(model)
    first, second = network(point)[0]
    assert first < second
    assert point_error(network, point.astype(np.float64)).min() > second - first


def test_a_closing_layer_that_is_used_twice_is_a_softmax_within() -> None:
    """Only the last call's softmax is taken off."""
    keras.utils.set_random_seed(0)
    shared = layers.Dense(3, "softmax", name="shared")
    source = keras.Input((3,))
    model = keras.Model(source, shared(shared(source)))
    points = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    network = relu_network(model)
    assert network.is_curved
    logits = network(points)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, np.asarray(model(points)), atol=1e-5)


@pytest.mark.parametrize(
    ("ending", "shape", "message"),
    [
        (layers.Dense(3, "sigmoid", name="d"), (4,), r"'d' is a sigmoid of shape \(3,\), a decis"),
        (layers.Dense(1, "softmax", name="d"), (4,), r"'d' is a softmax along axis -1 of .*\(1,\)"),
        (layers.Softmax(axis=1, name="s"), (4, 3), r"'s' is a softmax along axis 1 of .*\(4, 3\)"),
        (layers.Dense(3, "softmax", name="d"), (4, 3), r"'d' is a softmax along axis -1"),
    ],
)
def test_endings_that_decide_something_else_are_refused(
    ending: layers.Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(CertiflowError, match=message):
        relu_network(keras.Sequential([keras.Input(shape), ending]))


@pytest.mark.parametrize("mask", ["positional", "keyword", "tensor"])
def test_a_mask_of_the_closing_softmax_is_refused(mask: str, tmp_path: Path) -> None:
    """It takes classes out of the choice."""
    source = keras.Input((4,))
    logits, kept = layers.Dense(3)(source), np.array([[True, False, True]])
    softmax = layers.Softmax(name="end")
    if mask == "keyword":
        output = softmax(logits, mask=kept)
    else:
        output = softmax(logits, kept if mask == "positional" else layers.Dense(3)(source))
    path = tmp_path / "model.keras"
    keras.Model(source, output).save(path)
    with pytest.raises(CertiflowError, match=r"is called with (argument 2|mask), which cannot"):
        load(path)


class Turned(layers.Softmax):
    """Of the negated logits."""

    def call(self, inputs: Any, mask: Any = None) -> Any:
        return super().call(-inputs, mask)


@pytest.mark.parametrize(
    ("activation", "named"),
    [(layers.Softmax(dtype="float16"), "Softmax in float16"), (Turned(), "Turned of tests")],
)
def test_a_closing_softmax_that_computes_otherwise_is_refused(
    activation: layers.Layer, named: str
) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation=activation)])
    with pytest.raises(CertiflowError, match=named):
        relu_network(model)
