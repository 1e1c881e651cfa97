"""Training repeats by seed, keeps the best epoch when asked, and stops on a broken loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.core.architectures import build, describe
from tasks.core.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.training import TrainedModel, train

SETTINGS: dict[str, Any] = {
    "architecture": "dense",
    "hidden": (16,),
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 0.003,
    "validation_fraction": 0.1,
    "restore_best_epoch": False,
    "seed": 5,
}


def trained(data: Dataset, **changes: Any) -> TrainedModel:
    return train(data, **(SETTINGS | changes))


@pytest.mark.parametrize(("architecture", "hidden"), [("dense", (16, 8)), ("cnn_small", (12,))])
def test_same_seed_same_weights(
    architecture: str, hidden: tuple[int, ...], digits: Dataset
) -> None:
    runs = [trained(digits, architecture=architecture, hidden=hidden, epochs=1) for _ in range(2)]
    for first, second in zip(*(run.model.get_weights() for run in runs), strict=True):
        np.testing.assert_array_equal(first, second)
    assert runs[0].history == runs[1].history
    other = trained(digits, architecture=architecture, hidden=hidden, epochs=1, seed=6)
    assert not np.array_equal(other.model.get_weights()[0], runs[0].model.get_weights()[0])


def test_history_has_every_epoch(digits: Dataset) -> None:
    seen = []
    result = trained(digits, on_epoch=lambda epoch, metrics: seen.append((epoch, metrics)))
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert [metrics for _, metrics in seen] == result.history
    assert set(result.history[0]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_best_epoch_is_restored(digits: Dataset) -> None:
    """The learning rate makes the loss jump: the weights are those of its least."""
    import keras

    result = trained(digits, learning_rate=0.3, epochs=6, restore_best_epoch=True)
    losses = [metrics["val_loss"] for metrics in result.history]
    assert np.argmin(losses) < 5
    order = np.random.default_rng(5).permutation(len(digits.train_labels))
    held_out = order[: round(0.1 * len(order))]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        digits.train_labels[held_out], result.model(digits.train_images[held_out])
    )
    np.testing.assert_allclose(float(loss), min(losses), rtol=1e-4)


def test_without_validation_all_images_train(digits: Dataset) -> None:
    assert set(trained(digits, validation_fraction=0.0).history[0]) == {"loss", "accuracy"}


def test_broken_loss_stops_the_run(digits: Dataset) -> None:
    with pytest.raises(CertiflowError, match=r"loss is (nan|inf) after epoch .*learning_rate"):
        trained(digits, learning_rate=1e38)


def test_reference_network_has_its_published_size() -> None:
    """784 * 128 + 128 + 128 * 10 + 10 parameters."""
    assert build("dense", (28, 28), 10, (128,)).count_params() == 101_770
    assert describe("dense", (128,)) == "dense-128"


def test_small_convolutional_network_is_wong_and_kolters() -> None:
    """Shapes of the paper: 16 channels of 14x14, 32 of 7x7, 100 units; logits out."""
    model = build("cnn_small", (28, 28), 10, (100,))
    shapes = [layer.output.shape[1:] for layer in model.layers]
    assert (14, 14, 16) in shapes
    assert (7, 7, 32) in shapes
    assert shapes[-2:] == [(100,), (10,)]
