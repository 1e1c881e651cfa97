"""Interval and CROWN-IBP bounds of a Keras model, in TensorFlow, to train on.

The relaxations are those of `bounds.relaxations`, in float32 and with gradients; a test holds the
two together. Nothing is proved with these: they do not round outwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.errors import CertiflowError
from tasks.core.properties.perturbation import Perturbation
from tasks.core.training.batch_moments import Moments, MomentsOf, moving

if TYPE_CHECKING:
    import keras

SUPPORTED = (
    "Normalization first, Dense, Conv2D, Flatten, Reshape, and between them ReLU, with or without "
    "BatchNormalization of the last axis before it"
)


@dataclass(frozen=True, eq=False)
class AffineStep:
    """A Dense or Conv2D layer as an affine map from tensors of `input_shape`; ReLU excluded.

    With the BatchNormalization that follows it, if one does.
    """

    layer: Any
    input_shape: tuple[int, ...]
    norm: Any = None

    def image(self, values: Any, moments: MomentsOf) -> Any:
        """Of (batch, …) values."""
        image = self.times(values, self.layer.kernel) + self.layer.bias
        if self.norm is None:
            return image
        factor, shift = self._scaling(moments(self.norm, image))
        return image * factor + shift

    def affine(self, moments: MomentsOf) -> tuple[Any, Any]:
        """Kernel and bias, where `moments` has met this step's values in `image`."""
        if self.norm is None:
            return self.layer.kernel, self.layer.bias
        factor, shift = self._scaling(moments(self.norm, None))
        return self.layer.kernel * factor, self.layer.bias * factor + shift

    def _scaling(self, moments: Moments) -> tuple[Any, Any]:
        """What BatchNormalization multiplies by and then adds (Ioffe and Szegedy 2015, alg. 2)."""
        import tensorflow as tf

        mean, variance = moments
        factor = self.norm.gamma * tf.math.rsqrt(variance + self.norm.epsilon)
        return factor, self.norm.beta - mean * factor

    def times(self, values: Any, kernel: Any) -> Any:
        """`kernel` applied to (batch, …) without the bias."""
        import tensorflow as tf

        values = tf.reshape(values, (-1, *self.input_shape))
        if len(kernel.shape) == 2:
            return values @ kernel
        return tf.nn.conv2d(values, kernel, self.layer.strides, self.layer.padding.upper())

    def times_transposed(self, rows: Any, kernel: Any) -> Any:
        """Coefficients of the outputs, (batch, m, *outputs), to those of the inputs.

        Returns shape (batch, m, *input_shape).
        """
        import tensorflow as tf

        count = rows.shape[1]
        outputs = self.layer.output.shape[1:]
        if len(kernel.shape) == 2:
            flat = tf.reshape(rows, (-1, *outputs)) @ tf.transpose(kernel)
        else:
            images = tf.reshape(rows, (-1, *outputs))
            flat = tf.nn.conv2d_transpose(
                images,
                kernel,
                tf.concat([tf.shape(images)[:1], self.input_shape], 0),
                self.layer.strides,
                self.layer.padding.upper(),
            )
        return tf.reshape(flat, (-1, count, *self.input_shape))


@dataclass(frozen=True, eq=False)
class BoxTensors:
    """Bounds on one layer's values, each (batch, …)."""

    lower: Any
    upper: Any

    def clip(self, values: Any) -> Any:
        """Values moved into the boxes."""
        import tensorflow as tf

        return tf.clip_by_value(values, self.lower, self.upper)


@dataclass(frozen=True, eq=False)
class Balls:
    """`Perturbation.box` in TensorFlow, without its roundings; categories stay."""

    down: Any
    up: Any
    lower: Any
    upper: Any

    @classmethod
    def of(cls, perturbation: Perturbation) -> Balls:
        """Of one input's shape, or one number for all pixels."""
        domain = perturbation.domain
        arrays = (perturbation.down, perturbation.up, domain.lower, domain.upper)
        return cls(*(array.astype(np.float32) for array in arrays))

    def around(self, inputs: Any, epsilon: Any) -> BoxTensors:
        """The boxes of radius epsilon, within the domain."""
        import tensorflow as tf

        return BoxTensors(
            tf.maximum(inputs - epsilon * self.down, self.lower),
            tf.minimum(inputs + epsilon * self.up, self.upper),
        )


@dataclass(frozen=True, eq=False)
class BoundedNetwork:
    """A model as affine steps with a ReLU between each two, the last one dense.

    BatchNormalization belongs to the step before it, with the moving moments where no others are
    given.

    Its inputs are what a first Normalization layer gives, if there is one: an affine map of every
    input by itself, with a positive factor, takes boxes to boxes exactly. See `normalised`.
    """

    steps: Sequence[AffineStep]
    normalisation: keras.layers.Normalization | None = None

    @classmethod
    def of(cls, model: keras.Sequential) -> BoundedNetwork:
        """Raises `CertiflowError` naming the first layer that cannot be bounded."""
        import keras

        steps: list[AffineStep] = []
        after_relu = True
        normalisation, layers = None, model.layers
        if isinstance(layers[0], keras.layers.Normalization) and not layers[0].invert:
            normalisation, *layers = layers
        for layer in layers:
            match layer:
                case keras.layers.Flatten() | keras.layers.Reshape():
                    continue
                case keras.layers.Dense() | keras.layers.Conv2D() if after_relu:
                    _check(layer)
                    steps.append(AffineStep(layer, tuple(layer.input.shape[1:])))
                    after_relu = layer.activation.__name__ == "relu"
                case keras.layers.BatchNormalization() if not after_relu and steps[-1].norm is None:
                    _check_norm(layer)
                    steps[-1] = replace(steps[-1], norm=layer)
                case keras.layers.ReLU() if not after_relu and layer.max_value is None:
                    after_relu = True
                case _:
                    raise _unsupported(layer, type(layer).__name__)
        if after_relu or not isinstance(model.layers[-1], keras.layers.Dense):
            raise _unsupported(model.layers[-1], "the last layer, which must be a linear Dense")
        return cls(steps, normalisation)

    def normalised(self, ball: BoxTensors) -> BoxTensors:
        """Boxes of the model's inputs as boxes of the network's."""
        if self.normalisation is None:
            return ball
        return BoxTensors(self.normalisation(ball.lower), self.normalisation(ball.upper))

    def preactivations(
        self, lower: Any, upper: Any, moments: MomentsOf = moving
    ) -> list[BoxTensors]:
        """Interval bounds on the inputs of every ReLU (Gowal et al. 2018, section 3.1)."""
        import tensorflow as tf

        found: list[BoxTensors] = []
        for step in self.steps[:-1]:
            center, radius = (upper + lower) / 2, (upper - lower) / 2
            center = step.image(center, moments)
            kernel, _ = step.affine(moments)
            radius = step.times(radius, tf.abs(kernel))
            found.append(BoxTensors(center - radius, center + radius))
            lower, upper = tf.nn.relu(found[-1].lower), tf.nn.relu(found[-1].upper)
        return found

    def logits(self, inputs: Any, moments: MomentsOf) -> Any:
        """What the model says to inputs as `normalised` gives them."""
        import tensorflow as tf

        for step in self.steps[:-1]:
            inputs = tf.nn.relu(step.image(inputs, moments))
        return self.steps[-1].image(inputs, moments)

    def interval_margins(self, labels: Any, hidden: Sequence[BoxTensors], ball: BoxTensors) -> Any:
        """Lower bounds on `logit[label] - logit[j]`, (batch, classes), from the last hidden box.

        The last layer and the subtraction are one map (the "elision" of Gowal et al. 2018).
        """
        import tensorflow as tf

        box = (
            BoxTensors(tf.nn.relu(hidden[-1].lower), tf.nn.relu(hidden[-1].upper))
            if hidden
            else ball
        )
        rows, constant = self._margin_rows(labels)
        return constant + _least(rows, BoxTensors(_flat(box.lower), _flat(box.upper)))

    def crown_margins(
        self,
        labels: Any,
        hidden: Sequence[BoxTensors],
        ball: BoxTensors,
        moments: MomentsOf = moving,
    ) -> Any:
        """The same by linear bounds from the margins back to the ball (Zhang et al. 2020)."""
        import tensorflow as tf

        rows, constant = self._margin_rows(labels)
        rows = tf.reshape(rows, (-1, rows.shape[1], *self.steps[-1].input_shape))
        for step, box in zip(self.steps[-2::-1], hidden[::-1], strict=True):
            rows = tf.reshape(rows, (-1, rows.shape[1], *box.lower.shape[1:]))
            lower_slope, upper_slope, intercept = relu_lines(box)
            positive, negative = tf.nn.relu(rows), -tf.nn.relu(-rows)
            constant += _sum(negative * intercept[:, None])
            rows = positive * lower_slope[:, None] + negative * upper_slope[:, None]
            kernel, bias = step.affine(moments)
            constant += _sum(rows * bias)
            rows = step.times_transposed(rows, kernel)
        flat = tf.reshape(rows, (-1, rows.shape[1], prod(rows.shape[2:])))
        return constant + _least(flat, BoxTensors(_flat(ball.lower), _flat(ball.upper)))

    def _margin_rows(self, labels: Any) -> tuple[Any, Any]:
        """Over the last activations: (batch, classes, units), and constants (batch, classes)."""
        import tensorflow as tf

        last = self.steps[-1].layer
        weight = tf.transpose(last.kernel)
        rows = tf.gather(weight, labels)[:, None] - weight
        return rows, tf.gather(last.bias, labels)[:, None] - last.bias


def relu_lines(box: BoxTensors) -> tuple[Any, Any, Any]:
    """Lower slope, upper slope and upper intercept, as `Relaxation.of` gives them."""
    import tensorflow as tf

    lower, upper = box.lower, box.upper
    unstable = (lower < 0) & (upper > 0)
    active = tf.cast(lower >= 0, lower.dtype)
    chord = upper / tf.where(unstable, upper - lower, 1.0)
    return (
        tf.where(unstable, tf.cast(upper > -lower, lower.dtype), active),
        tf.where(unstable, chord, active),
        tf.where(unstable, -chord * lower, 0.0),
    )


def _least(rows: Any, box: BoxTensors) -> Any:
    """Minimum over the box of (batch, m, n) `rows` times (batch, n)."""
    import tensorflow as tf

    center, radius = (box.upper + box.lower) / 2, (box.upper - box.lower) / 2
    return tf.linalg.matvec(rows, center) - tf.linalg.matvec(tf.abs(rows), radius)


def _sum(terms: Any) -> Any:
    """(batch, m, …) to (batch, m)."""
    import tensorflow as tf

    return tf.reduce_sum(terms, axis=range(2, len(terms.shape)))


def _flat(values: Any) -> Any:
    import tensorflow as tf

    return tf.reshape(values, (-1, prod(values.shape[1:])))


def _check(layer: Any) -> None:
    if not layer.use_bias:
        raise _unsupported(layer, "without a bias")
    if layer.activation.__name__ not in {"relu", "linear"}:
        raise _unsupported(layer, layer.activation.__name__)
    groups, dilation = getattr(layer, "groups", 1), getattr(layer, "dilation_rate", (1, 1))
    if groups != 1 or tuple(dilation) != (1, 1):
        raise _unsupported(layer, "grouped or dilated")


def _check_norm(layer: Any) -> None:
    axis, last = np.atleast_1d(layer.axis).tolist(), len(layer.input.shape) - 1
    if axis not in ([-1], [last]) or not (layer.scale and layer.center):
        raise _unsupported(layer, f"BatchNormalization of axis {axis}, or without gamma or beta")


def _unsupported(layer: Any, what: str) -> CertiflowError:
    return CertiflowError(
        f"layer '{layer.name}' ({what}) cannot be bounded in training: supported are {SUPPORTED}; "
        "choose another training.architecture, or a defence by attacks (fgsm, pgd, trades)"
    )
