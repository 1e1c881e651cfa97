"""Normalization and Rescaling, at the raw values of tables: what Keras computes, and its error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tasks.core.bounds.float32_error import point_error
from tasks.core.errors import CertiflowError
from tasks.core.readers.keras_network import relu_network
from tests.core.bounds.test_float32_error import fused_sum, tree_sum

Single = np.float32
MEANS = [167_484.3, 1.6e9, 35.5, -3e7, 0.0]  # amounts, seconds since 1970, years, bytes, flags
DEVIATIONS = [129_747.7, 1e6, 9.2, 1e9, 1.0]


def raw(count: int, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).normal(MEANS, DEVIATIONS, size=(count, 5))
    return values.astype(Single)


def ended(*first: layers.Layer, shape: tuple[int, ...] = (5,)) -> keras.Model:
    """`first`, and a small classifier."""
    behind = [layers.Flatten(), layers.Dense(8, "relu"), layers.Dense(3)]
    model = keras.Sequential([keras.Input(shape), *first, *behind])
    generator = np.random.default_rng(0)
    for layer in model.layers[len(first) :]:
        for weight in layer.weights:
            weight.assign(generator.normal(size=weight.shape))
    return model


def adapted(points: Any, **options: Any) -> layers.Normalization:
    layer = layers.Normalization(**options)
    layer.adapt(points)
    return layer


VARIANCES = np.square(DEVIATIONS).tolist()
FIRST: dict[str, Callable[[], layers.Layer]] = {
    "given": lambda: layers.Normalization(mean=MEANS, variance=VARIANCES),
    "adapted": lambda: adapted(raw(300)),
    "one for all": lambda: layers.Normalization(axis=None, mean=2e6, variance=1e14),
    "of a constant column": lambda: layers.Normalization(mean=MEANS, variance=[*VARIANCES[:4], 0]),
    "inverse": lambda: layers.Normalization(mean=MEANS, variance=[1e-4] * 5, invert=True),
    "never adapted": layers.Normalization,
    "rescaled": lambda: layers.Rescaling(1 / 255, offset=-0.5),
    "rescaled by column": lambda: layers.Rescaling(
        [1 / each for each in DEVIATIONS], offset=[0.5] * 5
    ),
}


@pytest.mark.parametrize("name", FIRST)
def test_the_network_is_what_keras_computes_up_to_the_claimed_error(name: str) -> None:
    model = ended(FIRST[name]())
    network, points = relu_network(model), raw(400, seed=1)
    off = np.abs(np.asarray(model(points), dtype=np.float64) - network(points))
    allowed = point_error(network, points.astype(np.float64))
    assert np.isfinite(allowed).all()
    assert (off <= allowed).all()
    size = np.abs(network(points)).max()
    assert (off <= 1e-3 * size).all()


def test_the_network_is_exact_where_float32_is_not() -> None:
    """(x - mean) / deviation in float64, by hand, of Keras's own float32 numbers."""
    layer = layers.Normalization(mean=MEANS, variance=VARIANCES)
    model = ended(layer)
    points = raw(50).astype(np.float64)
    means, variances = np.array(MEANS, Single), np.array(VARIANCES, Single)
    x = (points - means.astype(np.float64)) / np.sqrt(variances.astype(np.float64))
    (first, bias), (last, offset) = (
        [np.asarray(weight, np.float64) for weight in each.weights] for each in model.layers[-2:]
    )
    expected = np.maximum(x @ first + bias, 0) @ last + offset
    np.testing.assert_allclose(relu_network(model)(points), expected, rtol=1e-9, atol=1e-9)


def in_some_order(generator: np.random.Generator, model: keras.Model, point: Any) -> Any:
    """One float32 pass: a root, a division or a product with its inverse, sums in any order."""
    normalise, _, *dense = model.layers
    root = np.sqrt(np.asarray(normalise.variance, Single)[0])
    deviation = np.maximum(root, Single(keras.config.epsilon()))
    centred = point - np.asarray(normalise.mean, Single)[0]
    inverse = Single(1) / deviation
    values = centred / deviation if generator.random() < 0.5 else centred * inverse
    for place, layer in enumerate(dense):
        kernel, bias = (np.asarray(weight, Single) for weight in layer.weights)
        sums = []
        for row, start in zip(kernel.T, bias, strict=True):
            order = generator.permutation(len(row))
            if generator.random() < 0.5:
                sums.append(fused_sum(row[order], values[order], start))
            else:
                sums.append(tree_sum(generator, [start, *(row * values)[order]]))
        values = np.array(sums, dtype=Single)
        values = np.maximum(values, 0) if place == 0 else values
    return values.astype(np.float64)


@pytest.mark.parametrize(("means", "least"), [(MEANS, 1e-5), ([1e5, 3e6, 35.5, 0.0, 0.5], 1e-3)])
def test_no_order_of_sums_goes_beyond_the_claimed_error(means: list[float], least: float) -> None:
    """Also where most of a raw value is its mean, and nearly all of its digits cancel."""
    generator = np.random.default_rng(0)
    model = ended(layers.Normalization(mean=means, variance=VARIANCES))
    network = relu_network(model)
    points = generator.normal(means, DEVIATIONS, size=(100, 5)).astype(Single)
    greatest = 0.0
    for point in points:
        exact = point.astype(np.float64)[None]
        off = np.abs(in_some_order(generator, model, point) - network(exact)[0])
        allowed = point_error(network, exact)[0]
        assert (off <= allowed).all()
        greatest = max(greatest, float((off / allowed).max()))
    assert greatest > least  # the error is not so large that nothing could fail


def test_a_negative_variance_is_refused() -> None:
    model = ended(layers.Normalization(name="n"))
    model.layers[0].adapt_variance.assign([1, -1, 1, 1, 1])
    model.layers[0].finalize_state()
    with pytest.raises(CertiflowError, match=r"layer 1 'n' \(Normalization\) has the variance -1"):
        relu_network(model)


def test_channels_first_inputs_are_moved() -> None:
    """As a served model takes them: bytes of 0 to 255, channel by channel."""
    moved = layers.Permute((2, 3, 1))
    scaled = layers.Rescaling([1 / 255, 1 / 128, 0.01], offset=-0.5)
    model = ended(moved, scaled, layers.Conv2D(4, 3, activation="relu"), shape=(3, 5, 6))
    points = np.random.default_rng(0).integers(0, 256, (20, 3, 5, 6)).astype(Single)
    expected = np.asarray(model(points))
    np.testing.assert_allclose(relu_network(model)(points), expected, rtol=1e-4, atol=1e-4)
