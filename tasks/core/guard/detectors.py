"""Who says that an input is not to be trusted: the certificate, and detectors of the literature.

Each gives a score, differentiable by the input, and flags what scores above its threshold. The
certificate's threshold is a proof; the others' are quantiles of clean inputs. Scores of tensors
(batch, …) have shape (batch,).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tasks.core.arrays import Float32Array, FloatArray, Inputs, IntArray
from tasks.core.properties.perturbation import Perturbation
from tasks.core.training.training_bounds import Balls, BoundedNetwork

if TYPE_CHECKING:
    import keras

BITS = 1  # that feature squeezing leaves a pixel, as Xu et al. do on MNIST
BATCH = 500


class Detector(Protocol):
    """Scores above `threshold` are flagged."""

    threshold: float

    @property
    def name(self) -> str:
        """As the literature calls it."""

    def score(self, inputs: Any, logits: Any, /) -> Any:
        """How little inputs are to be trusted, with these logits."""


@dataclass(eq=False)
class Certificate:
    """Minus the certified margin of the label given, by intervals: above 0 nothing is proved.

    In TensorFlow's float32, to be attacked through; whether an input is accepted is for the graph
    to say (`certificate.CertificateRuntime`), which rounds outwards.
    """

    bounded: BoundedNetwork
    balls: Balls
    epsilon: float
    by_crown: bool = False
    threshold: float = 0.0

    @classmethod
    def of(
        cls, model: keras.Sequential, perturbation: Perturbation, epsilon: float, *, by_crown: bool
    ) -> Certificate:
        """Raises `CertiflowError` where the model cannot be bounded in TensorFlow."""
        balls = Balls.of(perturbation.both_ways())
        return cls(BoundedNetwork.of(model), balls, epsilon, by_crown)

    @property
    def name(self) -> str:
        return "certificate (CROWN)" if self.by_crown else "certificate"

    def score(self, inputs: Any, logits: Any) -> Any:
        import tensorflow as tf

        return -self.margins(inputs, tf.argmax(logits, axis=1))

    def margins(self, inputs: Any, labels: Any) -> Any:
        """Certified least margin of the labels all over the inputs' balls."""
        import tensorflow as tf

        ball = self.bounded.normalised(self.balls.around(inputs, self.epsilon))
        hidden = self.bounded.preactivations(ball.lower, ball.upper)
        bound = self.bounded.crown_margins if self.by_crown else self.bounded.interval_margins
        margins = bound(labels, hidden, ball)
        own = tf.one_hot(labels, margins.shape[1], on_value=np.inf, off_value=0.0)
        return tf.reduce_min(margins + own, axis=1)


@dataclass(eq=False)
class SoftmaxThreshold:
    """One minus the greatest probability (Hendrycks and Gimpel 2017)."""

    threshold: float = np.inf
    name: str = "softmax threshold"

    def score(self, inputs: Any, logits: Any) -> Any:
        import tensorflow as tf

        return 1 - tf.reduce_max(tf.nn.softmax(logits), axis=1)


@dataclass(eq=False)
class FeatureSqueezing:
    """How far the probabilities move when the input is squeezed (Xu, Evans and Qi 2018).

    Fewer bits a value, and of images a median of neighbours; rounding passes gradients as if it did
    nothing (Athalye et al. 2018, BPDA).
    """

    model: keras.Sequential
    threshold: float = np.inf
    name: str = "feature squeezing"

    def score(self, inputs: Any, logits: Any) -> Any:
        import tensorflow as tf

        before = tf.nn.softmax(logits)
        squeezed = [_in_bits(inputs)]
        if len(inputs.shape) > 2:
            squeezed.append(_smoothed(inputs))
        moved = [
            tf.reduce_sum(tf.abs(before - tf.nn.softmax(self.model(each, training=False))), axis=1)
            for each in squeezed
        ]
        return tf.reduce_max(tf.stack(moved), axis=0)


def _in_bits(inputs: Any) -> Any:
    import tensorflow as tf

    levels = 2.0**BITS - 1
    return inputs + tf.stop_gradient(tf.round(inputs * levels) / levels - inputs)


def _smoothed(images: Any) -> Any:
    """The median of 2 x 2 neighbours."""
    import tensorflow as tf

    flat = images[..., None] if len(images.shape) == 3 else images
    parts = [tf.roll(flat, shift, axis=(1, 2)) for shift in ((0, 0), (0, 1), (1, 0), (1, 1))]
    middle = tf.reduce_mean(tf.sort(tf.stack(parts), axis=0)[1:3], axis=0)
    return tf.reshape(middle, tf.shape(images))


@dataclass(eq=False)
class Mahalanobis:
    """Distance of the last hidden layer from the nearest class, in a shared covariance.

    Lee et al. 2018, on the layer before the logits.
    """

    hidden: Any
    means: Float32Array
    whitening: Float32Array
    threshold: float = np.inf
    name: str = "Mahalanobis"

    @classmethod
    def of(cls, model: keras.Sequential, inputs: Inputs, labels: IntArray) -> Mahalanobis:
        """Fitted on training data."""
        hidden = _hidden_model(model)
        found = _in_batches(hidden, inputs)
        means = np.stack([found[labels == each].mean(axis=0) for each in np.unique(labels)])
        centred = found - means[np.searchsorted(np.unique(labels), labels)]
        values, vectors = np.linalg.eigh(np.cov(centred.T) + 1e-6 * np.eye(centred.shape[1]))
        whitening = vectors / np.sqrt(values)
        return cls(hidden, means.astype(np.float32), whitening.astype(np.float32))

    def score(self, inputs: Any, logits: Any) -> Any:
        import tensorflow as tf

        away = self.hidden(inputs, training=False)[:, None] - self.means
        return tf.reduce_min(tf.norm(away @ self.whitening, axis=2), axis=1)


@dataclass(eq=False)
class ActivationBoxes:
    """How far the last hidden layer leaves the box of its label's training inputs.

    Henzinger, Lukina and Schilling 2020, "Outside the Box", with one box for each class.
    """

    hidden: Any
    lower: Float32Array
    upper: Float32Array
    threshold: float = np.inf
    name: str = "activation boxes"

    @classmethod
    def of(cls, model: keras.Sequential, inputs: Inputs, labels: IntArray) -> ActivationBoxes:
        """Of the training inputs that are labelled right."""
        hidden = _hidden_model(model)
        found, said = _in_batches(hidden, inputs), _in_batches(model, inputs).argmax(axis=1)
        of_class = [found[(labels == each) & (said == each)] for each in np.unique(labels)]
        lower, upper = (
            np.stack([end(each, axis=0) for each in of_class]) for end in (np.min, np.max)
        )
        return cls(hidden, lower.astype(np.float32), upper.astype(np.float32))

    def score(self, inputs: Any, logits: Any) -> Any:
        import tensorflow as tf

        values, labels = self.hidden(inputs, training=False), tf.argmax(logits, axis=1)
        below = tf.gather(self.lower, labels) - values
        above = values - tf.gather(self.upper, labels)
        return tf.reduce_sum(tf.nn.relu(below) + tf.nn.relu(above), axis=1)


def scores(detector: Detector, model: keras.Sequential, inputs: Inputs) -> FloatArray:
    """In batches: (n,)."""
    import tensorflow as tf

    found = []
    for start in range(0, len(inputs), BATCH):
        some = tf.constant(inputs[start : start + BATCH])
        found.append(np.asarray(detector.score(some, model(some, training=False))))
    return np.concatenate(found).astype(np.float64)


def calibrated(
    detectors: Sequence[Detector], model: keras.Sequential, inputs: Inputs, flag_rate: float
) -> None:
    """Sets thresholds that flag this share of the inputs, or a little less."""
    for detector in detectors:
        found = scores(detector, model, inputs)
        detector.threshold = float(np.quantile(found, 1 - flag_rate, method="higher"))


def _hidden_model(model: keras.Sequential) -> Any:
    """Up to the input of the last layer."""
    import keras

    return keras.Model(model.inputs, model.layers[-1].input)


def _in_batches(model: Any, inputs: Inputs) -> Float32Array:
    parts = [
        np.asarray(model(inputs[start : start + BATCH], training=False))
        for start in range(0, len(inputs), BATCH)
    ]
    return np.concatenate(parts)
