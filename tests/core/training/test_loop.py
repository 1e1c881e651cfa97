"""Training repeats by seed, keeps the best epoch when asked, and stops on a broken loss."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.readers.keras_network import relu_network
from tasks.core.training.architectures import build, describe
from tasks.core.training.loop import TrainedModel, shifted, train
from tasks.core.training.training_settings import TrainingSettings
from tasks.core.training.validation import Validation

CLEAN = {"loss", "learning_rate", "epoch_seconds"}
SETTINGS: dict[str, Any] = {"hidden": (16,), "epochs": 3, "learning_rate": 0.003}


def trained(data: Dataset, *, seed: int = 5, **changes: Any) -> TrainedModel:
    return train(data, TrainingSettings(**(SETTINGS | changes)), seed)


def same_weights(first: TrainedModel, second: TrainedModel) -> bool:
    pairs = zip(first.model.get_weights(), second.model.get_weights(), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


def without_times(result: TrainedModel) -> list[dict[str, float]]:
    return [{k: v for k, v in epoch.items() if k != "epoch_seconds"} for epoch in result.history]


@pytest.mark.parametrize(("architecture", "hidden"), [("dense", (16, 8)), ("cnn_small", (12,))])
def test_same_seed_same_weights(
    architecture: str, hidden: tuple[int, ...], digits: Dataset
) -> None:
    """Whatever state other threads have left Python's own generator in."""
    results = []
    for place, seed in enumerate((5, 5, 6)):
        random.seed(place)
        changes = {"architecture": architecture, "hidden": hidden, "epochs": 1}
        results.append(trained(digits, seed=seed, **changes))
    first, second, other = results
    assert same_weights(first, second)
    assert without_times(first) == without_times(second)
    assert not same_weights(first, other)


def test_history_has_every_epoch(digits: Dataset) -> None:
    seen = []
    settings = TrainingSettings(**SETTINGS)
    result = train(
        digits, settings, 5, on_epoch=lambda epoch, metrics: seen.append((epoch, metrics))
    )
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert [metrics for _, metrics in seen] == result.history
    assert set(result.history[0]) == CLEAN | {"val_loss", "val_accuracy"}
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_best_epoch_is_restored(digits: Dataset) -> None:
    """The learning rate makes the loss jump: the weights are those of its least."""
    result = trained(digits, learning_rate=0.3, epochs=6, restore_best_epoch=True)
    losses = [metrics["val_loss"] for metrics in result.history]
    assert np.argmin(losses) < 5
    assert result.best_epoch == np.argmin(losses) + 1
    order = np.random.default_rng(5).permutation(len(digits.train_labels))
    held_out = order[: round(0.1 * len(order))]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        digits.train_labels[held_out], result.model(digits.train_inputs[held_out])
    )
    np.testing.assert_allclose(float(loss), min(losses), rtol=1e-4)


def test_without_validation_all_images_train(digits: Dataset) -> None:
    assert set(trained(digits, validation_fraction=0.0).history[0]) == CLEAN


def test_broken_loss_stops_the_run(digits: Dataset) -> None:
    with pytest.raises(CertiflowError, match=r"loss is (nan|inf) after epoch .*learning_rate"):
        trained(digits, learning_rate=1e38)


def test_reference_network_has_its_published_size() -> None:
    """784 * 128 + 128 + 128 * 10 + 10 parameters."""
    assert build("dense", (28, 28), 10, (128,), seed=0).count_params() == 101_770
    assert describe("dense", (128,)) == "dense-128"


def test_small_convolutional_network_is_wong_and_kolters() -> None:
    """Shapes of the paper: 16 channels of 14x14, 32 of 7x7, 100 units; logits out."""
    model = build("cnn_small", (28, 28), 10, (100,), seed=0)
    shapes = [layer.output.shape[1:] for layer in model.layers]
    assert (14, 14, 16) in shapes
    assert (7, 7, 32) in shapes
    assert shapes[-2:] == [(100,), (10,)]


def test_wide_convolutional_network_has_twice_the_channels() -> None:
    model = build("cnn_wide", (28, 28), 10, (256,), seed=0)
    shapes = [layer.output.shape[1:] for layer in model.layers]
    assert shapes[1:3] == [(14, 14, 32), (7, 7, 64)]
    assert shapes[-2:] == [(256,), (10,)]


def test_medium_convolutional_network_is_gowals() -> None:
    """Shapes of the paper: twice 32 and 64 channels, halved by the strides; 512 and 512 units."""
    model = build("cnn_medium", (28, 28), 10, (512, 512), seed=0)
    shapes = [layer.output.shape[1:] for layer in model.layers]
    assert shapes[1:5] == [(28, 28, 32), (14, 14, 32), (14, 14, 64), (7, 7, 64)]
    assert shapes[-3:] == [(512,), (512,), (10,)]


def test_colour_images_keep_their_channels() -> None:
    """The first convolution sees three of them, and no Reshape comes before it."""
    for architecture, channels in (("cnn_small", 16), ("cnn_medium", 32)):
        model = build(architecture, (16, 16, 3), 10, (20,), seed=0)
        first = model.layers[0]
        assert isinstance(first, keras.layers.Conv2D)
        assert first.kernel.shape[2:] == (3, channels)


@pytest.mark.parametrize("defence", ["none", "crown_ibp"])
def test_colour_images_train(defence: str) -> None:
    """Which of three channels is bright, moved about, is learnt."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 300)
    images = generator.random((300, 8, 8, 3), dtype=np.float32) / 2
    images[np.arange(300), :, :, labels] += np.float32(0.3)
    data = Dataset.of_images("bright", (images, labels), (images[:50], labels[:50]))
    changes: dict[str, Any] = {"architecture": "cnn_small", "epochs": 12, "shift": 1}
    changes |= {} if defence == "none" else {"defence": defence, "epsilon": 0.01}
    result = trained(data, **changes)
    assert result.history[-1]["val_accuracy"] > 0.8
    np.testing.assert_allclose(
        relu_network(result.model)(images[:20]), result.model(images[:20]), atol=1e-4
    )


@pytest.mark.parametrize("defence", ["none", "fgsm", "pgd", "trades", "ibp", "crown_ibp", "sabr"])
def test_batch_normalisation_trains_and_is_folded(defence: str, digits: Dataset) -> None:
    changes = {} if defence == "none" else {"defence": defence, "epsilon": 0.05}
    result = trained(digits, batch_normalisation=True, **changes)
    assert result.history[-1]["val_accuracy"] > 0.8
    (layer,) = (
        each for each in result.model.layers if isinstance(each, keras.layers.BatchNormalization)
    )
    assert np.abs(layer.moving_mean).max() > 0.1  # it has learnt what its inputs are
    network, points = relu_network(result.model), digits.test_inputs[:50]
    assert [len(bias) for bias in (each.bias for each in network.layers)] == [16, 10]
    np.testing.assert_allclose(network(points), result.model(points), atol=1e-3)


def test_convolutions_are_normalised_too(digits: Dataset) -> None:
    """Each of the three layers before the logits, which the proofs see folded."""
    changes = {"architecture": "cnn_small", "defence": "ibp", "epsilon": 0.05}
    result = trained(digits, batch_normalisation=True, **changes)
    kinds = [type(layer).__name__ for layer in result.model.layers]
    assert kinds.count("BatchNormalization") == kinds.count("ReLU") == 3
    assert result.history[-1]["val_certified_accuracy"] > 0.3
    network, points = relu_network(result.model), digits.test_inputs[:50]
    np.testing.assert_allclose(network(points), result.model(points), atol=1e-3)


def test_validation_measures_at_the_radius_defended_not_the_one_trained_on(
    digits: Dataset,
) -> None:
    same: dict[str, Any] = {"defence": "ibp", "training_epsilon": 0.1}
    far, near = trained(digits, epsilon=0.1, **same), trained(digits, epsilon=0.02, **same)
    assert same_weights(far, near)
    for metric in ("val_certified_accuracy", "val_attacked_accuracy"):
        assert near.history[-1][metric] > far.history[-1][metric] + 0.05


@pytest.mark.parametrize(
    ("defence", "batch_normalisation"),
    [("none", False), ("none", True), ("pgd", False), ("crown_ibp", False), ("sabr", True)],
)
def test_interrupted_training_ends_with_the_same_weights(
    defence: str, batch_normalisation: bool, digits: Dataset, tmp_path: Path
) -> None:
    """Interrupted in its second epoch's report, and gone on with from the file it left."""
    changes: dict[str, Any] = {"defence": defence, "learning_rate_decay": "cosine", "epochs": 4}
    changes["batch_normalisation"] = batch_normalisation
    changes |= {} if defence == "none" else {"epsilon": 0.05, "warmup_epochs": 1}
    settings = TrainingSettings(**(SETTINGS | changes))
    path = tmp_path / "checkpoints" / "state.npz"

    def interrupt(epoch: int, metrics: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(digits, settings, 5, checkpoint=path, on_epoch=interrupt)
    seen: list[int] = []
    resumed = train(
        digits, settings, 5, checkpoint=path, on_epoch=lambda epoch, metrics: seen.append(epoch)
    )
    assert seen == [1, 2, 3, 4]
    whole = train(digits, settings, 5)
    assert same_weights(resumed, whole)
    assert without_times(resumed) == without_times(whole)
    # a training that had ended is not trained on
    assert same_weights(train(digits, settings, 5, checkpoint=path), whole)


def test_file_that_is_no_checkpoint_is_named(digits: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    path.write_bytes(b"PK broken")
    with pytest.raises(CertiflowError, match=r"state.npz: not a readable checkpoint .*delete it"):
        train(digits, TrainingSettings(), 5, checkpoint=path)


def test_catastrophic_overfitting_ends_the_training(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under PGD 80%, 90%, 60%: over after three epochs, with the second one's weights."""
    found = iter([0.8, 0.9, 0.6, 0.9])
    monkeypatch.setattr(Validation, "_attacked", lambda self, epsilon: next(found))
    result = trained(digits, defence="fgsm", epsilon=0.05, epochs=4)
    assert len(result.history) == 3
    assert result.best_epoch == 2
    assert "PGD fell from 90.00% to 60.00% in epoch 3" in result.warning
    monkeypatch.undo()
    assert same_weights(result, trained(digits, defence="fgsm", epsilon=0.05, epochs=2))


def test_defences_raise_what_they_are_for(digits: Dataset) -> None:
    """On digits at 0.1: adversarial training against attacks, certified training in proofs."""
    changes = {"hidden": (32,), "epochs": 15, "learning_rate": 0.005}
    plain = trained(digits, **changes, defence="pgd", epsilon=0.1, robust_weight=0.0)
    attacked = trained(digits, **changes, defence="pgd", epsilon=0.1)
    certified = trained(digits, **changes, defence="ibp", epsilon=0.1)
    end = {
        name: result.history[-1]
        for name, result in (("plain", plain), ("pgd", attacked), ("ibp", certified))
    }
    assert end["pgd"]["val_attacked_accuracy"] > end["plain"]["val_attacked_accuracy"] + 0.1
    assert end["ibp"]["val_certified_accuracy"] > end["plain"]["val_certified_accuracy"] + 0.3
    for metrics in end.values():
        names = ("val_certified_accuracy", "val_attacked_accuracy", "val_accuracy")
        values = [metrics[name] for name in names]
        assert values == sorted(values)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_shifted_images_are_moved_and_nothing_else(channels: tuple[int, ...]) -> None:
    """A single lit pixel ends within the distance asked, everywhere in it, and never fades."""
    images = np.zeros((400, 7, 6, *channels), np.float32)
    images[:, 3, 2, ...] = 0.5
    moved = shifted(images, 2, np.random.default_rng(0))
    assert moved.shape == images.shape
    if channels:  # which move together
        assert (moved == moved[..., :1]).all()
    count, rows, columns = np.nonzero(moved[..., 0] if channels else moved)
    np.testing.assert_array_equal(count, np.arange(400))
    assert set(rows) == {1, 2, 3, 4, 5}
    assert set(columns) == {0, 1, 2, 3, 4}
    assert set(moved[moved > 0]) == {0.5}
    assert shifted(images, 0, np.random.default_rng(0)) is images
