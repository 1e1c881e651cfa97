"""Training of a classifier, the same weights for the same seed, interrupted or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import Float32Array, Inputs, IntArray
from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.properties.perturbation import Perturbation
from tasks.core.training import architectures, defences
from tasks.core.training.checkpoints import Checkpoint
from tasks.core.training.schedule import Scheduled, scheduled
from tasks.core.training.training_settings import TrainingSettings
from tasks.core.training.validation import Validation

if TYPE_CHECKING:
    import keras

EpochMetrics = Mapping[str, float]

GRADIENT_NORM = 8.0  # of certified training, where bounds can blow up (Shi et al. 2021)
CATASTROPHE = 0.2  # a fall of the accuracy under PGD from one epoch to the next (Wong et al. 2020)


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model and its metrics after each epoch.

    `loss` is the epoch's mean; `epsilon`, `robust_weight` and `learning_rate` are those of its last
    batch; the others but `epoch_seconds` are `Validation`'s. `best_epoch`, counted from 1, is the
    one whose weights the model has; `warning` says why it is not the last, where that was not asked
    for.
    """

    model: keras.Sequential
    history: list[EpochMetrics]
    best_epoch: int
    warning: str


def train(
    dataset: Dataset,
    settings: TrainingSettings,
    seed: int,
    *,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, EpochMetrics], None] = lambda epoch, metrics: None,
) -> TrainedModel:
    """Adam on the defence's loss; two calls with one seed give the same weights on one machine.

    The validation split is the seeded, held-out part of the training inputs; the test set is never
    looked at. With `restore_best_epoch` the weights are those of the best epoch by `Validation`.
    After every epoch all state goes to `checkpoint`; where that file exists the training goes on
    from it, and ends with the same weights as one that was never interrupted.

    Raises:
        CertiflowError: the loss became NaN or infinite; the defence cannot bound a layer; images
            are needed and rows of a table given; the checkpoint cannot be read or written.
    """
    loop = _Loop(dataset, settings, seed)
    state = loop.initial_state() if checkpoint is None else Checkpoint.load(checkpoint)
    state = state or loop.initial_state()
    loop.take(state)
    for epoch, metrics in enumerate(state.history, start=1):
        on_epoch(epoch, metrics)
    while len(state.history) < settings.epochs and not loop.catastrophe(state.history):
        state = loop.after(state, loop.epoch(len(state.history)))
        if checkpoint is not None:
            state.save(checkpoint)
        on_epoch(len(state.history), state.history[-1])
    warning = loop.catastrophe(state.history)
    best_epoch = len(state.history)
    if settings.restore_best_epoch or warning:
        best_epoch = state.best_epoch
        loop.model.set_weights(state.best_weights)
    return TrainedModel(loop.model, state.history, best_epoch, warning)


def shifted(inputs: Inputs, pixels: int, generator: np.random.Generator) -> Inputs:
    """Images, (n, height, width, …), each moved by up to `pixels` each way; zeros move in."""
    if pixels == 0:
        return inputs
    count, height, width, *channels = inputs.shape
    around = [(0, 0), (pixels, pixels), (pixels, pixels), *[(0, 0)] * len(channels)]
    padded = np.pad(inputs, around)
    top, left = generator.integers(0, 2 * pixels, (2, count), endpoint=True)
    rows, columns = top[:, None] + np.arange(height), left[:, None] + np.arange(width)
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def balanced_weights(labels: IntArray, num_classes: int) -> Float32Array:
    """A weight for each class with which all have the same share of `labels`, their mean being 1.

    A class that does not occur has weight 0.
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = counts > 0
    shares = len(labels) / (present.sum() * np.maximum(counts, 1))
    return np.where(present, shares, 0).astype(np.float32)


class _Loop:
    """The model, its optimiser, and what an epoch does with them."""

    def __init__(self, dataset: Dataset, settings: TrainingSettings, seed: int) -> None:
        import keras
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        settings.check_data(dataset.extent)
        self.settings, self.seed = settings, seed
        order = np.random.default_rng(seed).permutation(len(dataset.train_labels))
        held_out, used = np.split(order, [round(settings.validation_fraction * len(order))])
        inputs, labels = dataset.train_inputs, dataset.train_labels.astype(np.int64)
        self.inputs, self.labels = inputs[used], labels[used]
        self.class_weights = self._class_weights(dataset.num_classes)
        self.model = self._untrained(dataset)
        if settings.is_certified:
            defences.initialise_for_intervals(self.model, seed)
        norm = GRADIENT_NORM if settings.is_certified else None
        self.optimizer = keras.optimizers.Adam(settings.learning_rate, global_clipnorm=norm)
        self.optimizer.build(self.model.trainable_variables)
        perturbation = dataset.perturbation
        self.validation = Validation(
            self.model,
            inputs[held_out],
            labels[held_out],
            perturbation,
            settings.epsilon,
            seed,
            self.class_weights,
        )
        self._step = self._compiled_step(perturbation)

    def _class_weights(self, num_classes: int) -> Float32Array:
        if self.settings.class_weights == "balanced":
            return balanced_weights(self.labels, num_classes)
        return np.ones(num_classes, dtype=np.float32)

    def _untrained(self, dataset: Dataset) -> keras.Sequential:
        settings, domain = self.settings, dataset.domain
        normalised = settings.normalise and domain.is_table
        return architectures.build(
            settings.architecture,
            dataset.input_shape,
            dataset.num_classes,
            settings.hidden,
            self.seed,
            normalisation=architectures.moments(self.inputs, domain) if normalised else None,
            batch_normalisation=settings.batch_normalisation,
        )

    def initial_state(self) -> Checkpoint:
        return self._state([], 0, [])

    def take(self, state: Checkpoint) -> None:
        """Model and optimiser as they were."""
        self.model.set_weights(state.weights)
        for variable, value in zip(self.optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)

    def epoch(self, done: int) -> dict[str, float]:
        """One pass over the training inputs, `done` epochs after the start."""
        started, size = monotonic(), self.settings.batch_size
        starts = range(0, len(self.labels), size)
        generator = np.random.default_rng([self.seed, done])
        order = generator.permutation(len(self.labels))
        total = 0.0
        for number, start in enumerate(starts):
            now = scheduled(self.settings, done + number / len(starts))
            rows = order[start : start + size]
            inputs = shifted(self.inputs[rows], self.settings.shift, generator)
            loss = self._batch(inputs, self.labels[rows], now, done * len(starts) + number)
            total += float(loss) * len(rows)
        metrics = {"loss": total / len(self.labels)}
        if not np.isfinite(metrics["loss"]):
            raise CertiflowError(
                f"the training loss is {metrics['loss']} after epoch {done + 1}: "
                "lower training.learning_rate"
            )
        metrics |= self.validation.measure()
        if self.settings.epsilon is not None:
            metrics |= {"epsilon": now.epsilon, "robust_weight": now.robust_weight}
        return metrics | {
            "learning_rate": now.learning_rate,
            "epoch_seconds": monotonic() - started,
        }

    def catastrophe(self, history: list[EpochMetrics]) -> str:
        """What there is to say of catastrophic overfitting in the last epoch, if anything.

        FGSM training can come to hold against FGSM and nothing else.
        """
        if self.settings.defence != "fgsm" or len(history) < 2:
            return ""
        before, now = (each["val_attacked_accuracy"] for each in history[-2:])
        if now > before - CATASTROPHE:
            return ""
        return (
            f"catastrophic overfitting: accuracy under PGD fell from {before:.2%} to {now:.2%} in "
            f"epoch {len(history)}; training ended there, and the weights are those of the best "
            "epoch; lower training.learning_rate or epochs, or use defence pgd"
        )

    def after(self, state: Checkpoint, metrics: EpochMetrics) -> Checkpoint:
        """The state with this epoch in it."""
        history = [*state.history, metrics]
        scores = [self.validation.score(each, self.settings) for each in history]
        if scores[-1] > max(scores[:-1], default=-np.inf):
            return self._state(history, len(history), self.model.get_weights())
        return self._state(history, state.best_epoch, state.best_weights)

    def _state(
        self, history: list[EpochMetrics], best_epoch: int, best_weights: list[NDArray[Any]]
    ) -> Checkpoint:
        optimizer = [np.array(variable) for variable in self.optimizer.variables]
        return Checkpoint(history, self.model.get_weights(), optimizer, best_epoch, best_weights)

    def _batch(self, inputs: Inputs, labels: IntArray, now: Scheduled, number: int) -> Any:
        self.optimizer.learning_rate.assign(now.learning_rate)
        return self._step(
            inputs,
            labels,
            np.float32(now.epsilon),
            np.float32(now.robust_weight),
            np.float32(now.ramp),
            np.array([self.seed % 2**31, number], dtype=np.int32),
        )

    def _compiled_step(self, perturbation: Perturbation) -> Any:
        import tensorflow as tf

        loss = defences.loss_of(
            self.settings.defence,
            self.model,
            perturbation,
            self.settings.attack_steps,
            self.settings.subselection_ratio,
            self.class_weights,
        )
        variables = self.model.trainable_variables
        scalar = tf.TensorSpec((), tf.float32)

        @tf.function(
            input_signature=[
                tf.TensorSpec((None, *self.inputs.shape[1:]), tf.float32),
                tf.TensorSpec((None,), tf.int64),
                scalar,
                scalar,
                scalar,
                tf.TensorSpec((2,), tf.int32),
            ]
        )
        def step(inputs: Any, labels: Any, epsilon: Any, weight: Any, ramp: Any, seed: Any) -> Any:
            with tf.GradientTape() as tape:
                value = loss(inputs, labels, epsilon, weight, ramp, seed)
            gradients = tape.gradient(value, variables)
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return value

        return step
