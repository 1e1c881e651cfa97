"""Training of a classifier, the same weights for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core import architectures
from tasks.core.architectures import Architecture
from tasks.core.datasets import Dataset
from tasks.core.errors import CertiflowError

if TYPE_CHECKING:
    import keras

EpochMetrics = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model and its metrics after each epoch (`loss`, `accuracy`, `val_loss`, `val_accuracy`)."""

    model: keras.Sequential
    history: list[EpochMetrics]


def train(
    dataset: Dataset,
    *,
    architecture: Architecture,
    hidden: Sequence[int],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    validation_fraction: float,
    restore_best_epoch: bool,
    seed: int,
    on_epoch: Callable[[int, EpochMetrics], None] = lambda epoch, metrics: None,
) -> TrainedModel:
    """Adam on cross-entropy; two calls with one seed give the same weights on one machine.

    The validation split is the seeded, held-out part of the training images; the test set is never
    looked at. With `restore_best_epoch` the weights are those of the least validation loss.

    Raises:
        CertiflowError: the loss became NaN or infinite.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    model = architectures.build(architecture, dataset.image_shape, dataset.num_classes, hidden)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    order = np.random.default_rng(seed).permutation(len(dataset.train_labels))
    held_out, used = np.split(order, [round(validation_fraction * len(order))])
    images, labels = dataset.train_images, dataset.train_labels
    history: list[EpochMetrics] = []
    callbacks = [_epoch_callback(history, on_epoch)]
    if restore_best_epoch:
        callbacks.append(
            keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
        )
    model.fit(
        images[used],
        labels[used],
        batch_size=batch_size,
        epochs=epochs,
        validation_data=(images[held_out], labels[held_out]) if len(held_out) else None,
        validation_batch_size=1000,
        callbacks=callbacks,
        verbose=0,
    )
    return TrainedModel(model, history)


def _epoch_callback(
    history: list[EpochMetrics], on_epoch: Callable[[int, EpochMetrics], None]
) -> Any:
    import keras

    def on_epoch_end(epoch: int, logs: EpochMetrics) -> None:
        metrics = {name: float(value) for name, value in logs.items()}
        if not np.isfinite(metrics["loss"]):
            raise CertiflowError(
                f"the training loss is {metrics['loss']} after epoch {epoch + 1}: "
                "lower training.learning_rate"
            )
        history.append(metrics)
        on_epoch(epoch + 1, metrics)

    return keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)
