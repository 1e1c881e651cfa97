"""Architectures by name: Keras models from images, or from rows of tables, to logits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from tasks.core.arrays import Float32Array, FloatArray
from tasks.core.properties.domain import Domain

if TYPE_CHECKING:
    import keras

Architecture = Literal["dense", "cnn_small", "cnn_wide", "cnn_medium"]

CONVOLUTIONS: dict[Architecture, tuple[tuple[int, int, int], ...]] = {  # channels, size, stride
    "cnn_small": ((16, 4, 2), (32, 4, 2)),
    "cnn_wide": ((32, 4, 2), (64, 4, 2)),
    "cnn_medium": ((32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 4, 2)),
}

GRAY = 2  # axes of an image without channels
MOMENTUM = (
    0.9  # Keras's 0.99 forgets its first values after hundreds of steps: small tables have few
)

Moments = tuple[FloatArray, FloatArray]  # means and variances, (inputs,) each

MOST_SEED = 10**9  # as Keras draws them


def build(
    architecture: Architecture,
    input_shape: tuple[int, ...],
    num_classes: int,
    widths: Sequence[int],
    seed: int,
    *,
    normalisation: Moments | None = None,
    batch_normalisation: bool = False,
) -> keras.Sequential:
    """An untrained model with logits out, of layers that `relu_network` can lower.

    Images are (height, width) or (height, width, channels). `normalisation` is a first layer of its
    own, so that the model takes raw values; `batch_normalisation` comes between all layers and
    their ReLUs (Ioffe and Szegedy 2015).

    `dense` has ReLU layers of `widths`; (128,) is the reference network. `cnn_small` is the small
    network of Wong and Kolter 2018 ("Provable Defenses against Adversarial Examples"): 16
    and 32 channels of 4x4 with stride 2, then dense layers of `widths` (theirs: 100). `cnn_wide`
    has twice as many channels.
    `cnn_medium` is the medium one of Gowal et al. 2018 ("On the Effectiveness of Interval Bound
    Propagation"): twice 3x3 and 4x4 with stride 2, of 32 and 64 channels (theirs: 512, 512).
    """
    import keras
    from keras import initializers, layers

    # Seeds of their own: Keras draws from Python's generator, and other threads do so meanwhile.
    seeds = random.Random(seed)

    def kernel() -> initializers.Initializer:
        return initializers.GlorotUniform(seed=seeds.randint(1, MOST_SEED))

    model = keras.Sequential([keras.Input(input_shape)], name=architecture)
    if normalisation is not None:
        mean, variance = (values.tolist() for values in normalisation)
        model.add(layers.Normalization(mean=mean, variance=variance))

    def add(layer: type[keras.layers.Layer], *form: int, **options: str) -> None:
        activation = None if batch_normalisation else "relu"
        model.add(layer(*form, **options, activation=activation, kernel_initializer=kernel()))
        if batch_normalisation:
            model.add(layers.BatchNormalization(momentum=MOMENTUM))
            model.add(layers.ReLU())

    if architecture in CONVOLUTIONS:
        if len(input_shape) == GRAY:
            model.add(layers.Reshape((*input_shape, 1)))
        for convolution in CONVOLUTIONS[architecture]:
            add(layers.Conv2D, *convolution, padding="same")
    model.add(layers.Flatten())
    for width in widths:
        add(layers.Dense, width)
    model.add(layers.Dense(num_classes, name="logits", kernel_initializer=kernel()))
    return model


def moments(inputs: Float32Array, domain: Domain) -> Moments:
    """Mean and variance of every column of a table, (n, inputs).

    0 and 1 for the columns of categories and those that are constant, which then stay as they are.
    """
    rows = inputs.astype(np.float64)
    mean, variance = rows.mean(axis=0), rows.var(axis=0)
    stays = variance == 0
    for _, columns in domain.groups:
        stays[columns] = True
    return np.where(stays, 0.0, mean), np.where(stays, 1.0, variance)


def describe(architecture: Architecture, widths: Sequence[int]) -> str:
    """A short name for runs and tables, such as `dense-128`."""
    return "-".join([architecture, *map(str, widths)])
