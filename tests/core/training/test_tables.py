"""Training on the rows of tables: raw values, radii in their own units, classes of unlike size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from tasks.core.data.datasets import Dataset, Extent
from tasks.core.errors import CertiflowError
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation
from tasks.core.readers.keras_network import relu_network
from tasks.core.training.architectures import moments
from tasks.core.training.loop import balanced_weights
from tasks.core.training.training_settings import TrainingSettings
from tests.core.training.test_loop import trained


def table(rare: float = 0.5) -> Dataset:
    """A clients' table: the greater amount of two, in millions, and a colour that says nothing."""
    features = (
        Feature(name="income", lower=0, upper=4e6),
        Feature(name="age", kind="integer", lower=18, upper=99, mutable=False),
        Feature(name="colour", kind="category", categories=("red", "blue"), mutable=False),
        Feature(name="constant", lower=7, upper=7),
    )
    generator = np.random.default_rng(0)
    labels = (generator.random(600) < rare).astype(np.int64)
    inputs = np.stack(
        [
            np.clip(generator.normal(1.5e6 + 1e6 * labels, 3e5), 0, 4e6),
            generator.integers(18, 100, 600),
            *np.eye(2)[generator.integers(0, 2, 600)].T,
            np.full(600, 7),
        ],
        axis=1,
    ).astype(np.float32)
    domain = Domain.of_table(features)
    perturbation = Perturbation.of_table(domain, inputs)
    parts = (inputs[:500], labels[:500], inputs[500:], labels[500:])
    return Dataset("clients", *parts, ("good", "bad"), perturbation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "cnn_small"},
            "architecture is cnn_small, which needs images; .*choose d",
        ),
        ({"shift": 2}, r"training\.shift is 2, which moves images; inputs of shape \(.,\) are row"),
    ],
)
def test_what_needs_images_is_refused_for_tables(changes: dict[str, Any], message: str) -> None:
    settings = TrainingSettings(**changes)
    settings.check_data(Extent((28, 28), 10, 100))
    settings.check_data(Extent((32, 32, 3), 10, 100))
    with pytest.raises(CertiflowError, match=message):
        settings.check_data(Extent((3,), 2, 100))
    with pytest.raises(CertiflowError, match=message):
        trained(table(), **changes)


@pytest.mark.parametrize("defence", ["none", "fgsm", "pgd", "trades", "ibp", "crown_ibp", "sabr"])
def test_tables_train_on_raw_values(defence: str) -> None:
    """In millions beside ones, with radii in the columns' own units."""
    data = table()
    changes: dict[str, Any] = {"epochs": 20, "learning_rate": 0.01}
    changes |= {} if defence == "none" else {"defence": defence, "epsilon": 0.02}
    result = trained(data, **changes)
    first = result.model.layers[0]
    assert isinstance(first, keras.layers.Normalization)
    predictions = np.asarray(result.model(data.test_inputs)).argmax(axis=1)
    assert (predictions == data.test_labels).mean() > 0.85
    if defence != "none":
        metrics = result.history[-1]
        assert metrics["val_certified_accuracy"] <= metrics["val_attacked_accuracy"]
        assert metrics["val_certified_accuracy"] > 0.5
    network = relu_network(result.model)
    assert len(network.layers) == 2
    np.testing.assert_allclose(
        network(data.test_inputs), result.model(data.test_inputs), rtol=1e-3, atol=1e-3
    )


def test_normalised_columns_have_mean_0_and_variance_1() -> None:
    """But for categories and constants, which stay."""
    data = table()
    mean, variance = moments(data.train_inputs, data.domain)
    np.testing.assert_array_equal(mean[2:], [0, 0, 0])
    np.testing.assert_array_equal(variance[2:], [1, 1, 1])
    scaled = (data.train_inputs - mean) / np.sqrt(variance)
    np.testing.assert_allclose(scaled[:, :2].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled[:, :2].std(axis=0), 1, rtol=1e-6)


def test_without_normalisation_and_of_images_there_is_no_such_layer(digits: Dataset) -> None:
    for data, changes in ((table(), {"normalise": False}), (digits, {})):
        result = trained(data, epochs=1, learning_rate=1e-9, **changes)
        assert not any(isinstance(each, keras.layers.Normalization) for each in result.model.layers)


def test_balanced_weights_by_hand() -> None:
    """Of 8 labels 6 are of class 0 and 2 of class 2: 8 / (2 * 6) and 8 / (2 * 2)."""
    labels = np.array([0, 0, 2, 0, 0, 0, 2, 0])
    np.testing.assert_allclose(balanced_weights(labels, 3), [2 / 3, 0, 2])


def test_balanced_classes_are_found_more_often() -> None:
    data = table(rare=0.04)
    found = {}
    for class_weights in ("none", "balanced"):
        result = trained(data, epochs=4, class_weights=class_weights, learning_rate=0.002)
        predictions = np.asarray(result.model(data.train_inputs)).argmax(axis=1)
        found[class_weights] = predictions[data.train_labels == 1].mean()
    assert found["balanced"] > found["none"]


@pytest.mark.parametrize("threshold", [0.4, 0.7])
def test_the_model_says_positive_above_the_threshold(threshold: float) -> None:
    """Of the probabilities that the same training gives without one."""
    data = replace(table(), positive=1)
    plain = np.asarray(trained(data, epochs=2).model(data.test_inputs))
    moved = np.asarray(
        trained(data, epochs=2, decision_threshold=threshold).model(data.test_inputs)
    )
    probability = np.asarray(keras.ops.softmax(plain))[:, 1]
    assert 0 < (probability > threshold).sum() < len(plain)
    np.testing.assert_array_equal(moved.argmax(axis=1) == 1, probability > threshold)


@pytest.mark.parametrize("data", [Extent((3,), 2, 100), Extent((3,), 3, 100, positive=1)])
def test_a_threshold_needs_the_positive_one_of_two_classes(data: Extent) -> None:
    settings = TrainingSettings(decision_threshold=0.2)
    settings.check_data(Extent((3,), 2, 100, positive=1))
    with pytest.raises(CertiflowError, match=r"decision_threshold is 0\.2: .* set data\.pos"):
        settings.check_data(data)
