"""Architectures by name: Keras models from images in [0, 1] to logits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import keras

Architecture = Literal["dense", "cnn_small", "cnn_medium"]

CONVOLUTIONS: dict[Architecture, tuple[tuple[int, int, int], ...]] = {  # channels, size, stride
    "cnn_small": ((16, 4, 2), (32, 4, 2)),
    "cnn_medium": ((32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 4, 2)),
}

MOST_SEED = 10**9  # as Keras draws them


def build(
    architecture: Architecture,
    input_shape: tuple[int, ...],
    num_classes: int,
    widths: Sequence[int],
    seed: int,
) -> keras.Sequential:
    """An untrained model with logits out, of layers that `relu_network` can lower.

    `dense` has ReLU layers of `widths`; (128,) is the reference network. `cnn_small` is the small
    network of Wong and Kolter 2018 ("Provable Defenses against Adversarial Examples"): 16
    and 32 channels of 4x4 with stride 2, then dense layers of `widths` (theirs: 100).
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
    if architecture in CONVOLUTIONS:
        model.add(layers.Reshape((*input_shape, 1)))
        for channels, size, stride in CONVOLUTIONS[architecture]:
            model.add(
                layers.Conv2D(
                    channels,
                    size,
                    stride,
                    padding="same",
                    activation="relu",
                    kernel_initializer=kernel(),
                )
            )
    model.add(layers.Flatten())
    for width in widths:
        model.add(layers.Dense(width, activation="relu", kernel_initializer=kernel()))
    model.add(layers.Dense(num_classes, name="logits", kernel_initializer=kernel()))
    return model


def describe(architecture: Architecture, widths: Sequence[int]) -> str:
    """A short name for runs and tables, such as `dense-128`."""
    return "-".join([architecture, *map(str, widths)])
