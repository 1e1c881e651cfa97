"""What a BatchNormalization layer subtracts and divides by, where boxes pass through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

Moments = tuple[Any, Any]  # mean and variance of every channel
MomentsOf = Callable[[Any, Any], Moments]  # of a layer and its inputs, None if it was met before


def moving(layer: keras.layers.BatchNormalization, values: Any) -> Moments:
    """Those of inference, whatever the layer's inputs are."""
    return layer.moving_mean, layer.moving_variance


class OfBatch:
    """Those of the values with which a layer is first met, the moving ones following them.

    Every later pass of the same step takes them too: boxes, linear bounds and clean inputs go
    through one and the same network (Shi et al. 2021, section 3.3, who take them from the clean
    inputs; the centers of the boxes save a pass). One object serves one training step.
    """

    def __init__(self) -> None:
        self.found: dict[str, Moments] = {}

    def __call__(self, layer: keras.layers.BatchNormalization, values: Any) -> Moments:
        if layer.name not in self.found:
            self.found[layer.name] = mean, variance = _moments(values)
            _follow(layer.moving_mean, mean, layer.momentum)
            _follow(layer.moving_variance, variance, layer.momentum)
        return self.found[layer.name]


def _moments(values: Any) -> Moments:
    """Over all axes but the last, as products with ones: several times faster than reductions."""
    import tensorflow as tf

    rows = tf.reshape(values, (-1, values.shape[-1]))
    count = tf.shape(rows)[:1]
    mean = tf.linalg.matvec(rows, tf.ones(count), transpose_a=True) / tf.cast(count, rows.dtype)
    squares = tf.square(rows - mean)
    variance = tf.linalg.matvec(squares, tf.ones(count), transpose_a=True)
    return mean, variance / tf.cast(count, rows.dtype)


def _follow(variable: Any, value: Any, momentum: float) -> None:
    variable.assign(momentum * variable + (1 - momentum) * value)
