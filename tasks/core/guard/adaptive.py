"""Attacks on a label and a detector at once: another label that is not flagged.

Nothing here is trusted: whether a point fools the service is decided by what the service runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Inputs, IntArray
from tasks.core.attacks.gradient import PGD_STEP
from tasks.core.guard.detectors import Certificate, Detector
from tasks.core.properties.perturbation import Perturbation

if TYPE_CHECKING:
    import keras

BATCH = 500


@dataclass(frozen=True)
class Reach:
    """How far inputs may move, and the seed of the points of their boxes where an attack begins."""

    epsilon: float
    seed: int


@dataclass(eq=False)
class Attacker:
    """Who knows the model and the detector.

    Each attack is traced once and then used at any radius.
    """

    model: keras.Sequential
    perturbation: Perturbation
    num_steps: int
    _traced: dict[tuple[str, int], Any] = field(default_factory=dict)

    def orthogonal(
        self, detector: Detector, inputs: Inputs, labels: IntArray, reach: Reach
    ) -> Inputs:
        """Orthogonal PGD (Bryniarski et al. 2021, "Evading Adversarial Example Detection").

        While a point has its label it moves against that, at right angles to the detector's
        gradient; once it is mislabelled, against the detector at right angles to the label's.
        """
        import tensorflow as tf

        def direction(points: Any, true: Any) -> Any:
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(points)
                logits = self.model(points, training=False)
                margin = _margin(logits, true)
                score = detector.score(points, logits)
            away = _flat(_gradient(tape, margin, points))
            down = _flat(_gradient(tape, score, points))
            fooled = (margin < 0)[:, None]
            chosen = tf.where(fooled, _without(down, away), _without(away, down))
            return tf.reshape(chosen, tf.shape(points))

        return self._descended(("orthogonal", id(detector)), direction, inputs, labels, reach)

    def towards(
        self, certificate: Certificate, inputs: Inputs, targets: IntArray, reach: Reach
    ) -> Inputs:
        """PGD that raises the certified margin of another label: above 0 it would be accepted."""
        return self._by_margin(certificate, -1.0, inputs, targets, reach)

    def denial(
        self, certificate: Certificate, inputs: Inputs, labels: IntArray, reach: Reach
    ) -> Inputs:
        """PGD that lowers the certified margin of the right label: below 0 it may be flagged."""
        return self._by_margin(certificate, 1.0, inputs, labels, reach)

    def _by_margin(
        self, certificate: Certificate, sign: float, inputs: Inputs, labels: IntArray, reach: Reach
    ) -> Inputs:
        import tensorflow as tf

        def direction(points: Any, of: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(points)
                margins = sign * certificate.margins(points, of)
            return _gradient(tape, margins, points)

        key = (f"margin {sign}", id(certificate))
        return self._descended(key, direction, inputs, labels, reach)

    def _descended(
        self,
        key: tuple[str, int],
        direction: Callable[[Any, Any], Any],
        inputs: Inputs,
        labels: IntArray,
        reach: Reach,
    ) -> Inputs:
        """Steps against the sign of a direction, from seeded points of the boxes, within them."""
        run = self._traced.setdefault(key, self._run(direction))
        step = np.float32(PGD_STEP * reach.epsilon / self.num_steps) * self.perturbation.reach
        generator = np.random.default_rng(reach.seed)
        ends = []
        for start in range(0, len(inputs), BATCH):
            rows = slice(start, start + BATCH)
            lower, upper = self.perturbation.float32_bounds(inputs[rows], reach.epsilon)
            spread = generator.random(lower.shape, dtype=np.float32)
            points = np.clip(lower + spread * (upper - lower), lower, upper)
            ends.append(np.asarray(run(points, labels[rows], lower, upper, step)))
        return self._valid(np.concatenate(ends), inputs, reach.epsilon)

    def _run(self, direction: Callable[[Any, Any], Any]) -> Any:
        import tensorflow as tf

        shape = self.perturbation.domain.shape
        many = tf.TensorSpec((None, *shape), tf.float32)
        labels, step = tf.TensorSpec((None,), tf.int64), tf.TensorSpec(shape, tf.float32)

        @tf.function(input_signature=[many, labels, many, many, step])
        def run(points: Any, labels: Any, lower: Any, upper: Any, step: Any) -> Any:
            for _ in tf.range(self.num_steps):
                moved = points - step * tf.sign(direction(points, labels))
                points = tf.ensure_shape(tf.clip_by_value(moved, lower, upper), (None, *shape))
            return points

        return run

    def _valid(self, points: Inputs, inputs: Inputs, epsilon: float) -> Inputs:
        """With whole numbers where inputs are; the inputs themselves where that is no valid row."""
        domain = self.perturbation.domain
        if domain.is_plain:
            return points
        flat = domain.nearest(points.reshape(len(points), -1)).astype(np.float32)
        lower, upper = self.perturbation.float32_bounds(inputs, epsilon)
        flat = np.clip(flat, lower.reshape(flat.shape), upper.reshape(flat.shape))
        valid = domain.contains(flat)[:, None]
        return np.where(valid, flat, inputs.reshape(flat.shape)).reshape(points.shape)


def _margin(logits: Any, labels: Any) -> Any:
    """Of each label's logit over the greatest other one."""
    import tensorflow as tf

    own = tf.one_hot(labels, logits.shape[1], dtype=tf.bool, on_value=True, off_value=False)
    other = tf.reduce_max(tf.where(own, -np.inf, logits), axis=1)
    return tf.reduce_max(tf.where(own, logits, -np.inf), axis=1) - other


def _without(gradient: Any, other: Any) -> Any:
    """The part of a gradient at right angles to another one."""
    import tensorflow as tf

    along = tf.reduce_sum(gradient * other, axis=1, keepdims=True)
    length = tf.reduce_sum(other * other, axis=1, keepdims=True)
    return gradient - tf.math.divide_no_nan(along, length) * other


def _flat(values: Any) -> Any:
    import tensorflow as tf

    return tf.reshape(values, (tf.shape(values)[0], -1))


def _gradient(tape: Any, of: Any, points: Any) -> Any:
    """Zero where there is none."""
    import tensorflow as tf

    return tape.gradient(of, points, unconnected_gradients=tf.UnconnectedGradients.ZERO)
