"""Bounds to train on are those of the engine, and sound."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.bounds import linear, relaxations
from tasks.core.errors import CertiflowError
from tasks.core.networks.activation import Activation
from tasks.core.properties.box import Box
from tasks.core.readers.keras_network import relu_network
from tasks.core.training.batch_moments import OfBatch
from tasks.core.training.training_bounds import BoundedNetwork, BoxTensors, relu_lines
from tests.networks import ball_around
from tests.oracle import least_margin

CONVOLUTION = keras.layers.Conv2D


def model(*hidden: keras.layers.Layer, seed: int = 0) -> keras.Sequential:
    """From 4x4 images to three logits, with biases that are not zero."""
    keras.utils.set_random_seed(seed)
    made = keras.Sequential([keras.Input((4, 4)), *hidden, keras.layers.Dense(3)])
    generator = np.random.default_rng(seed)
    for layer in made.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            _scatter(layer, generator)
        elif layer.weights:
            layer.bias.assign(generator.normal(0, 0.2, layer.bias.shape))
    return made


def _scatter(layer: keras.layers.BatchNormalization, generator: np.random.Generator) -> None:
    """Numbers as after a training; some factors are negative."""
    shape = layer.gamma.shape
    layer.gamma.assign(generator.choice([-1.0, 1.0], shape) * generator.uniform(0.5, 1.5, shape))
    layer.beta.assign(generator.normal(0, 0.2, shape))
    layer.moving_mean.assign(generator.normal(0, 0.3, shape))
    layer.moving_variance.assign(generator.uniform(0.2, 2.0, shape))


def dense(*widths: int, seed: int = 0) -> keras.Sequential:
    layers = [keras.layers.Dense(width, activation="relu") for width in widths]
    return model(keras.layers.Flatten(), *layers, seed=seed)


def convolutional(seed: int = 0, padding: str = "same") -> keras.Sequential:
    return model(
        keras.layers.Reshape((4, 4, 1)),
        CONVOLUTION(2, 3, strides=2, padding=padding, activation="relu"),
        CONVOLUTION(3, 2, padding="same"),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(4, activation="relu"),
        seed=seed,
    )


def batch_normalised(seed: int = 0) -> keras.Sequential:
    """After a convolution, and after a dense layer."""
    return model(
        keras.layers.Reshape((4, 4, 1)),
        CONVOLUTION(2, 3, padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        seed=seed,
    )


def normalisation() -> keras.layers.Layer:
    """Of every column of the images by itself."""
    return keras.layers.Normalization(mean=[0.1, 0.5, 0.9, -2.0], variance=[0.04, 1.0, 9.0, 0.25])


MODELS = {
    "normalised": lambda seed: model(
        normalisation(),
        keras.layers.Flatten(),
        keras.layers.Dense(6, activation="relu"),
        keras.layers.Dense(4, activation="relu"),
        seed=seed,
    ),
    "normalised and linear": lambda seed: model(normalisation(), keras.layers.Flatten(), seed=seed),
    "linear": lambda seed: model(keras.layers.Flatten(), seed=seed),
    "shallow": lambda seed: dense(6, seed=seed),
    "deep": lambda seed: dense(6, 5, 4, seed=seed),
    "convolutional": convolutional,
    "batch normalised": batch_normalised,
    "unpadded": lambda seed: convolutional(seed, padding="valid"),
}


def case(kind: str, seed: int) -> tuple[keras.Sequential, FloatArray, IntArray, Box]:
    made = MODELS[kind](seed)
    images = np.random.default_rng(seed).random((6, 4, 4)).astype(np.float32)
    labels = np.asarray(made(images)).argmax(axis=1)
    return made, images, labels, ball_around(images, 0.08)


def trained_on(
    made: keras.Sequential, labels: IntArray, ball: Box
) -> tuple[list[BoxTensors], FloatArray, FloatArray]:
    """Hidden boxes, and the margins of the other classes by intervals and by linear bounds."""
    network = BoundedNetwork.of(made)
    edges = (edge.reshape(-1, 4, 4).astype(np.float32) for edge in (ball.lower, ball.upper))
    box = network.normalised(BoxTensors(*edges))
    hidden = network.preactivations(box.lower, box.upper)
    others = np.arange(3) != labels[:, None]
    interval, crown = (
        np.asarray(method(labels, hidden, box))[others].reshape(len(labels), 2)
        for method in (network.interval_margins, network.crown_margins)
    )
    return hidden, interval, crown


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_same_bounds_as_the_engine(kind: str, seed: int) -> None:
    made, _, labels, ball = case(kind, seed)
    hidden, interval, crown = trained_on(made, labels, ball)
    network = relu_network(made)
    engine = linear.preactivation_bounds(network, ball, "interval")
    assert len(hidden) == len(engine)
    for ours, theirs in zip(hidden, engine, strict=True):
        size = (len(labels), -1)
        np.testing.assert_allclose(np.reshape(ours.lower, size), theirs.lower, atol=1e-5)
        np.testing.assert_allclose(np.reshape(ours.upper, size), theirs.upper, atol=1e-5)
    rows = linear.margin_rows(labels, 3)
    np.testing.assert_allclose(
        interval, linear.interval_lower_bounds(network, rows, engine, ball), atol=1e-5
    )
    # the engine takes the best of what its backward pass meets: both of these, and more if deep
    best = linear.margin_lower_bounds(network, ball, labels, engine)
    assert (np.maximum(interval, crown) <= best + 1e-5).all()
    if len(hidden) < 2:
        np.testing.assert_allclose(np.maximum(interval, crown), best, atol=1e-5)


def test_the_backward_pass_itself_is_the_engines() -> None:
    """Where linear bounds beat every box on the way, the engine's best is this bound."""
    seen = 0
    for seed in range(8):
        made, _, labels, ball = case("deep", seed)
        _, interval, crown = trained_on(made, labels, ball_around(ball.lower, 0.02))
        network = relu_network(made)
        near = ball_around(ball.lower, 0.02)
        engine = linear.preactivation_bounds(network, near, "interval")
        best = linear.margin_lower_bounds(network, near, labels, engine)
        ahead = crown > interval + 0.05
        seen += int(ahead.sum())
        np.testing.assert_allclose(crown[ahead], best[ahead], atol=0.02)
    assert seen >= 20


@pytest.mark.parametrize("kind", MODELS)
def test_never_above_the_exact_least_margin(kind: str) -> None:
    for seed in range(4):
        made, images, labels, ball = case(kind, seed)
        _, interval, crown = trained_on(made, labels, ball)
        network = relu_network(made)
        for row in range(len(images)):
            one = Box(ball.lower[row : row + 1], ball.upper[row : row + 1])
            exact = least_margin(network, one, int(labels[row]))
            assert interval[row].min() <= exact + 1e-5
            assert crown[row].min() <= exact + 1e-5


@pytest.mark.parametrize(
    ("lower", "upper"), [(-1.0, 2.0), (-2.0, 1.0), (-1.0, 1.0), (0.0, 1.0), (-1.0, 0.0), (0.0, 0.0)]
)
def test_same_lines_around_relu_as_the_engine(lower: float, upper: float) -> None:
    engine = relaxations.Relaxation.of(
        relaxations.Bounds(np.array([[lower]]), np.array([[upper]])),
        Activation.of_relus(np.array([False])),
    )
    ours = relu_lines(BoxTensors(np.array([[lower]], np.float32), np.array([[upper]], np.float32)))
    theirs = (engine.lower_slope, engine.upper_slope, engine.upper_intercept)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_moments_of_a_batch_are_those_of_keras() -> None:
    """On boxes without a radius; and the moving ones follow as they do there."""
    ours, theirs = batch_normalised(), batch_normalised()
    theirs.set_weights(ours.get_weights())
    images = np.random.default_rng(1).random((40, 4, 4)).astype(np.float32)
    network, moments = BoundedNetwork.of(ours), OfBatch()
    hidden = network.preactivations(images, images, moments)
    logits = theirs(images, training=True)
    np.testing.assert_allclose(network.logits(images, moments), logits, atol=1e-4)
    for box in hidden:
        np.testing.assert_allclose(box.lower, box.upper, atol=1e-5)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_one_step_has_one_network() -> None:
    """Boxes, linear bounds and inputs within: with the centers' moments, whatever is asked next."""
    made = batch_normalised(seed=3)
    network, moments = BoundedNetwork.of(made), OfBatch()
    images = np.random.default_rng(1).random((40, 4, 4)).astype(np.float32)
    labels = np.asarray(made(images)).argmax(axis=1)
    ball = BoxTensors(images - np.float32(0.05), images + np.float32(0.05))
    hidden = network.preactivations(ball.lower, ball.upper, moments)
    moving_after = [weights.copy() for weights in made.get_weights()]
    least = np.maximum(
        network.interval_margins(labels, hidden, ball),
        network.crown_margins(labels, hidden, ball, moments),
    )
    for corner in np.random.default_rng(2).uniform(-0.05, 0.05, (50, *images.shape)):
        logits = np.asarray(network.logits((images + corner).astype(np.float32), moments))
        margins = logits[np.arange(40), labels][:, None] - logits
        assert (least <= margins + 1e-5).all()
    for before, after in zip(moving_after, made.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def unscaled() -> list[keras.layers.Layer]:
    return [keras.layers.BatchNormalization(scale=False), keras.layers.ReLU()]


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ([keras.layers.Reshape((4, 4, 1)), keras.layers.MaxPooling2D()], "MaxPooling2D"),
        ([keras.layers.Flatten(), keras.layers.Dense(4)], "Dense"),
        ([keras.layers.Flatten(), keras.layers.Dense(4, activation="tanh")], "tanh"),
        ([keras.layers.Reshape((4, 4, 1)), CONVOLUTION(2, 2, dilation_rate=2)], "dilated"),
        ([keras.layers.Flatten(), keras.layers.BatchNormalization()], "BatchNormalization"),
        (
            [
                keras.layers.Reshape((4, 4, 1)),
                CONVOLUTION(2, 2),
                keras.layers.BatchNormalization(axis=1),
                keras.layers.ReLU(),
            ],
            "BatchNormalization of axis",
        ),
        (
            [keras.layers.Flatten(), keras.layers.Dense(4), *unscaled()],
            "BatchNormalization of axis",
        ),
        ([keras.layers.Flatten(), keras.layers.Normalization()], "Normalization"),
        ([keras.layers.Normalization(mean=0, variance=1, invert=True)], "Normalization"),
    ],
)
def test_layers_that_cannot_be_bounded_are_named(
    layers: list[keras.layers.Layer], named: str
) -> None:
    made = keras.Sequential([keras.Input((4, 4)), *layers])
    made.add(keras.layers.Flatten())
    made.add(keras.layers.Dense(3))
    with pytest.raises(CertiflowError, match=rf"\(.*{named}.*\) cannot be bounded .* choose"):
        BoundedNetwork.of(made)
