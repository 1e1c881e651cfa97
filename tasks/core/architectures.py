"""Architectures by name: Keras models from images in [0, 1] to logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import keras

Architecture = Literal["dense", "cnn_small"]


def build(
    architecture: Architecture,
    image_shape: tuple[int, ...],
    num_classes: int,
    hidden: Sequence[int],
) -> keras.Sequential:
    """An untrained model with logits out, of layers that `relu_network` can lower.

    `dense` has ReLU layers of the widths `hidden`; (128,) is the reference network. `cnn_small` is
    the small network of Wong and Kolter 2018 ("Provable Defenses against Adversarial Examples"):
    16 and 32 channels of 4x4 with stride 2, then dense layers of the widths `hidden` (theirs: 100).
    """
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input(image_shape)], name=architecture)
    if architecture == "cnn_small":
        model.add(layers.Reshape((*image_shape, 1)))
        for channels in (16, 32):
            model.add(layers.Conv2D(channels, 4, strides=2, padding="same", activation="relu"))
    model.add(layers.Flatten())
    for width in hidden:
        model.add(layers.Dense(width, activation="relu"))
    model.add(layers.Dense(num_classes, name="logits"))
    return model


def describe(architecture: Architecture, hidden: Sequence[int]) -> str:
    """A short name for runs and tables, such as `dense-128`."""
    return "-".join([architecture, *map(str, hidden)])
