"""What a model in training is worth, on the held-out part of the training inputs."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Float32Array, Inputs, IntArray
from tasks.core.attacks import gradient
from tasks.core.models.runtimes import Classifier
from tasks.core.properties.perturbation import Perturbation
from tasks.core.training.training_bounds import Balls, BoundedNetwork
from tasks.core.training.training_settings import TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras

ATTACK_STEPS = 10
ATTACKED_INPUTS = 1000  # of the split: more would cost as much as the training


class Validation:
    """Measures after every epoch, on the same inputs and at the radius defended from the start.

    - `val_loss`, `val_accuracy`: clean cross-entropy, weighted as in training, and accuracy.
    - `val_attacked_accuracy`: right under PGD, 10 steps, on the first 1,000 inputs.
    - `val_certified_accuracy`: proved by interval bounds in float32: a gauge, not a proof.

    Without inputs it measures nothing, without an epsilon only the clean two.
    """

    def __init__(
        self,
        model: keras.Sequential,
        inputs: Inputs,
        labels: IntArray,
        perturbation: Perturbation,
        epsilon: float | None,
        seed: int,
        class_weights: Float32Array,
    ) -> None:
        self.perturbation, self.class_weights = perturbation, class_weights
        self.inputs, self.labels, self.epsilon, self.seed = inputs, labels, epsilon, seed
        self.classifier = Classifier(model)

    def measure(self) -> dict[str, float]:
        """The metrics now."""
        import tensorflow as tf

        if not len(self.labels):
            return {}
        logits = self.classifier.logits(self.inputs)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(self.labels, logits)
        losses *= self.class_weights[self.labels]
        right = logits.argmax(axis=1) == self.labels
        metrics = {"val_loss": float(np.mean(losses)), "val_accuracy": float(right.mean())}
        if self.epsilon is not None:
            metrics["val_attacked_accuracy"] = self._attacked(self.epsilon)
            metrics["val_certified_accuracy"] = self._proved()
        return metrics

    def score(self, metrics: Mapping[str, float], settings: TrainingSettings) -> float:
        """What the best epoch has most of: what the defence is for."""
        if settings.is_certified:
            return metrics.get("val_certified_accuracy", -np.inf)
        if settings.is_attacked:
            return metrics.get("val_attacked_accuracy", -np.inf)
        return -metrics.get("val_loss", np.inf)

    def _attacked(self, epsilon: float) -> float:
        inputs, labels = self.inputs[:ATTACKED_INPUTS], self.labels[:ATTACKED_INPUTS]
        attacked = gradient.pgd(
            self.classifier,
            inputs,
            labels,
            self.perturbation,
            epsilon,
            num_steps=ATTACK_STEPS,
            num_restarts=1,
            seed=self.seed,
        )
        return float(1 - attacked.broken.mean())

    def _proved(self) -> float:
        certified = self._certified
        batches = self.classifier.batches(len(self.labels))
        parts = [np.asarray(certified(self.inputs[b], self.labels[b])) for b in batches]
        return float(np.concatenate(parts).mean())

    @cached_property
    def _certified(self) -> Any:
        import tensorflow as tf

        network = BoundedNetwork.of(self.classifier.model)
        balls = Balls.of(self.perturbation)

        @tf.function(reduce_retracing=True)
        def certified(inputs: Any, labels: Any) -> Any:
            ball = network.normalised(balls.around(inputs, self.epsilon))
            hidden = network.preactivations(ball.lower, ball.upper)
            margins = network.interval_margins(labels, hidden, ball)
            true = tf.one_hot(labels, margins.shape[1], on_value=True, off_value=False)
            return tf.reduce_all(true | (margins > 0), axis=1)

        return certified
