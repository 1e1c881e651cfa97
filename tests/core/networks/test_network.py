"""The float64 network is the Keras model's function, and refuses what it cannot express."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.errors import CertiflowError
from tasks.core.networks.block_matrix import BlockMatrix
from tasks.core.networks.matrices import DenseMatrix
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.readers.keras_network import relu_network
from tasks.core.training import architectures
from tests.networks import ball_around, hand_computed, random_network


def _residual() -> keras.Model:
    """Two residual blocks, the second with a projection; one layer is used twice."""
    source = keras.Input((6, 6, 2))
    twice = layers.Conv2D(4, 3, padding="same")
    first = layers.ReLU()(layers.Conv2D(4, 3, padding="same")(source))
    inner = layers.ReLU()(layers.BatchNormalization()(twice(first)))
    second = layers.ReLU()(layers.Add()([first, twice(inner)]))
    projected = layers.Conv2D(3, 1, strides=2)(second)
    deep = layers.Conv2D(3, 3, strides=2, padding="same", activation="relu")(second)
    joined = layers.Add()([projected, deep])
    return keras.Model(source, layers.Dense(3)(layers.GlobalAveragePooling2D()(joined)))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "dense": lambda: architectures.build("dense", (8, 8), 10, (16, 12), seed=0),
    "cnn_small": lambda: architectures.build("cnn_small", (8, 8), 10, (20,), seed=0),
    "no hidden layer": lambda: architectures.build("dense", (8, 8), 10, (), seed=0),
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
    "dilation, groups, depthwise": lambda: keras.Sequential(
        [
            keras.Input((8, 9, 2)),
            layers.Conv2D(4, (2, 3), dilation_rate=2, padding="same", activation="relu"),
            layers.Conv2D(6, 3, groups=2),
            layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2, padding="same"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    ),
    "pooling, batch normalisation": lambda: keras.Sequential(
        [
            keras.Input((9, 8, 2)),
            layers.BatchNormalization(),
            layers.Conv2D(3, 3, activation="relu"),
            layers.AveragePooling2D(2, strides=1, padding="same"),
            layers.BatchNormalization(scale=False),
            layers.MaxPooling2D((3, 2), strides=2, padding="same"),
            layers.GlobalAveragePooling2D(keepdims=True),
            layers.Flatten(),
            layers.Dense(3),
            layers.BatchNormalization(center=False),
        ]
    ),
    "residual": _residual,
}


@pytest.mark.parametrize("blocks", [False, True], ids=["dense", "in blocks"])
@pytest.mark.parametrize("name", MODELS)
def test_same_function_as_keras(name: str, blocks: bool, request: pytest.FixtureRequest) -> None:
    if blocks:
        request.getfixturevalue("in_blocks")
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    for weight in model.weights:  # biases start at zero, which would hide them
        values = np.random.default_rng(0).normal(size=weight.shape) * 0.3
        weight.assign(abs(values) if "variance" in weight.path else values)
    images = np.random.default_rng(1).random((9, *model.input_shape[1:]), dtype=np.float32)
    expected = np.asarray(model(images, training=False))
    network = relu_network(model)
    np.testing.assert_allclose(network(images), expected, rtol=1e-4, atol=1e-4)
    kind = BlockMatrix if blocks else DenseMatrix
    assert all(isinstance(layer.matrix, kind) for layer in network.layers)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (layers.Dense(4, activation="mish"), "mish"),
        (layers.Conv2D(2, (2, 1), data_format="channels_first"), "Conv2D"),
        (layers.Conv2D(2, 2, dtype="mixed_bfloat16"), "Conv2D in bfloat16"),
        (layers.LayerNormalization(), "LayerNormalization"),
        (layers.GaussianNoise(0.1), "GaussianNoise"),
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


def test_a_relu_before_a_move_of_elements_is_still_the_end() -> None:
    ending = [layers.Dense(4, activation="relu"), layers.Dropout(0.5), layers.Reshape((2, 2))]
    with pytest.raises(CertiflowError, match="ends with a ReLU"):
        relu_network(keras.Sequential([keras.Input((4,)), *ending]))


def test_models_that_are_no_fixed_graph_are_refused() -> None:
    with pytest.raises(CertiflowError, match=r"Sequential: only a .* of known input shape"):
        relu_network(keras.Sequential([layers.Dense(3)]))
    first, second = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([first, second], layers.Dense(3)(layers.Add()([first, second])))
    with pytest.raises(CertiflowError, match="with one input and one output"):
        relu_network(model)
    source = keras.Input((4,))
    with pytest.raises(CertiflowError, match=r"layer outside of layers .*\(Multiply\)"):
        relu_network(keras.Model(source, layers.Dense(3)(source * source)))


def test_a_batch_normalisation_of_negative_variance_is_refused() -> None:
    model = keras.Sequential([keras.Input((2,)), layers.BatchNormalization(), layers.Dense(2)])
    model.layers[0].moving_variance.assign([1.0, -3.0])
    with pytest.raises(
        CertiflowError, match=r"layer 1 .* variance -3\.0 \+ 0\.001\d* is not positive"
    ):
        relu_network(model)


def test_residual_connections_pass_through_as_linear_units() -> None:
    network = relu_network(_residual())
    assert [mask.any() for mask in network.linear] == [False, True, False, True]


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
    gradient = network.gradient(network.preactivations(points), np.repeat(direction, 4, axis=0))
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_digest_tells_networks_apart() -> None:
    network = hand_computed()
    first = Affine(network.layers[0].weight.copy(), network.layers[0].bias.copy())
    assert ReluNetwork((first, network.layers[1])).sha256 == network.sha256
    first.weight[0, 0] = np.nextafter(first.weight[0, 0], 2)
    assert ReluNetwork((first, network.layers[1])).sha256 != network.sha256


def test_units_that_are_zero_in_a_box_can_be_left_out() -> None:
    """The rest is the same function there, and not elsewhere."""
    generator = np.random.default_rng(0)
    dropped = 0
    for _ in range(20):
        network = random_network(generator, (4, 12, 9, 3))
        ball = ball_around(generator.uniform(0.2, 0.8, (1, 4)), 0.1)
        hidden = preactivation_bounds(network, ball, "interval")
        kept = [bounds.upper[0] > 0 for bounds in hidden]
        rest = network.restricted(kept)
        assert [len(layer.bias) for layer in rest.layers[:-1]] == [mask.sum() for mask in kept]
        inside = generator.uniform(ball.lower, ball.upper, (50, 4))
        np.testing.assert_allclose(rest(inside), network(inside), atol=1e-12)
        anywhere = generator.uniform(-5, 5, (50, 4))
        if not all(mask.all() for mask in kept):
            dropped += 1
            assert not np.allclose(rest(anywhere), network(anywhere))
    assert dropped >= 10
